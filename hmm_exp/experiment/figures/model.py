"""Figures of one fitted model: transitions, state means, dwell times, what the next bar did."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hmm_exp.experiment.figures.cells import (
    Cell,
    add_sheet,
    cut,
    draw_frames,
    draw_lines,
    draw_title,
    draw_xticks,
    draw_yticks,
    write,
)
from hmm_exp.experiment.figures.heat import draw_heat
from hmm_exp.experiment.figures.style import (
    FAINT,
    GREY,
    INK,
    MARGIN,
    WIDTH,
    add_axes,
    add_key,
    capitalize,
    join,
    new_figure,
    padded,
    regime_colors,
    round_ticks,
)

_LEAST_SHOWN = 5e-5  # transitions below are left blank
_BASIS_POINT = 1e-4
_ERRORS_95 = 1.96


def transition_matrix(
    transmat: np.ndarray, labels: Sequence[str], *, bar: str = "", subject: str = ""
) -> Figure:
    """Transition probabilities as a heat map on a log shade, expected dwell times beside it.

    Parameters
    ----------
    transmat
        Row k: from state k, shape (K, K).
    labels
        Names of the states, calm first.
    bar
        Name of one bar, such as "1H", for the unit of the dwell times.
    subject
        What the data is, for the line under the title.
    """
    n_states = len(labels)
    dwell = expected_dwell(transmat)
    figure = new_figure(
        _dwell_title(labels, dwell),
        join("Probability of the next state (row: from, column: to); log shade", subject),
        height=360 if n_states <= 5 else 440,
    )
    matrix = add_axes(figure, left=110, right=440, top=74, bottom=52, xlabel="to state")
    with np.errstate(divide="ignore"):
        shade = np.clip(1 + np.log10(transmat) / 4, 0, 1)
    names = [[_probability(p) for p in row] for row in transmat]
    draw_heat(matrix, transmat, names, shade)
    matrix.set_xticks(range(n_states), labels)
    matrix.set_yticks(range(n_states), labels)
    matrix.set_ylabel("from state")
    beside = add_axes(figure, left=600, right=100, top=74, bottom=52)
    _draw_dwell_bars(beside, dwell, n_states, bar)
    return figure


def expected_dwell(transmat: np.ndarray) -> np.ndarray:
    """Mean length of a visit in bars, 1 / (1 - a_kk), infinite for an absorbing state."""
    with np.errstate(divide="ignore"):
        return 1.0 / np.maximum(1.0 - np.diag(transmat), 0.0)


def _draw_dwell_bars(axes: Axes, dwell: np.ndarray, n_states: int, bar: str) -> None:
    """One bar per state in line with its row of the matrix."""
    finite = np.isfinite(dwell)
    longest = dwell[finite].max() if finite.any() else 1.0
    axes.barh(range(n_states), np.where(finite, dwell, longest), 0.5, color=regime_colors(n_states))
    for k, bars in enumerate(dwell):
        text = f"{bars:,.3g}" if bars < 1000 else f"{bars:,.0f}"
        at = min(bars, longest) + 0.02 * longest
        axes.text(at, k, text if finite[k] else "for ever", va="center", fontsize=9, color=INK)
    axes.set_xlim(0, longest)
    axes.set_ylim(n_states - 0.5, -0.5)
    axes.set_axis_off()
    unit = f"bars of {bar}" if bar else "bars"
    axes.annotate(
        f"expected dwell ({unit})",
        (0, 0),
        (0, -9),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        fontsize=9,
        color=GREY,
    )


def _dwell_title(labels: Sequence[str], dwell: np.ndarray) -> str:
    if len(labels) == 1:
        return "One state: nothing to switch to"
    short, long = int(dwell.argmin()), int(dwell.argmax())
    longest = f"{dwell[long]:,.0f} bars" if np.isfinite(dwell[long]) else "for ever"
    return f"{labels[long]} lasts longest, {longest}; {labels[short]} only {dwell[short]:,.1f} bars"


def _probability(p: float) -> str:
    """Three decimals, four near 0 and 1; empty when it would be zero."""
    if p < _LEAST_SHOWN:
        return ""
    if p > 1 - _LEAST_SHOWN:
        return "1"
    return f"{p:.4f}"[1:] if p < 0.01 or p > 0.995 else f"{p:.3f}"[1:]


def state_means(
    means: np.ndarray,
    sds: np.ndarray,
    features: Sequence[str],
    labels: Sequence[str],
    *,
    unit: str = "z",
    subject: str = "",
) -> Figure:
    """Mean and one standard deviation of every feature in every state, one cell per feature.

    Parameters
    ----------
    means, sds
        Per state and feature, shape (K, D).
    features, labels
        Names of the D features and of the K states, calm first.
    unit
        "z": multiples of the train spread, all cells share one scale. "raw": each cell its own.
    subject
        What the data is, for the line under the title.
    """
    columns = len(features) if len(features) <= 4 else (3 if len(features) in (6, 9) else 5)
    rows = -(-len(features) // columns)
    height = max(110 * rows, 240) + 100
    units = "in standard deviations of train" if unit == "z" else "in the feature's own unit"
    figure = new_figure(
        _means_title(means, sds, features, labels),
        join(f"Mean ± 1 standard deviation per state, {units}", subject),
        height=height,
    )
    box = (MARGIN - 8, 14, WIDTH, height - 84)
    cells = cut(len(features), columns, box, (54 if unit == "raw" else 24, 34))
    low, high = (means - sds), (means + sds)
    sheet = add_sheet(figure)
    shared = padded(low.min(), high.max())
    cells = [
        cell.scaled((-0.6, len(labels) - 0.4), shared if unit == "z" else padded(*ends))
        for cell, *ends in zip(cells, low.min(axis=0), high.max(axis=0), strict=True)
    ]
    draw_frames(sheet, cells)
    _draw_means(sheet, cells, means, sds)
    for i, (cell, name) in enumerate(zip(cells, features, strict=True)):
        draw_title(sheet, cell, name)
        if unit == "raw" or i % columns == 0:
            draw_yticks(sheet, cell, round_ticks(*cell.ylim, 3))
    add_key(figure, labels, regime_colors(len(labels)))
    return figure


def _draw_means(sheet: Axes, cells: Sequence[Cell], means: np.ndarray, sds: np.ndarray) -> None:
    """All whiskers, all dots and all zero lines: three artists at any number of cells."""
    n_states, n_features = means.shape
    colors = regime_colors(n_states) * n_features
    at = np.arange(n_states)
    dots = [cell.at(at, means[:, d]) for d, cell in enumerate(cells)]
    whiskers = [
        cell.at([k, k], [means[k, d] - sds[k, d], means[k, d] + sds[k, d]])
        for d, cell in enumerate(cells)
        for k in at
    ]
    zeros = [c.at(c.xlim, [0, 0]) for c in cells if c.ylim[0] < 0 < c.ylim[1]]
    draw_lines(sheet, zeros, FAINT, linewidths=0.8, linestyles="dashed", zorder=0)
    draw_lines(sheet, whiskers, colors, linewidths=2)
    sheet.scatter(*np.hstack(dots), s=34, c=list(colors), linewidths=0, zorder=3)


def _means_title(means, sds, features, labels) -> str:
    """The feature whose state means lie farthest apart, against the spread inside the states."""
    if len(labels) == 1:
        return f"One state over {len(features)} features"
    between, within = means.max(axis=0) - means.min(axis=0), sds.mean(axis=0)
    apart = between / np.maximum(within, np.finfo(float).tiny)
    d = int(apart.argmax())
    return f"{features[d]} sets the states apart most: means {apart[d]:.1f} deviations apart"


def dwell_times(
    states: np.ndarray,
    transmat: np.ndarray,
    labels: Sequence[str],
    *,
    steps: np.ndarray | None = None,
    subject: str = "",
    kind: str = "filtered",
) -> Figure:
    """How long visits last against the geometric law of the transition matrix, one cell a state.

    P(visit of at least n bars) is a_kk^(n-1) under the model: a straight line on the log axis.

    Parameters
    ----------
    states
        State of every row, shape (T,); negative where none is known.
    transmat
        Shape (K, K).
    labels
        Names of the states, calm first.
    steps
        Chain steps from the previous row, shape (T,); a visit ends where they are not 1.
    subject
        What the data is, for the line under the title.
    kind
        How the states were found: filtered, smoothed or viterbi.
    """
    n_states = len(labels)
    runs = run_lengths(states, n_states, steps)
    dwell = expected_dwell(transmat)
    columns = n_states if n_states <= 4 else 4
    height = 420 if n_states <= 4 else 520
    figure = new_figure(
        _runs_title(labels, runs, dwell),
        join(f"Share of {kind} visits that last at least n bars: dots, data; line, law", subject),
        height=height,
    )
    least = 0.5 / max(*(len(r) for r in runs), 10, 10)
    cells = cut(n_states, columns, (MARGIN, 34, WIDTH, height - 62), (26, 62))
    sheet = add_sheet(figure)
    decades = np.arange(0, int(np.log10(least)) - 1, -1 if least > 1e-4 else -2)
    decades = decades[decades >= np.log10(least)]
    for k, cell in enumerate(cells):
        longest = max(runs[k].max(initial=1), min(dwell[k], 1e6), 4)
        cells[k] = cell = cell.scaled((1, float(longest)), (np.log10(least), 0.0))
        _draw_survival(sheet, cell, runs[k], transmat[k, k], regime_colors(n_states)[k])
        draw_title(sheet, cell, f"{labels[k]}: mean {_bars(runs[k])}, law {dwell[k]:,.3g}")
        draw_xticks(sheet, cell, [1, *round_ticks(longest / 3, longest, 2)[-2:]])
        if k % columns == 0:
            draw_yticks(sheet, cell, decades, [f"{10.0**d:g}" for d in decades])
    draw_frames(sheet, cells)
    write(sheet, WIDTH / 2, 14, "length of visit n (bars)", ha="center", va="top", fontsize=9)
    return figure


def _bars(runs: np.ndarray) -> str:
    return f"{runs.mean():,.3g}" if len(runs) else "none seen"


def _draw_survival(sheet: Axes, cell: Cell, runs: np.ndarray, stay: float, color: str) -> None:
    """The straight line of the law over the dots of the data."""
    lengths, share = survival(runs)
    sheet.plot(*cell.at(lengths, np.log10(share)), "o", color=color, markersize=4, mew=0)
    if stay > 0:
        slope = np.log10(min(stay, 1.0))
        end = min(cell.xlim[1], 1 + cell.ylim[0] / slope) if slope < 0 else cell.xlim[1]
        sheet.plot(*cell.at([1, end], [0, slope * (end - 1)]), color=INK, linewidth=1)


def survival(runs: np.ndarray, most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths that occur (at most about `most`), and the share of runs at least as long."""
    lengths, counts = np.unique(runs, return_counts=True)
    share = counts[::-1].cumsum()[::-1] / max(len(runs), 1)
    every = max(-(-len(lengths) // most), 1)
    return lengths[::every], share[::every]


def run_lengths(
    states: np.ndarray, n_states: int, steps: np.ndarray | None = None
) -> list[np.ndarray]:
    """Lengths of the uninterrupted visits to every state, in rows."""
    new = np.ones(len(states), dtype=bool)
    new[1:] = states[1:] != states[:-1]
    if steps is not None:
        new |= steps != 1
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(states)))
    return [lengths[states[starts] == k] for k in range(n_states)]


def _runs_title(labels: Sequence[str], runs: Sequence[np.ndarray], dwell: np.ndarray) -> str:
    """The state whose visits differ most from the law."""
    seen = [k for k, r in enumerate(runs) if len(r) and np.isfinite(dwell[k])]
    if not seen:
        return "No visit ends: nothing to compare with the geometric law"
    k = max(seen, key=lambda k: abs(np.log(runs[k].mean() / dwell[k])))
    mean = runs[k].mean()
    if abs(np.log(mean / dwell[k])) < np.log(1.1):
        return "Visits last as long as the geometric law says, within 10 %"
    return f"{labels[k]} is off the law most: visits of {mean:,.1f} bars, {dwell[k]:,.1f} expected"


def next_bar_return(table: pd.DataFrame, labels: Sequence[str], *, subject: str = "") -> Figure:
    """What the bar after each state did: mean return with its 95 % interval, and volatility.

    Parameters
    ----------
    table
        One row per state and part of the data. Columns `state` (0..K-1), `split` ("train",
        "test", ...), `mean`, `mean_error` (its standard error) and `volatility`; log returns per
        bar. `volatility_error` is drawn where it is there.
    labels
        Names of the states, calm first.
    subject
        What the data is, for the line under the title.
    """
    splits = list(dict.fromkeys(table["split"]))
    figure = new_figure(
        _return_title(table, labels),
        join(f"Next bar by state, mean with 95 % interval: {_shades(splits)}", subject),
        height=420,
    )
    sheet = add_sheet(figure)
    cells = cut(2, 2, (MARGIN, 40, WIDTH + 16, 420 - 60), (50, 36))
    error = table["volatility_error"] if "volatility_error" in table else 0 * table["volatility"]
    panels = (
        ("mean", table["mean"], table["mean_error"]),
        ("volatility", table["volatility"], error),
    )
    for i, (name, values, errors) in enumerate(panels):
        middle, half = (
            values.to_numpy() / _BASIS_POINT,
            _ERRORS_95 * errors.to_numpy() / _BASIS_POINT,
        )
        ends = padded(min(0, np.nanmin(middle - half)), max(0, np.nanmax(middle + half)))
        low = ends[0] if name == "mean" else 0.0
        cell = cells[i] = cells[i].scaled((-0.5, len(labels) - 0.5), (low, ends[1]))
        _draw_intervals(sheet, cell, table, middle, half, labels)
        draw_title(sheet, cell, f"{name} of the log return per bar (basis points)")
        draw_yticks(sheet, cell, round_ticks(*cell.ylim, 5))
        draw_xticks(sheet, cell, range(len(labels)), labels)
    draw_frames(sheet, cells)
    return figure


def _draw_intervals(sheet: Axes, cell: Cell, table, middle, half, labels: Sequence[str]) -> None:
    """Dots side by side for the parts of the data: the first filled, the others hollow."""
    part = pd.factorize(table["split"])[0]
    x = table["state"].to_numpy() + 0.24 * (part - part.max() / 2)
    colors = np.array(regime_colors(len(labels)))[table["state"].to_numpy()]
    if cell.ylim[0] < 0:
        draw_lines(sheet, [cell.at(cell.xlim, [0, 0])], GREY, linewidths=0.8)
    bars = [cell.at([at] * 2, [m - h, m + h]) for at, m, h in zip(x, middle, half, strict=True)]
    draw_lines(sheet, bars, colors, linewidths=2)
    faces = np.where(part == 0, colors, "white")
    dots = cell.at(x, middle)
    sheet.scatter(*dots, s=52, c=list(faces), edgecolors=list(colors), linewidths=1.8, zorder=3)


def _shades(splits: Sequence[str]) -> str:
    return ", ".join(f"{'hollow' if i else 'filled'} {name}" for i, name in enumerate(splits))


def _return_title(table: pd.DataFrame, labels: Sequence[str]) -> str:
    """States whose mean is away from zero, with one sign, in every part of the data."""
    side = np.sign(table["mean"]).where(table["mean"].abs() > _ERRORS_95 * table["mean_error"], 0)
    sides = side.groupby(table["state"]).agg(["min", "max"])
    steady = sides.index[(sides["min"] == sides["max"]) & (sides["min"] != 0)]
    parts = " and ".join(dict.fromkeys(table["split"]))
    if not len(steady):
        return f"No state's mean next-bar return stands clear of zero on {parts}"
    names = ", ".join(f"{labels[k]} ({'+' if sides['min'][k] > 0 else '−'})" for k in steady)
    return capitalize(f"{names}: mean next-bar return clear of zero on {parts}")
