"""Ranks of cells in the UI's table: the winner first, ineligible cells after all eligible ones."""

import pytest

from hmm_exp.tracking import ranks as ranking
from hmm_exp.tracking import tags
from hmm_exp.tracking.ranks import rank_cells, ranks
from hmm_exp.tracking.runs import sweep_cells
from tests.small_detector import forget_store, store_in
from tests.test_tracking_runs import METRICS, PARAMS, SWEEP, TAGS, make


@pytest.fixture
def store(workdir):
    yield store_in(workdir)
    forget_store()


def cell(store, name: str, *, status: str = "FINISHED", faults: str = "", **metrics: float):
    known = TAGS | {tags.CELL: name} | ({tags.FAULTS: faults} if faults else {})
    return make(store, PARAMS, known, METRICS | metrics, status=status)


def in_order(store) -> list[str]:
    """What the UI asks the store for: a sweep's cells by rank."""
    found = store.client.search_runs(
        [store.experiment_id],
        filter_string=f"tags.{tags.SWEEP_ID} = '{SWEEP}'",
        order_by=[f"tags.`{tags.RANK}` ASC"],
    )
    return [f"{run.data.tags[tags.CELL]}: {run.data.tags.get(tags.RANK, '')}" for run in found]


def rank(store, winner: str | None, metric: str = "bic", ascending: bool = True) -> None:
    cells = sweep_cells(store.client, SWEEP)
    rank_cells(store.client, cells, ranks(cells, winner, metric, ascending))


def test_the_winner_is_first_though_another_has_the_lower_criterion(store):
    cell(store, "lower", bic=1.0)
    cell(store, "broken", bic=0.5, faults="state 0 is empty")
    won = cell(store, "near tie", bic=2.0)
    cell(store, "higher", bic=3.0)
    make(store, PARAMS, TAGS | {tags.CELL: "failed"}, {}, status="FAILED")
    make(store, {}, TAGS | {tags.CELL: "lost"}, {})
    rank(store, won.info.run_id)
    assert in_order(store) == [
        "near tie: 1 winner",
        "lower: 2",
        "higher: 3",
        "broken: 4 ineligible",
        "lost: 5 ineligible",
        "failed: 6 failed",
    ]


def test_a_gain_ranks_the_highest_first_and_ten_come_after_nine(store):
    for number in range(12):
        cell(store, f"{number}", return_gain_val=number / 100)
    rank(store, None, "return_gain_val", ascending=False)
    numbers = [line.split(":")[0] for line in in_order(store)]
    assert numbers == [str(number) for number in reversed(range(12))]


def test_a_resumed_sweep_has_one_winner_and_no_old_rank(store, monkeypatch):
    first = cell(store, "first", bic=2.0)
    rank(store, first.info.run_id)
    later = cell(store, "later", bic=1.0)
    rank(store, later.info.run_id)
    assert in_order(store) == ["later: 1 winner", "first: 2"]
    monkeypatch.setattr(ranking, "MOST", 1)
    rank(store, first.info.run_id)
    assert in_order(store) == ["first: 1 winner", "later: "]
