"""A sweep's cells as a leaderboard, as heatmaps of their gain, and the unfinished ones."""

import math
import re
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Run

from hmm_exp.report.collect import Subject
from hmm_exp.report.tables import DataTable, TableCell, plain
from hmm_exp.report.words import signed
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import densities_of
from hmm_exp.tracking.runs import called
from hmm_exp.tracking.ui import GAIN_COLUMNS

_DENSITIES = ("spherical", "diag", "diag-t", "tied", "full", "full-t")


def rows(subject: Subject) -> list[dict[str, Any]]:
    """Rows of the leaderboard."""
    runs = {run.info.run_id: run for run in subject.cells}
    table = _spaces_in_order(subject, runs)
    best = max([abs(gain) for gain in subject.table["gain_t"].dropna()] or [1.0])
    winner = subject.main.data.tags.get(tags.WINNER)
    return [_board_row(row, runs[row["run"]], winner, best) for _, row in table.iterrows()]


def _spaces_in_order(subject: Subject, runs: dict[str, Run]) -> pd.DataFrame:
    """The leaderboard with the winner's space first, then spaces by their highest gain."""
    winner = subject.main.data.tags.get(tags.WINNER)
    space = subject.table["run"].map(lambda run: runs[run].data.tags.get(tags.OBSERVATION_SPACE))
    finished = subject.table["run"].map(lambda run: runs[run].info.status == "FINISHED")
    best = subject.table["gain_t"].astype(float).where(finished).groupby(space).transform("max")
    mine = subject.table["run"].eq(winner or "").groupby(space).transform("any")
    order = pd.DataFrame({"f": ~finished, "other": ~mine.fillna(False).astype(bool), "best": -best})
    return subject.table.loc[order.sort_values(["f", "other", "best"], kind="stable").index]


def _board_row(row: pd.Series, run: Run, winner: str | None, best: float) -> dict[str, Any]:
    finished = run.info.status == "FINISHED"
    test = run.data.metrics.get("return_gain_test", math.nan)
    values = [row["bic"], row["val_ll/bar"], *(row[name] for name in GAIN_COLUMNS), test, row["s"]]
    forms = ["{:,.1f}", "{:.4f}", *["{:+.4f}"] * (len(GAIN_COLUMNS) + 1), "{:.1f}"]
    values = [math.nan if value is None else float(value) for value in values]
    k = math.nan if row["K"] is None else row["K"]
    eligible = row["eligible"].startswith("yes")
    return {
        "name": row["cell"],
        "k": TableCell(plain(k, "{:.0f}"), sort=_sort(k)),
        "cells": [
            TableCell(plain(value, form), value / best if i == 2 and best else 0.0, _sort(value))
            for i, (value, form) in enumerate(zip(values, forms, strict=True))
        ],
        "status": row["eligible"].removeprefix("yes").removeprefix(", "),
        "state": "failed" if not finished else "ok" if eligible else "ineligible",
        "run": row["run"],
        "winner": row["run"] == winner,
    }


def heatmap(subject: Subject, metric: str) -> DataTable:
    """Gains by feature set and timeframe (rows) and by covariance and states (columns).

    Each place shows the best of the cells that differ in other settings only.
    """
    found: dict[tuple[str, str], list[Run]] = {}
    for run in subject.cells:
        if metric in run.data.metrics and (place := _place(run)):
            found.setdefault(place, []).append(run)
    if not found:
        return DataTable([])
    columns = sorted({column for _, column in found}, key=_column_order)
    spaces = list(dict.fromkeys(space for space, _ in found))
    scale = max(abs(run.data.metrics[metric]) for runs in found.values() for run in runs) or 1.0
    winner = subject.main.data.tags.get(tags.WINNER)
    lines = [
        (
            space,
            [_heat(found.get((space, column), []), metric, scale, winner) for column in columns],
        )
        for space in spaces
    ]
    kinds = [column.split()[0] for column in columns]
    groups = [(kind, kinds.count(kind)) for kind in dict.fromkeys(kinds)]
    return DataTable([column.split()[1] for column in columns], lines, groups)


def _place(run: Run) -> tuple[str, str] | None:
    """Row and column of a cell; None if the run lacks the tags or params that decide them."""
    known, densities = run.data.tags, densities_of(run)
    n_states = run.data.metrics.get("n_states")
    if densities is None or n_states is None or not {tags.FEATURE_SET, tags.TIMEFRAME} <= {*known}:
        return None
    space = f"{known[tags.FEATURE_SET]} · {known[tags.TIMEFRAME]}"
    return space, f"{densities} {n_states:.0f}"


def _heat(runs: list[Run], metric: str, scale: float, winner: str | None) -> TableCell:
    if not runs:
        return TableCell("")
    best = max(runs, key=lambda run: run.data.metrics[metric])
    value = best.data.metrics[metric]
    more = f", best of {len(runs)} cells" if len(runs) > 1 else ""
    title = f"{called(best)}: {signed(value)} nats per bar{more}"
    text = re.sub(r"^(\D?)0", r"\1", signed(value, 3))
    mark = "winner" if winner in {run.info.run_id for run in runs} else ""
    mark = mark or ("ineligible" if tags.FAULTS in best.data.tags else "")
    return TableCell(text, value / scale, title=title, mark=mark)


def _column_order(column: str) -> tuple[int, int]:
    kind, states = column.split()
    return _DENSITIES.index(kind), int(states)


def failures(subject: Subject) -> list[tuple[str, list[Run]]]:
    """Unfinished cells by reason, the most frequent first."""
    by_reason: dict[str, list[Run]] = {}
    for run in subject.unfinished:
        reason = run.data.tags.get(tags.STATUS_REASON, "its process ended")
        by_reason.setdefault(f"{run.info.status}: {reason}", []).append(run)
    return sorted(by_reason.items(), key=lambda item: -len(item[1]))


def missing(subject: Subject) -> int:
    """Number of cells without a run."""
    return max(int(subject.main.data.tags.get(tags.N_CELLS, 0)) - len(subject.cells), 0)


def _sort(value: float) -> float | str:
    return float(value) if np.isfinite(value) else ""
