"""What the record of a run lacks, and what to call a run that has lost its name.

The store may have been full, or somebody may have deleted a part: a run without params, tags or
metrics still has its line in every table, and does not take part in the choice.
"""

import json
from typing import Any

from mlflow.entities import Run

from hmm_exp.tracking import tags

_TAGS = (tags.CELL, tags.OBSERVATION_SPACE, tags.DATA_DIGEST)
_RULE = ("within", "rule", "near_tie", "elbow", "across")
_PARAMS = ("split.kind", *(f"selection.{name}" for name in _RULE))


def called(run: Run) -> str:
    """Name of a cell, or of a run that has lost this tag the name that the store gave it."""
    return run.data.tags.get(tags.CELL) or run.info.run_name or run.info.run_id


def lacks(run: Run) -> str:
    """What a finished run lacks for taking part in the choice; empty where it lacks nothing."""
    if run.info.status != "FINISHED":
        return ""
    data = run.data
    missing = [f"param {name}" for name in _PARAMS if name not in data.params]
    missing += [f"tag {name}" for name in _TAGS if name not in data.tags]
    missing += [f"metric {name}" for name in _metrics(run) if name not in data.metrics]
    if not missing:
        return ""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"incomplete record: no {missing[0]}{more}"


def tried(run: Run) -> list[dict[str, Any]]:
    """Criteria of every number of states tried in a run; none where the tag is lost or cut off."""
    try:
        return json.loads(run.data.tags.get(tags.CRITERIA_BY_STATES, "[]"))
    except ValueError:
        return []


def _metrics(run: Run) -> list[str]:
    """Metrics that rank a run: a walk goes by its yardstick, which may not exist."""
    if run.data.params.get("split.kind") == "walk_forward":
        return ["n_states"]
    return ["n_states", "n_params", run.data.params.get("selection.within", "bic")]
