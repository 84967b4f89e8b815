"""The saved view of a sweep in the MLflow UI: its cells, the columns that matter, in order.

The UI keeps a view that somebody shares as a tag of the experiment, `mlflow.sharedViewState.<key>`,
and opens it at `...?viewStateShareKey=<key>`; a filter in the same address would shut it out. The
key is the sweep's id. The tag may hold plain JSON (the UI itself deflates it).
"""

import json
from typing import Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.tracking import tags

TAG = "mlflow.sharedViewState."
LONGEST = 5_000  # characters that every store takes in a tag of an experiment
HISTORY = "log_lik_history"  # metric by step: the EM iterations of the best start
_METRICS = {  # in the order shown, with widths in pixels
    "n_states": 80,
    "bic": 100,
    "log_lik_val_per_bar": 140,
    "return_gain_val": 125,
    "ewma_gain_val": 120,
    "restart_agreement": 135,
    "min_occupancy": 120,
}
_YARDSTICKS = ("return_gain_val", "ewma_gain_val")
_LIKELIHOODS = ("bic", "log_lik_val_per_bar")  # compare nothing beyond one observation space
_SECTION = "What decides"
_MOST_RUNS = 20  # of a chart: more cannot be told apart
_TAGS = {tags.FAULTS: 160, tags.GATE_DECISION: 120}


def save_view(client: MlflowClient, experiment_id: str, sweep_id: str, cells: list[Run]) -> None:
    """Keep a sweep's view with its experiment, so that the link to it opens the table."""
    text = json.dumps(sweep_view(sweep_id, cells), separators=(",", ":"))
    assert len(text) <= LONGEST
    client.set_experiment_tag(experiment_id, TAG + sweep_id, text)


def sweep_view(sweep_id: str, cells: list[Run]) -> dict[str, Any]:
    """What the UI shows of a sweep, in the UI's own words.

    Sorted by the criterion where one observation space was swept, for a criterion compares nothing
    beyond; by the yardstick between spaces, and for walks, which no criterion ranks.
    """
    name, ascending = _order(cells)
    widths = {name: _METRICS.get(name, 120), **_METRICS}
    columns = {_column("metrics", metric): width for metric, width in widths.items()}
    columns |= {_column("tags", tag): width for tag, width in _TAGS.items()}
    return {
        "searchFilter": f"tags.{tags.SWEEP_ID} = '{sweep_id}' and tags.{tags.KIND} = 'cell'",
        "orderByKey": _column("metrics", name),
        "orderByAsc": ascending,
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": columns,
        "compareRunSections": [
            {"uuid": name, "name": name, "display": name == _SECTION, "isReordered": True}
            for name in (_SECTION, "Model metrics")  # the UI's own, where it puts all the others
        ],
        "compareRunCharts": _charts(cells),
    }


def _charts(cells: list[Run]) -> list[dict[str, Any]]:
    """What the chart view begins with: gain by setting, what decides, and convergence."""
    one_space = len(_spaces(cells)) == 1
    shown = [*_YARDSTICKS, *(_LIKELIHOODS if one_space else ())]
    bars: list[dict[str, Any]] = [{"type": "BAR", "metricKey": metric} for metric in shown]
    line: dict[str, Any] = {
        "type": "LINE",
        "metricKey": HISTORY,
        "xAxisKey": "step",
        "scaleType": "linear",
    }
    parallel: dict[str, Any] = {
        "type": "PARALLEL",
        "selectedParams": _varied(cells),
        "selectedMetrics": ["n_states", "return_gain_val"],
        "showAllRuns": True,
    }
    return [
        {
            "uuid": f"sweep-{number}",
            "metricSectionId": _SECTION,
            "runsCountToCompare": _MOST_RUNS,
            "deleted": False,
            "isGenerated": False,
            **chart,
        }
        for number, chart in enumerate([parallel, *bars, line])
    ]


def _varied(cells: list[Run]) -> list[str]:
    """Settings of which a sweep has more than one, the number of states left to its metric."""
    names = ("features.name", "timeframe.name", "covariance.type")
    return [name for name in names if len({run.data.params.get(name) for run in cells}) > 1]


def _order(cells: list[Run]) -> tuple[str, bool]:
    finished = [run for run in cells if run.info.status == "FINISHED"]
    params = finished[0].data.params if finished else {}
    if len(_spaces(finished)) > 1 or params.get("split.kind") == "walk_forward":
        return params.get("selection.across", "return_gain_val"), False
    return params.get("selection.within", "bic"), True


def _spaces(cells: list[Run]) -> set[str]:
    """Observation spaces of the cells that got as far as to have one."""
    spaces = {run.data.tags.get(tags.OBSERVATION_SPACE) for run in cells}
    return {space for space in spaces if space}


def _column(kind: str, name: str) -> str:
    """The UI's name of a column."""
    return f"{kind}.`{name}`"
