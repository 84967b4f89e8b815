"""Ranks of a sweep's cells, as a tag by which the table of the UI is sorted: the winner first."""

from collections.abc import Sequence

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.tracking import tags
from hmm_exp.tracking.runs import all_runs, lacks, status_of

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


def rank_cells(client: MlflowClient, sweep_id: str, ranked: dict[str, str]) -> None:
    """Tag the first cells of a sweep with their rank, and remove the rank of all others.

    `ranked` are the cells that count; those of earlier starts may have had a rank.
    """
    first = dict(sorted(ranked.items(), key=lambda item: item[1])[:MOST])
    had_one = f"tags.{tags.SWEEP_ID} = '{sweep_id}' and tags.{tags.RANK} LIKE '%'"
    before = {run.info.run_id: run.data.tags[tags.RANK] for run in all_runs(client, had_one)}
    for run_id in before.keys() - first.keys():
        client.delete_tag(run_id, tags.RANK)
    for run_id, rank in first.items():
        if rank != before.get(run_id):
            client.set_tag(run_id, tags.RANK, rank)


_GROUPS = ("winner", "", "ineligible", "failed", "killed", "running", "scheduled")


def _mark(run: Run, winner: str | None) -> str:
    if run.info.run_id == winner:
        return "winner"
    if run.info.status != "FINISHED":
        return status_of(run).lower()
    return "ineligible" if lacks(run) or tags.FAULTS in run.data.tags else ""
