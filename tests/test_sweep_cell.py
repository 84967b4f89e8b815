"""Cells that take turns in one process."""

from collections.abc import Callable

import pytest

from hmm_exp.config import Config
from hmm_exp.sweep.cell import SweepCell, Turns


class Noted(SweepCell):
    """A cell that only notes what is asked of it."""

    notes: list[str]
    fits = True

    def fit(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.notes.append(f"fit {self.number}")
        if self.fits:
            meanwhile()
        self.notes.append(f"fitted {self.number}")

    def wait(self) -> None:
        self.notes.append(f"wait {self.number}")

    def record(self) -> None:
        if f"record {self.number}" not in self.notes:
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
        "fit 1, fitted 1, wait 1, fit 2, record 1, fitted 2, wait 2, fit 3, record 2, fitted 3, "
        "wait 3, record 3"
    )


def test_each_is_recorded_where_the_next_is_done_already(cells):
    cells[1].fits = False
    turns = Turns()
    for cell in cells:
        turns.take(cell)
    notes = cells[0].notes
    assert notes.index("record 1") == notes.index("fitted 2") + 1
    assert "record 3" not in notes
