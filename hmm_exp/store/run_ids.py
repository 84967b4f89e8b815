"""Runs by the beginning of their id, as tables print it and users type it.

>>> full_run_id(client, "0a1b2c3d")
'0a1b2c3d4e5f60718293a4b5c6d7e8f9'
"""

import re

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.errors import TrackingError

SHORTEST = 6  # characters that name a run
_SHOWN = 12  # characters of each id in a list
_MOST_LISTED = 5
_LONGEST = 32
_ID = re.compile(r"[0-9a-f]{1,32}")  # or the beginning of one


def is_short(name: str) -> bool:
    """Whether a text can be the beginning of a run's id, long enough to name it."""
    return SHORTEST <= len(name) < _LONGEST and bool(_ID.fullmatch(name))


def full_run_id(client: MlflowClient, name: str) -> str:
    """Id of the one run whose id begins with `name`; a full id or another text as it is.

    Raises TrackingError when the beginning is too short, or no run or several runs have it.
    """
    small = name.lower()
    if not _ID.fullmatch(small):
        return name
    name = small
    if len(name) == _LONGEST:
        return name
    if len(name) < SHORTEST:
        raise TrackingError(
            f"{name} is too short: at least {SHORTEST} characters of a run's id are needed"
        )
    found = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()],
        filter_string=f"attributes.run_id LIKE '{name}%'",
        max_results=100,
    )
    ids = {run.info.run_id: _in_words(run) for run in found}
    return the_one("run", name, ids)


def the_one(kind: str, name: str, found: dict[str, str]) -> str:
    """The only key of `found`; its values name several in the error. Raises TrackingError."""
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise TrackingError(f"no {kind} {name} in this store")
    shown = sorted(found.values())[:_MOST_LISTED]
    more = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    raise TrackingError(f"{len(found)} {kind}s begin with {name}: {', '.join(shown)}{more}")


def _in_words(run: Run) -> str:
    return f"{run.info.run_id[:_SHOWN]} ({(run.info.run_name or '')[:40]})"
