"""Tables of a report as rows of text and numbers, for its page to lay out."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Run

from hmm_exp.experiment.figures.style import number, percent, regime_colors
from hmm_exp.experiment.residuals import ResidualLimits
from hmm_exp.report.collect import Model, Subject
from hmm_exp.report.words import signed
from hmm_exp.tracking import tags

_EFFECTS = {
    "ks": "distance from normal (KS)",
    "tail_share": "share beyond 3 σ",
    "memory": "memory",
    "square_memory": "memory of squares",
}
_COVARIANCES = ("spherical", "diag", "tied", "full")


@dataclass(frozen=True)
class Cell:
    """One place of a table: what it shows, how strongly it is shaded (-1 to 1), what it sorts by."""

    text: str
    weight: float = 0.0
    sort: float | str = ""
    title: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Regime:
    """A regime for the head of the page."""

    label: str
    color: str
    share: float
    dwell: str
    volatility: str


@dataclass(frozen=True)
class Grid:
    """A table with names for its rows and for one or two lines of columns."""

    columns: list[str]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)
    groups: list[tuple[str, int]] = field(default_factory=list)


def regimes(model: Model) -> list[Regime]:
    """Regimes with their share of the bars, mean visit, and volatility of the bar after."""
    dwell = _dwell(model)
    share = model.tables["occupancy"]["share"]
    after = model.tables.get("next_bar_test", model.tables.get("next_bar_train"))
    volatility = {} if after is None or "volatility" not in after else after["volatility"].to_dict()
    colors = regime_colors(len(model.labels))
    return [
        Regime(
            label,
            color,
            float(share.get(label, 0.0)),
            _plain(dwell["expected_bars"].get(label, math.nan), "{:,.0f} bars"),
            _plain(volatility.get(label, math.nan), "{:.2%}").replace("%", " %"),
        )
        for label, color in zip(model.labels, colors, strict=True)
    ]


def transitions(model: Model) -> Grid:
    """Probability of every regime one row later, in percent."""
    matrix = model.tables["transition_matrix"].loc[model.labels, model.labels]
    rows = [
        (
            str(label),
            [Cell(_chance(p), float(p), title=f"{p:.6f}") for p in matrix.loc[label].fillna(0.0)],
        )
        for label in matrix.index
    ]
    return Grid(model.labels, rows)


def dwells(model: Model) -> Grid:
    """How long visits last, expected and seen."""
    table = _dwell(model)
    stationary = model.tables["stationary"]["share"].reindex(model.labels)
    longest = table[["expected_bars", "observed_bars"]].max().max()
    rows = []
    for label, row in table.iterrows():
        bars = [
            Cell(_plain(row[name], "{:,.1f}"), _share(row[name], longest))
            for name in ("expected_bars", "observed_bars")
        ]
        rest = [
            Cell(_plain(row["visits"], "{:,.0f}")),
            Cell(_percent(row["one_bar_share"])),
            Cell(_percent(stationary[label])),
        ]
        rows.append((str(label), [*bars, *rest]))
    names = ["expected, bars", "seen, bars", "visits", "of one bar", "share in the long run"]
    return Grid(names, rows)


def moments(model: Model) -> Grid:
    """Mean and deviation of every feature in every regime, raw units; features are the rows."""
    means = model.tables["state_means"].reindex(model.labels)
    deviations = model.tables["state_deviations"].reindex(model.labels)
    rows = []
    for feature in means:
        cells = [
            Cell(_compact(means.loc[label, feature]), title=f"{means.loc[label, feature]:.6g}",
                 mark=f"± {_compact(deviations.loc[label, feature])}")
            for label in model.labels
        ]
        rows.append((str(feature), cells))
    return Grid(model.labels, rows)


def next_bars(model: Model) -> Grid:
    """What the bar after each regime did, on every part that was measured."""
    parts = [name for name in ("train", "val", "test") if f"next_bar_{name}" in model.tables]
    shown = {
        "mean": ("mean, bp", 1e4, "{:+.2f}"),
        "volatility": ("volatility, bp", 1e4, "{:.1f}"),
        "hit_rate": ("up, %", 100, "{:.1f}"),
        "sharpe_annual": ("Sharpe, a year", 1, "{:+.2f}"),
    }
    rows = []
    for label in model.labels:
        cells = []
        for part in parts:
            table = model.tables[f"next_bar_{part}"]
            row = table.loc[label] if label in table.index else pd.Series(dtype=float)
            cells.append(Cell(_plain(row.get("n", math.nan), "{:,.0f}")))
            for name, (_, scale, form) in shown.items():
                value = row.get(name, math.nan) * scale
                error = row.get(f"{name}_error", math.nan) * scale
                sure = math.isfinite(error) and abs(value) > 2 * error and "+" in form
                mark = "" if not math.isfinite(error) else f"± {error:.{_digits(form)}f}"
                cells.append(Cell(_plain(value, form), 1.0 if sure else 0.0, mark=mark))
        rows.append((label, cells))
    columns = ["bars", *(title for title, *_ in shown.values())] * len(parts)
    return Grid(columns, rows, [(part, len(shown) + 1) for part in parts])


def effects(model: Model) -> Grid:
    """Effect sizes of the forecast residuals, those beyond their limit marked."""
    limits = ResidualLimits()
    names = _series(model)
    rows = []
    for name in names:
        cells = []
        for effect in _EFFECTS:
            value, limit = model.metrics[f"residual_{effect}_{name}"], getattr(limits, effect)
            text = percent(value) if effect == "tail_share" else f"{value:.3f}"
            cells.append(Cell(text, 1.0 if value > limit else 0.0))
        rows.append((name, cells))
    columns = [
        f"{title}, limit {percent(x) if key == 'tail_share' else f'{x:g}'}"
        for key, title in _EFFECTS.items()
        for x in [getattr(limits, key)]
    ]
    return Grid(columns, rows)


def worst_series(model: Model, most: int = 6) -> list[str]:
    """Series of residuals to be drawn: those with the largest effects, the next return last."""
    names = _series(model)
    kept = names[-1:]
    others = sorted(names[:-1], key=lambda name: -model.metrics[f"residual_ks_{name}"])
    return [name for name in names if name in others[: most - 1] or name in kept]


def _series(model: Model) -> list[str]:
    prefix = "residual_ks_"
    names = [name.removeprefix(prefix) for name in model.metrics if name.startswith(prefix)]
    return sorted(names, key=lambda name: (name == "next_return", name))


def board(subject: Subject) -> list[dict[str, Any]]:
    """Rows of the leaderboard; the first columns are those that the filter reads."""
    runs = {run.info.run_id: run for run in subject.cells}
    table = _spaces_in_order(subject, runs)
    best = max([abs(gain) for gain in subject.table["gain_t"].dropna()] or [1.0])
    winner = subject.main.data.tags.get(tags.WINNER)
    return [_board_row(row, runs[row["run"]], winner, best) for _, row in table.iterrows()]


def _spaces_in_order(subject: Subject, runs: dict[str, Run]) -> pd.DataFrame:
    """The leaderboard with the winner's space first, then those of the highest gains."""
    winner = subject.main.data.tags.get(tags.WINNER)
    space = subject.table["run"].map(lambda run: runs[run].data.tags.get(tags.OBSERVATION_SPACE))
    finished = subject.table["run"].map(lambda run: runs[run].info.status == "FINISHED")
    best = subject.table["gain_t"].astype(float).where(finished).groupby(space).transform("max")
    mine = subject.table["run"].eq(winner).groupby(space).transform("any")
    order = pd.DataFrame({"f": ~finished, "other": ~mine.fillna(False).astype(bool), "best": -best})
    return subject.table.loc[order.sort_values(["f", "other", "best"], kind="stable").index]


def _board_row(row: pd.Series, run: Run, winner: str | None, best: float) -> dict[str, Any]:
    finished = run.info.status == "FINISHED"
    test = run.data.metrics.get("return_gain_test", math.nan)
    values = [row["bic"], row["val_ll/bar"], row["gain_t"], row["gain_ewma"], test, row["s"]]
    forms = ["{:,.1f}", "{:.4f}", "{:+.4f}", "{:+.4f}", "{:+.4f}", "{:.1f}"]
    values = [math.nan if value is None else float(value) for value in values]
    k = math.nan if row["K"] is None else row["K"]
    return {
        "name": row["cell"],
        "k": Cell(_plain(k, "{:.0f}"), sort=_sort(k)),
        "cells": [
            Cell(_plain(value, form), value / best if i == 2 and best else 0.0, _sort(value))
            for i, (value, form) in enumerate(zip(values, forms, strict=True))
        ],
        "status": row["eligible"] if row["eligible"] != "yes" else "",
        "state": "failed" if not finished else "ineligible" if row["eligible"] != "yes" else "ok",
        "run": row["run"],
        "winner": row["run"] == winner,
    }


def heatmap(subject: Subject, metric: str) -> Grid:
    """A gain by feature set and timeframe, over covariance and number of states.

    Cells that differ in other settings share a place: it shows the best of them.
    """
    found: dict[tuple[str, str], list[Run]] = {}
    for run in subject.cells:
        if metric in run.data.metrics:
            space = f"{run.data.tags[tags.FEATURE_SET]} · {run.data.tags[tags.TIMEFRAME]}"
            column = f"{run.data.params['covariance.type']} {run.data.metrics['n_states']:.0f}"
            found.setdefault((space, column), []).append(run)
    if not found:
        return Grid([])
    columns = sorted({column for _, column in found}, key=_column_order)
    spaces = list(dict.fromkeys(space for space, _ in found))
    scale = max(abs(run.data.metrics[metric]) for runs in found.values() for run in runs) or 1.0
    winner = subject.main.data.tags.get(tags.WINNER)
    rows = [
        (space, [_heat(found.get((space, column), []), metric, scale, winner) for column in columns])
        for space in spaces
    ]
    kinds = [column.split()[0] for column in columns]
    groups = [(kind, kinds.count(kind)) for kind in dict.fromkeys(kinds)]
    return Grid([column.split()[1] for column in columns], rows, groups)


def _heat(runs: list[Run], metric: str, scale: float, winner: str | None) -> Cell:
    if not runs:
        return Cell("")
    best = max(runs, key=lambda run: run.data.metrics[metric])
    value = best.data.metrics[metric]
    more = f", the best of {len(runs)}" if len(runs) > 1 else ""
    title = f"{best.data.tags[tags.CELL]}: {signed(value)} nats per bar{more}"
    text = f"{value:+.3f}".replace("-", "−").replace("0.", ".")
    mark = "winner" if winner in {run.info.run_id for run in runs} else ""
    mark = mark or ("ineligible" if tags.FAULTS in best.data.tags else "")
    return Cell(text, value / scale, title=title, mark=mark)


def _column_order(column: str) -> tuple[int, int]:
    kind, states = column.split()
    return _COVARIANCES.index(kind), int(states)


def failures(subject: Subject) -> list[tuple[str, list[Run]]]:
    """Cells without a result by reason, the most frequent first."""
    by_reason: dict[str, list[Run]] = {}
    for run in subject.unfinished:
        reason = run.data.tags.get(tags.STATUS_REASON, "its process is gone")
        by_reason.setdefault(f"{run.info.status}: {reason}", []).append(run)
    return sorted(by_reason.items(), key=lambda item: -len(item[1]))


def missing(subject: Subject) -> int:
    """Cells of the sweep that left no run."""
    return max(int(subject.main.data.tags.get(tags.N_CELLS, 0)) - len(subject.cells), 0)


def facts(model: Model) -> Iterator[tuple[str, str]]:
    """What the data was, for the foot of the page."""
    data = model.data
    if "first" in data:
        yield "bars", f"{data['rows_used']:,} of {data['step']}, {data['first']} to {data['last']}"
    if "rows_by_split" in data:
        rows = (f"{name} {count:,}" for name, count in data["rows_by_split"].items())
        yield "rows", ", ".join(rows)
    for name in ("normalised", "dropped"):
        if data.get(name):
            yield name, json.dumps(data[name])
    yield "data digest", str(data.get("digest", ""))


def _dwell(model: Model) -> pd.DataFrame:
    """The dwell table with all of its columns: the only state there is has no expected end."""
    columns = ["expected_bars", "observed_bars", "visits", "one_bar_share"]
    return model.tables["dwell"].reindex(index=model.labels, columns=columns)


def _share(value: float, of: float) -> float:
    return float(value / of) if np.isfinite(value) and of > 0 else 0.0


def _plain(value: float, form: str) -> str:
    return form.format(value).replace("-", "−") if np.isfinite(value) else ""


def _percent(share: float) -> str:
    return percent(share) if np.isfinite(share) else ""


def _chance(p: float) -> str:
    """A probability in percent: digits where they tell something."""
    value = 100 * p
    if value == 0:
        return "0"
    return "<.01" if value < 0.01 else f"{value:.2f}".lstrip("0") if value < 1 else f"{value:.1f}"


def _compact(value: float) -> str:
    """Three significant digits."""
    return "" if not np.isfinite(value) else number(float(f"{value:.3g}"))


def _digits(form: str) -> int:
    return int(form.split(".")[1][0])


def _sort(value: float) -> float | str:
    return float(value) if np.isfinite(value) else ""
