"""Cells that take turns in one process."""

import pytest

from hmm_exp.config import Config
from hmm_exp.sweep.cell import SweepCell, Turns


class Noted(SweepCell):
    """A cell that only notes what is asked of it."""

    notes: list[str]

    def begin(self, last: SweepCell | None = None) -> None:
        self.notes.append(f"begin {self.number}")

    def wait(self) -> None:
        self.notes.append(f"wait {self.number}")

    def record(self) -> None:
        self.notes.append(f"record {self.number}")


@pytest.fixture
def cells() -> list[Noted]:
    cells = [Noted(Config(), number) for number in (1, 2, 3)]
    notes: list[str] = []
    for cell in cells:
        cell.notes = notes
    return cells


def test_each_is_recorded_while_the_next_is_fitted(cells):
    turns = Turns()
    for cell in cells:
        turns.take(cell)
    turns.end()
    turns.end()
    assert ", ".join(cells[0].notes) == (
        "begin 1, wait 1, begin 2, record 1, wait 2, begin 3, record 2, wait 3, record 3"
    )
