"""Differences since a sweep started, shown before it resumes.

    for line in changes(client, parent, digests):
        print(f"warning: {line}")

Finished cells stay in the sweep whatever data and command made them; the user must know of a mix.
"""

from hydra.errors import HydraException
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.errors import HmmExpError
from hmm_exp.sweep.plan import said_of_cells
from hmm_exp.tracking import tags
from hmm_exp.tracking.provenance import command_line
from hmm_exp.tracking.runs import sweep_cells


def changes(client: MlflowClient, parent: Run, digests: set[str]) -> list[str]:
    """Warnings before a sweep resumes with another command or with data of other `digests`."""
    sweep_id = parent.data.tags[tags.SWEEP_ID]
    began_as = parent.data.tags.get(tags.COMMAND)
    lines = []
    if began_as is not None and (differs := _differs(began_as, command_line())):
        lines.append(
            f'sweep {sweep_id} began as "{began_as}": cells of both commands count '
            f"(they differ in {differs})"
        )
    finished = (run for run in sweep_cells(client, sweep_id) if run.info.status == "FINISHED")
    before = {run.data.tags.get(tags.DATA_DIGEST, "") for run in finished} - {""}
    if (gone := before - digests) and (new := digests - before):
        lines.append(
            f"the data changed since sweep {sweep_id} began (digest {_short(gone)} → "
            f"{_short(new)}): with cells of both data it has no winner, restore the file or start "
            "a new sweep"
        )
    return lines


def _differs(before: str, now: str) -> str:
    """Settings of cells in which two commands differ, in words; empty when there are none."""
    try:
        old, new = said_of_cells(before), said_of_cells(now)
    except (HydraException, HmmExpError, ValueError):  # a command that the store has cut off
        return "" if before == now else "words"
    return ", ".join(sorted(key for key in old | new if old.get(key) != new.get(key)))


def _short(digests: set[str]) -> str:
    return ", ".join(sorted(digest[:8] for digest in digests))
