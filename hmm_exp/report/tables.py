"""Tables of a report, as text with shading weights."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.figures.palette import regime_colors
from hmm_exp.figures.scales import number
from hmm_exp.judge.residuals import ResidualLimits
from hmm_exp.judge.return_forecasts import GAINS, SCORES
from hmm_exp.judge.strategy_words import differences_shown, measures_shown
from hmm_exp.judge.unscored import FORECASTS
from hmm_exp.judge.wording import percent, without_sign_of_zero
from hmm_exp.market.iso import iso
from hmm_exp.report.collect import RecordedRun

_EFFECTS = {
    "ks": "distance from normal (KS)",
    "tail_share": "share beyond 3 σ",
    "memory": "autocorrelation",
    "square_memory": "autocorrelation of squares",
}
_ESTIMATED = {
    "transition_matrix": "{row} → {column}",
    "state_means": "{row}: mean of {column}",
    "state_deviations": "{row}: deviation of {column}",
    "state_scales": "{row}: scale of {column}",
    "tails": "{row}: {column}",
}


@dataclass(frozen=True)
class TableCell:
    """A table cell: its text, shading (-1 to 1) and sort key."""

    text: str
    weight: float = 0.0
    sort: float | str = ""
    title: str = ""
    mark: str = ""


@dataclass(frozen=True)
class RegimeCard:
    """A regime in the summary at the top of the page."""

    label: str
    color: str
    share: float
    dwell: str
    volatility: str


@dataclass(frozen=True)
class DataTable:
    """A table with named rows, columns and column groups."""

    columns: list[str]
    rows: list[tuple[str, list[TableCell]]] = field(default_factory=list)
    groups: list[tuple[str, int]] = field(default_factory=list)


def regimes(model: RecordedRun) -> list[RegimeCard]:
    """Share of bars, expected dwell time and next-bar volatility of every regime."""
    dwell = _dwell(model)
    share = model.tables["occupancy"]["share"]
    volatility = _next_volatility(model)
    colors = regime_colors(len(model.labels))
    return [
        RegimeCard(
            label,
            color,
            float(share.get(label, 0.0)),
            plain(dwell["expected_bars"].get(label, math.nan), "{:,.0f} bars"),
            plain(volatility.get(label, math.nan), "{:.2%}").replace("%", " %"),
        )
        for label, color in zip(model.labels, colors, strict=True)
    ]


def _next_volatility(model: RecordedRun) -> dict[str, float]:
    """Volatility of the bar after every regime, from test if all regimes occur there."""
    for part in ("test", "train", "val"):
        table = model.tables.get(f"next_bar_{part}", pd.DataFrame())
        if "volatility" in table and len(found := table["volatility"].dropna()) == len(
            model.labels
        ):
            return {str(label): float(value) for label, value in found.items()}
    return {}


def baselines(model: RecordedRun) -> DataTable:
    """Gain over every baseline; with a table `added_gain`, what regimes add to each forecast."""
    columns, added = ["validation", "test", "lower bound, test"], model.tables.get("added_gain")
    if added is not None:
        added = added.reindex(index=[*SCORES], columns=["val", "test", "exponent", "strongest"])
        columns += ["added, validation", "added, test", "exponent b"]
    rows = []
    for name, gain in zip(SCORES[1:], GAINS, strict=True):
        figures = [f"{gain}_val", f"{gain}_test", f"{gain}_test_bound"]
        values = [model.metrics.get(figure, math.nan) for figure in figures]
        forms = ["{:+.4f}"] * 3
        if added is not None:
            values += [*added.loc[name, ["val", "test", "exponent"]]]
            forms += ["{:+.4f}", "{:+.4f}", "{:.3g}"]
        if np.isfinite(values).any():
            cells = [TableCell(plain(v, form)) for v, form in zip(values, forms, strict=True)]
            if added is not None and added.loc[name, "strongest"] == 1.0:
                cells[-1] = replace(cells[-1], mark="strongest on train")
            rows.append((FORECASTS[name].removeprefix("the "), cells))
    return DataTable(columns, rows)


def transitions(model: RecordedRun) -> DataTable:
    """Transition matrix, percent."""
    matrix = model.tables["transition_matrix"].loc[model.labels, model.labels]
    rows = [
        (
            str(label),
            [
                TableCell(_chance(p), float(p), title=f"{p:.6f}")
                for p in matrix.loc[label].fillna(0.0)
            ],
        )
        for label in matrix.index
    ]
    return DataTable(model.labels, rows)


def dwells(model: RecordedRun) -> DataTable:
    """Expected and observed dwell times."""
    table = _dwell(model)
    stationary = _values(model, "stationary")
    longest = float(table[["expected_bars", "observed_bars"]].max().max())
    rows = []
    for label, row in table.to_dict("index").items():
        bars = [
            TableCell(plain(row[name], "{:,.1f}"), _share(row[name], longest))
            for name in ("expected_bars", "observed_bars")
        ]
        rest = [
            TableCell(plain(row["visits"], "{:,.0f}")),
            TableCell(_percent(row["one_bar_share"])),
            TableCell(_percent(stationary[str(label)]["share"])),
        ]
        rows.append((str(label), [*bars, *rest]))
    names = ["expected, bars", "observed, bars", "visits", "one-bar visits", "long-run share"]
    return DataTable(names, rows)


def moments(model: RecordedRun) -> DataTable:
    """Mean and standard deviation of every feature (row) in every regime, raw units."""
    means, deviations = _values(model, "state_means"), _values(model, "state_deviations")
    rows = []
    for feature in model.tables["state_means"].columns:
        cells = [
            TableCell(
                _compact(means[label][feature]),
                title=f"{means[label][feature]:.6g}",
                mark=f"± {_compact(deviations[label][feature])}",
            )
            for label in model.labels
        ]
        rows.append((str(feature), cells))
    return DataTable(model.labels, rows)


def estimates(model: RecordedRun) -> DataTable:
    """Transition probabilities, means and deviations with standard errors and intervals.

    Empty where the run has none: a degenerate fit, or an earlier version.
    """
    rows = [
        (name.format(row=row, column=column), cells)
        for table, name in _ESTIMATED.items()
        for row, column, cells in _with_errors(model, table)
    ]
    return _without_empty(["estimate", "std err", "robust std err", "from", "to"], rows)


def _without_empty(columns: list[str], rows: list[tuple[str, list[TableCell]]]) -> DataTable:
    """A table without the columns that have no text in any row."""
    kept = [i for i in range(len(columns)) if any(cells[i].text for _, cells in rows)]
    return DataTable(
        [columns[i] for i in kept], [(name, [cells[i] for i in kept]) for name, cells in rows]
    )


def _with_errors(model: RecordedRun, name: str) -> Iterator[tuple[str, str, list[TableCell]]]:
    """Row, column and cells of every parameter of a table that has an error."""
    values = model.tables.get(name, pd.DataFrame())
    ends = [
        model.tables.get(f"{name}_{end}", pd.DataFrame()).reindex_like(values)
        for end in ("se", "robust_se", "lower", "upper")
    ]
    for row, column in product(values.index, values.columns):
        numbers = [float(table.loc[row, column]) for table in (values, *ends)]
        if np.isfinite(numbers[1:]).any():
            cells = [TableCell(_four_digits(number)) for number in numbers]
            yield str(row), str(column), cells


def next_bars(model: RecordedRun) -> DataTable:
    """Statistics of the bar after each regime, by part of the data."""
    parts = [name for name in ("train", "val", "test") if f"next_bar_{name}" in model.tables]
    shown = {
        "mean": ("mean, bp", 1e4, "{:+.2f}"),
        "volatility": ("volatility, bp", 1e4, "{:.1f}"),
        "hit_rate": ("up, %", 100, "{:.1f}"),
        "sharpe_annual": ("Sharpe, annual", 1, "{:+.2f}"),
    }
    rows = []
    for label in model.labels:
        cells = []
        for part in parts:
            row = _values(model, f"next_bar_{part}").get(label, {})
            cells.append(TableCell(plain(row.get("n", math.nan), "{:,.0f}")))
            for name, (_, scale, form) in shown.items():
                value = row.get(name, math.nan) * scale
                error = row.get(f"{name}_error", math.nan) * scale
                sure = math.isfinite(error) and abs(value) > 2 * error and "+" in form
                mark = "" if not math.isfinite(error) else f"± {error:.{_digits(form)}f}"
                cells.append(TableCell(plain(value, form), 1.0 if sure else 0.0, mark=mark))
        rows.append((label, cells))
    columns = ["bars", *(title for title, *_ in shown.values())] * len(parts)
    return DataTable(columns, rows, [(part, len(shown) + 1) for part in parts])


def strategies(model: RecordedRun) -> list[tuple[str, DataTable]]:
    """Title and table of the strategies' measures and of their differences from buy and hold."""
    if model.strategies is None:
        return []
    return [
        ("After costs, a year", _texts(measures_shown(model.strategies))),
        ("Differences from buy and hold", _texts(differences_shown(model.strategies))),
    ]


def _texts(shown: pd.DataFrame) -> DataTable:
    """A table of texts whose first column names the rows."""
    first, *columns = shown.columns
    rows = [
        (name, [TableCell(text.replace("-", "−")) for text in texts])
        for name, texts in zip(shown[first], shown[columns].to_numpy(), strict=True)
    ]
    return _without_empty(columns, rows)


def effects(model: RecordedRun) -> DataTable:
    """Effect sizes of the forecast residuals, marked beyond their limit."""
    limits = ResidualLimits()
    names = _series(model)
    rows = []
    for name in names:
        cells = []
        for effect in _EFFECTS:
            value, limit = model.metrics[f"residual_{effect}_{name}"], getattr(limits, effect)
            text = percent(value) if effect == "tail_share" else f"{value:.3f}"
            cells.append(TableCell(text, 1.0 if value > limit else 0.0))
        rows.append((name, cells))
    limit = {key: f"{getattr(limits, key):g}" for key in _EFFECTS}
    limit["tail_share"] = percent(limits.tail_share).replace(" ", "\xa0")
    columns = [f"{title}, limit\xa0{limit[key]}" for key, title in _EFFECTS.items()]
    return DataTable(columns, rows)


def worst_series(model: RecordedRun, most: int = 6) -> list[str]:
    """Residual series to draw: those with the largest effects, the next return last."""
    names = _series(model)
    kept = names[-1:]
    others = sorted(names[:-1], key=lambda name: -model.metrics[f"residual_ks_{name}"])
    return [name for name in names if name in others[: most - 1] or name in kept]


def _series(model: RecordedRun) -> list[str]:
    prefix = "residual_ks_"
    names = [name.removeprefix(prefix) for name in model.metrics if name.startswith(prefix)]
    return sorted(names, key=lambda name: (name == "next_return", name))


def facts(model: RecordedRun) -> Iterator[tuple[str, str]]:
    """Facts about the data, for the foot of the page; times are closes of bars."""
    data = model.data
    yield from (("read", line) for line in data.get("read", []))
    if "first" in data:
        first, last = (_close(data, data[name]) for name in ("first", "last"))
        yield "bars", f"{data['rows_used']:,} of {data['step']}, closed {first} to {last}"
    if "rows_by_split" in data:
        rows = (f"{name} {count:,}" for name, count in data["rows_by_split"].items())
        yield "rows", ", ".join(rows)
    if data.get("normalised"):
        yield "normalised", "; ".join(data["normalised"])
    if data.get("dropped"):
        rows = (f"{count:,} with {reason}" for reason, count in data["dropped"].items())
        yield "dropped rows", "; ".join(rows)
    yield "data digest", str(data.get("digest", ""))


def _close(data: dict[str, Any], stamp: str) -> str:
    """Close of the bar with this recorded stamp, which is its open or its close."""
    step = data["step"].replace("H", "h") if data.get("bar_stamp") == "open" else 0
    return iso(pd.to_datetime(stamp, utc=True) + pd.Timedelta(step))


def _values(model: RecordedRun, name: str) -> dict[str, dict[str, float]]:
    """A table by row and column."""
    table = model.tables[name]
    values = table.to_numpy(np.float64).tolist()
    names = [str(column) for column in table.columns]
    return {
        str(row): dict(zip(names, line, strict=True))
        for row, line in zip(table.index, values, strict=True)
    }


def _dwell(model: RecordedRun) -> pd.DataFrame:
    """The dwell table with all columns, which a one-state model lacks in part."""
    columns = ["expected_bars", "observed_bars", "visits", "one_bar_share"]
    return model.tables["dwell"].reindex(index=model.labels, columns=columns)


def _share(value: float, of: float) -> float:
    return float(value / of) if np.isfinite(value) and of > 0 else 0.0


def plain(value: float, form: str) -> str:
    """A formatted number; empty if it is not finite."""
    if not np.isfinite(value):
        return ""
    return without_sign_of_zero(form.format(value)).replace("-", "−")


def _percent(share: float) -> str:
    return percent(share) if np.isfinite(share) else ""


def _chance(p: float) -> str:
    """A probability in percent, with more digits for small ones."""
    value = 100 * p
    if value == 0:
        return "0"
    return "<.01" if value < 0.01 else f"{value:.2f}".lstrip("0") if value < 1 else f"{value:.1f}"


def _compact(value: float) -> str:
    """Three significant digits."""
    return "" if not np.isfinite(value) else number(float(f"{value:.3g}"))


def _four_digits(value: float) -> str:
    """Four significant digits; empty if it is not finite."""
    return plain(value, "{:.4g}")


def _digits(form: str) -> int:
    return int(form.split(".")[1][0])
