"""Descriptions of sweeps and model versions for the pages of the MLflow UI, in Markdown.

Links begin with `#/`, so that they lead on inside the same UI wherever it is served. Texts from
outside, such as the name of an instrument, are written so that no page reads them as Markdown.
"""

import html
import re
from collections.abc import Mapping, Sequence

import pandas as pd
from mlflow.entities import Run

from hmm_exp.tracking import tags

REPORT = "report.html"  # the sweep's report among the parent's artifacts
_ROWS = 12  # cells of a description; the linked table has all
_FOUND = (tags.GATE_REASONS, tags.GATE_NOTES)
_FORMS = {"K": ".0f", "bic": ".1f", "val_ll/bar": "+.4f", "gain_t": "+.4f", "gain_ewma": "+.4f"}
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
    """Description of a sweep: who won, why, what the gate said, the best cells.

    Parameters
    ----------
    winner
        None where nothing could be chosen.
    table
        From `leaderboard`; None without cells.
    verdict
        Lines of the terminal: the choice, how much of it is luck, the gate.
    has_report
        Whether `REPORT` is among the artifacts.
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


def version_page(run: Run, about: Mapping[str, str], metrics: Mapping[str, str]) -> str:
    """Description of a model version: what it is, where from, its figures, what the gate found.

    Parameters
    ----------
    about
        Tags of the version.
    metrics
        Those of its run that a version carries, as text.
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
    columns = ["cell", "K", "bic", "val_ll/bar", "gain_t", "gain_ewma", "eligible"]
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for _, row in table.iterrows():
        link = f"[{plain(row['cell'])}]({run_path(experiment, row['run'])})"
        eligible = plain(str(row["eligible"])[:80])
        figures = [_figure(row[name], form) for name, form in _FORMS.items()]
        rows.append("| " + " | ".join([link, *figures, eligible]) + " |")
    return "\n".join(rows)


def _figure(value: float | None, form: str) -> str:
    return "" if value is None or pd.isna(value) else format(value, form)
