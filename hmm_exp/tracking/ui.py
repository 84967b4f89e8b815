"""Descriptions, links and saved views of sweeps and model versions in the MLflow UI.

Links begin with `#/`, so that they lead on inside the same UI wherever it is served. Texts from
outside, such as the name of an instrument, are written so that no page reads them as Markdown.
"""

import html
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.errors import redacted
from hmm_exp.judge.wording import signed
from hmm_exp.store.address import DATABASE, is_served, sqlite_path
from hmm_exp.store.store import Store
from hmm_exp.tracking import tags
from hmm_exp.tracking.ranks import rank_cells, ranks

REPORT = "report.html"  # the sweep's report among the parent's artifacts
_ROWS = 12  # cells of a description; the linked table has all
_FOUND = (tags.GATE_REASONS, tags.GATE_NOTES)
GAIN_COLUMNS = {  # columns of a leaderboard, gains on validation
    "gain_t": "return_gain_val",
    "gain_ewma": "ewma_gain_val",
    "gain_range": "range_ewma_gain_val",
    "gain_hour": "ewma_hour_gain_val",
    "gain_both": "range_ewma_hour_gain_val",
}
_FORMS: dict[str, Callable[[float], str]] = {
    "K": "{:.0f}".format,
    "bic": "{:.1f}".format,
    **dict.fromkeys(("val_ll/bar", *GAIN_COLUMNS), signed),
}
_MARKS = re.compile(r"[&<>\[\]()*_`~|\\#!{}$]")
_MODE = "workflowType=machine_learning"  # else the UI opens in its GenAI mode


def run_path(experiment_id: str, run_id: str) -> str:
    """Place of a run in the UI, after the server's address."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{_MODE}"


def view_path(experiment_id: str, sweep_id: str) -> str:
    """Place of a sweep's table in the UI; see `view`."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={sweep_id}&{_MODE}"


def sweep_page(
    parent: Run,
    winner: Run | None,
    table: pd.DataFrame | None,
    verdict: Sequence[str],
    has_report: bool,
) -> str:
    """Description of a sweep in Markdown: the winner and why, the gate, the best cells.

    `table` is that of `leaderboard`, `verdict` the lines of the terminal: the choice, how much of
    it is luck, the gate. `has_report` tells whether `REPORT` is among the artifacts.
    """
    experiment = parent.info.experiment_id
    sweep_id = parent.data.tags[tags.SWEEP_ID]
    head = "**No winner.**"
    if winner is not None:
        name, run_id = plain(winner.data.tags[tags.CELL]), winner.info.run_id
        head = f"**{name}** wins: [its run]({run_path(experiment, run_id)})."
        now = plain(winner.data.tags.get(tags.REGIME_NOW, ""))
        head += f" {now[:1].upper()}{now[1:]}"
    links = [f"[Table of all cells]({view_path(experiment, sweep_id)})"]
    links += [f"`{REPORT}` under Artifacts: every figure, sortable"] if has_report else []
    parts = [head, " · ".join(links), _bullets(verdict)]
    if table is not None and len(table):
        parts.append(_markdown(table.head(_ROWS), experiment))
    return "\n\n".join(parts)


def panel_page(parent: Run, table: pd.DataFrame, verdict: Sequence[str]) -> str:
    """Description of a panel in Markdown: what it shows, and its first symbols.

    `table` is that of `symbols.csv`, `verdict` the lines of the terminal.
    """
    experiment = parent.info.experiment_id
    link = view_path(experiment, parent.data.tags[tags.SWEEP_ID])
    columns = ["winner", "promoted", "regime"]
    rows = ["| symbol | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for _, row in table[["symbol", "run", *columns]].head(_ROWS).fillna("").iterrows():
        name = f"[{plain(row['symbol'])}]({run_path(experiment, row['run'])})"
        rows.append("| " + " | ".join([name, *(plain(row[c]) for c in columns)]) + " |")
    return "\n\n".join([f"[Table of all cells]({link})", _bullets(verdict), "\n".join(rows)])


def version_page(run: Run, about: Mapping[str, str], metrics: Mapping[str, str]) -> str:
    """Description of a model version in Markdown: its run, its figures, the gate's findings.

    `about` are tags of the version; `metrics` are those of its run that a version carries.
    """
    source = f"[run {run.info.run_id}]({run_path(run.info.experiment_id, run.info.run_id)})"
    if sweep := about.get(tags.SWEEP_ID):
        source += f" of sweep [{sweep}]({view_path(run.info.experiment_id, sweep)})"
    instrument = plain(about.get(tags.INSTRUMENT, "an unnamed instrument"))
    parts = [f"**{plain(about.get(tags.CELL, 'model'))}** on {instrument}, {source}"]
    if metrics:
        rows = [f"| {plain(name)} | {plain(value)} |" for name, value in metrics.items()]
        cells = "\n".join(rows)
        parts.append(f"| metric | value |\n|---|---|\n{cells}")
    found = [line for name in _FOUND for line in about.get(name, "").split("; ") if line]
    if found:
        parts.append(f"Gate `{about.get(tags.GATE, '')}`:\n\n{_bullets(found)}")
    if labels := about.get(tags.LABELS):
        parts.append(f"Labels {plain(labels)}.")
    return "\n\n".join(parts)


def in_a_line(page: str | None) -> str:
    """The first line of a description without its marks, for a terminal."""
    line = (page or "").split("\n")[0].replace("**", "")
    return html.unescape(re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line))


def plain(text: str) -> str:
    """A text on one line that Markdown and HTML show as it is: their marks become references.

    Unlike one after a backslash, a character that is written by its number marks nothing in any
    dialect of Markdown.
    """
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", " ".join(line.split()))


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines if line.strip())


def _markdown(table: pd.DataFrame, experiment: str) -> str:
    """The leaderboard in Markdown, each cell a link to its run."""
    columns = ["cell", *_FORMS, "eligible"]
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for _, row in table.iterrows():
        link = f"[{plain(row['cell'])}]({run_path(experiment, row['run'])})"
        eligible = plain(str(row["eligible"])[:80])
        figures = ["" if pd.isna(row[name]) else form(row[name]) for name, form in _FORMS.items()]
        rows.append("| " + " | ".join([link, *figures, eligible]) + " |")
    return "\n".join(rows)


TAG = "mlflow.sharedViewState."
LONGEST = 5_000  # characters that every store takes in a tag of an experiment
HISTORY = "log_lik_history"  # metrics by step: the EM iterations of the best start
MILLINATS = "_mnat"  # ending of a gain in millinats, for reading
_DATASET = "attributes.`Dataset`"
_METRICS = {  # in the order shown, with widths in pixels
    "n_states": 80,
    "bic": 100,
    "log_lik_val_per_bar": 140,
    **{f"{gain}{MILLINATS}": 155 for gain in GAIN_COLUMNS.values()},
    "restart_agreement": 135,
    "min_occupancy": 120,
}
_YARDSTICKS = (f"return_gain_val{MILLINATS}", f"ewma_gain_val{MILLINATS}")
_LIKELIHOODS = ("bic", "log_lik_val_per_bar")  # compare nothing beyond one observation space
_SECTION = "What decides"
_MOST_RUNS = 20  # of a chart: more cannot be told apart
_MOST_SPACES = 6  # with a chart of convergence
_TAGS = {tags.FAULTS: 160, tags.GATE_DECISION: 120}


def in_millinats(metrics: Mapping[str, float]) -> dict[str, float]:
    """Gains of the UI's table and charts in millinats per bar, by metric.

    Two decimals: the table shows all digits of a metric, the charts two decimals.
    """
    gains = [name for name in GAIN_COLUMNS.values() if name in metrics]
    return {f"{name}{MILLINATS}": round(1000.0 * metrics[name], 2) for name in gains}


def history_key(space: str) -> str:
    """Metric of the EM iterations in one observation space: no chart joins two spaces.

    >>> history_key("v1@1H#5ddb08")
    'log_lik_history/v1-1H-5ddb08'
    """
    return f"{HISTORY}/{re.sub(r'[^A-Za-z0-9_.]+', '-', space)}"


def save_view(
    client: MlflowClient,
    experiment_id: str,
    sweep_id: str,
    cells: list[Run],
    winner: str | None = None,
) -> None:
    """Rank the cells, and keep a sweep's view with its experiment: the link to it opens the table.

    `winner` is the id of the run that won.
    """
    rank_cells(client, sweep_id, ranks(cells, winner, *_order(cells)))
    text = json.dumps(sweep_view(sweep_id, cells), separators=(",", ":"))
    assert len(text) <= LONGEST
    client.set_experiment_tag(experiment_id, TAG + sweep_id, text)


def sweep_view(sweep_id: str, cells: list[Run]) -> dict[str, Any]:
    """State of the UI's table and charts of a sweep, as the UI stores it.

    Sorted by rank. The first metric is the one that ranks: the criterion in a sweep of one
    observation space, for a criterion compares nothing beyond; the return forecast between spaces,
    and for walks, which no criterion ranks.
    """
    name, _ = _order(cells)
    name += MILLINATS if name in GAIN_COLUMNS.values() else ""
    widths = {name: _METRICS.get(name, 120), **_METRICS}
    columns = {_column("tags", tags.RANK): 110}
    columns |= {_column("metrics", metric): width for metric, width in widths.items()}
    columns |= {_column("tags", tag): width for tag, width in _TAGS.items()} | {_DATASET: 200}
    return {
        "searchFilter": f"tags.{tags.SWEEP_ID} = '{sweep_id}' and tags.{tags.KIND} = 'cell'",
        "orderByKey": _column("tags", tags.RANK),
        "orderByAsc": True,
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
    """Charts of a sweep: gain by setting, the deciding metric, and convergence in each space."""
    spaces = _spaces(cells)
    shown = [*_YARDSTICKS, *(_LIKELIHOODS if len(spaces) == 1 else ())]
    bars: list[dict[str, Any]] = [{"type": "BAR", "metricKey": metric} for metric in shown]
    lines: list[dict[str, Any]] = [
        {
            "type": "LINE",
            "metricKey": history_key(space),
            "xAxisKey": "step",
            "scaleType": "linear",
        }
        for space in sorted(spaces)[:_MOST_SPACES]
    ]
    parallel: dict[str, Any] = {
        "type": "PARALLEL",
        "selectedParams": _varied(cells),
        "selectedMetrics": ["n_states", _YARDSTICKS[0]],
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
        for number, chart in enumerate([parallel, *bars, *lines])
    ]


def _varied(cells: list[Run]) -> list[str]:
    """Settings that vary in a sweep, except for the number of states."""
    names = ("features.name", "timeframe.name", "covariance.type")
    values = {name: {run.data.params.get(name) for run in cells} - {None} for name in names}
    return [name for name, found in values.items() if len(found) > 1]


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


def _number(x: float) -> str:
    """A number in four digits, or all digits before the point if there are more."""
    return f"{x:.0f}" if abs(x) >= 1000 else f"{x:.4g}"


def ui_command(store: Store) -> str:
    """Command that serves the store's UI; empty when a server does already."""
    if is_served(store.uri):
        return ""
    if sqlite_path(store.uri) == Path.cwd() / DATABASE:  # which it serves without an option
        return "mlflow ui, then "
    return f"mlflow ui --backend-store-uri {shlex.quote(redacted(store.uri))}, then "


def plain_table(table: pd.DataFrame) -> str:
    """A table as aligned text without an index; missing values are blank."""
    return table.to_string(index=False, na_rep="", float_format=_number)


def ui_link(store: Store, *, run_id: str | None = None, sweep_id: str | None = None) -> str:
    """Address of a run, or of the table of a sweep's cells, in the MLflow UI."""
    base = redacted(store.uri).rstrip("/") if is_served(store.uri) else "http://127.0.0.1:5000"
    if run_id is not None:
        return f"{base}/{run_path(store.experiment_id, run_id)}"
    assert sweep_id is not None
    return f"{base}/{view_path(store.experiment_id, sweep_id)}"
