"""Ranks of a sweep's cells, as a tag by which the table of the UI is sorted: the winner first."""

from collections.abc import Sequence

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.tracking import tags
from hmm_exp.tracking.runs import lacks, status_of

MOST = 200  # cells with a rank: a tag takes 3 ms, and 1,000 of them would take 3 s


def ranks(cells: Sequence[Run], winner: str | None, metric: str, ascending: bool) -> dict[str, str]:
    """Rank of every cell by run id: "1 winner", "2", "3 ineligible", "4 failed".

    The winner comes first, then eligible, ineligible and unfinished cells, each by `metric`. All
    numbers have as many digits as the largest, because the UI sorts tags as texts.
    """

    def place(run: Run) -> tuple[int, bool, float]:
        value = run.data.metrics.get(metric)
        group = _GROUPS.index(marks[run.info.run_id])
        return group, value is None, (value or 0.0) if ascending else -(value or 0.0)

    marks = {run.info.run_id: _mark(run, winner) for run in cells}
    order = [run.info.run_id for run in sorted(cells, key=place)]
    width = len(str(len(order)))
    return {
        run_id: f"{number:0{width}} {marks[run_id]}".strip()
        for number, run_id in enumerate(order, start=1)
    }


def rank_cells(client: MlflowClient, cells: Sequence[Run], ranked: dict[str, str]) -> None:
    """Tag the first cells with their rank, and take an earlier rank from the others."""
    first = set(sorted(ranked, key=ranked.__getitem__)[:MOST])
    for run in cells:
        run_id, before = run.info.run_id, run.data.tags.get(tags.RANK)
        if run_id in first and before != ranked[run_id]:
            client.set_tag(run_id, tags.RANK, ranked[run_id])
        elif run_id not in first and before is not None:
            client.delete_tag(run_id, tags.RANK)


_GROUPS = ("winner", "", "ineligible", "failed", "killed", "running", "scheduled")


def _mark(run: Run, winner: str | None) -> str:
    if run.info.run_id == winner:
        return "winner"
    if run.info.status != "FINISHED":
        return status_of(run).lower()
    return "ineligible" if lacks(run) or tags.FAULTS in run.data.tags else ""
