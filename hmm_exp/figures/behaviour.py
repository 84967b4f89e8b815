"""Figures of the states' behaviour: lengths of visits, and next-bar returns."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hmm_exp.figures import palette, scales, style
from hmm_exp.figures.model import bars_text
from hmm_exp.figures.panels import Sheet
from hmm_exp.figures.scales import Panel, cut
from hmm_exp.hmm.health import expected_dwell

_BASIS_POINT = 1e-4
_ERRORS_95 = 1.96


def dwell_times(
    states: np.ndarray,
    transmat: np.ndarray,
    labels: Sequence[str],
    *,
    steps: np.ndarray | None = None,
    subject: str = "",
    kind: str = "filtered",
) -> Figure:
    """Lengths of visits and the geometric law of the transition matrix, one panel per state.

    Under the model a visit lasts at least n bars with probability $a_{kk}^{n-1}$, a straight line
    on the log axis.

    Parameters
    ----------
    states
        State of every row, shape (T,); negative if unknown.
    transmat
        Shape (K, K).
    steps
        Chain steps from the previous row, shape (T,); a visit ends where they are not 1.
    """
    n_states = len(labels)
    runs = run_lengths(states, n_states, steps)
    dwell = expected_dwell(transmat)
    columns = n_states if n_states <= 4 else -(-n_states // 2)
    height = 400 if n_states <= 4 else 520
    figure = style.new_figure(
        _runs_title(labels, runs, dwell),
        f"Share of {kind} visits of at least n bars: dots seen, line expected",
        subject,
        height=height,
    )
    sheet = Sheet(figure)
    seen = [survival(lengths)[1].min() for lengths in runs if len(lengths)]
    least = float(np.log10(0.7 * min(seen, default=0.5)))
    panels = cut(n_states, columns, (style.MARGIN, 50, style.WIDTH, height - 56), (26, 48))
    for k, panel in enumerate(panels):
        panels[k] = panel = panel.scaled((1.0, _longest(runs[k], dwell[k])), (least, 0.0))
        _draw_survival(sheet, panel, runs[k], transmat[k, k], palette.regime_colors(n_states)[k])
        lengths = f"mean {_mean(runs[k])}, expected {bars_text(dwell[k])}"
        sheet.draw_title(panel, labels[k], lengths)
        ticks = scales.round_ticks(0, panel.xlim[1], 4)
        sheet.draw_xticks(panel, [1.0, *ticks[panel.x(ticks) > panel.left + 0.15 * panel.width]])
        if k % columns == 0:
            shares = scales.log_ticks(10**least, 1.0, 5)
            sheet.draw_yticks(panel, np.log10(shares), [f"{share:g}" for share in shares])
    sheet.draw_frames(panels)
    sheet.write(style.WIDTH / 2, 22, "length of visit n (bars)", ha="center", va="top", fontsize=9)
    sheet.write(16, height / 2, "share of visits", rotation=90, va="center", fontsize=9)
    return figure


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


def survival(runs: np.ndarray, most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths that occur (at most `most` of them), and the share of runs at least as long."""
    lengths, counts = np.unique(runs, return_counts=True)
    share = counts[::-1].cumsum()[::-1] / max(len(runs), 1)
    every = max(-(-len(lengths) // most), 1)
    return lengths[::every], share[::every]


def _longest(runs: np.ndarray, dwell: float) -> float:
    """Right end of a panel: the longest visit, or three expected dwell times without visits."""
    longest = runs.max() if len(runs) else 3 * dwell
    return float(max(longest, 4)) if np.isfinite(longest) else 10.0


def _mean(runs: np.ndarray) -> str:
    return bars_text(runs.mean()) if len(runs) else "none"


def _draw_survival(sheet: Sheet, panel: Panel, runs: np.ndarray, stay: float, color: str) -> None:
    """Dots of the data under the line of the geometric law."""
    lengths, share = survival(runs)
    sheet.marks(*panel.at(lengths, np.log10(share)), color=color, markersize=4.5, mew=0)
    if stay > 0:
        slope = np.log10(min(stay, 1.0))
        end = min(panel.xlim[1], 1 + panel.ylim[0] / slope) if slope < 0 else panel.xlim[1]
        sheet.line(*panel.at([1, end], [0, slope * (end - 1)]), color=palette.INK, linewidth=1)


def _runs_title(labels: Sequence[str], runs: Sequence[np.ndarray], dwell: np.ndarray) -> str:
    """Name the state whose visits differ most from the geometric law."""
    seen = [k for k, lengths in enumerate(runs) if len(lengths) and np.isfinite(dwell[k])]
    if not seen:
        return "No visits to compare with the geometric law"
    ratios = {k: abs(np.log(runs[k].mean() / dwell[k])) for k in seen}
    k = max(seen, key=lambda k: ratios[k])
    if ratios[k] < np.log(1.1):
        return "Mean visits of all states are within 10 % of the geometric law"
    mean, expected = _mean(runs[k]), bars_text(dwell[k])
    return f"Visits to {labels[k]} differ most from the law: mean {mean} bars, {expected} expected"


def next_bar_return(table: pd.DataFrame, labels: Sequence[str], *, subject: str = "") -> Figure:
    """Next-bar return by state: mean with its 95 % interval, and volatility.

    `table` has one row per state and part of the data: `state` (0..K-1), `split` ("train", "test",
    ...), `mean`, `mean_error` (its standard error) and `volatility`, log returns per bar, and
    optionally `volatility_error`. Rows with NaN are left out.
    """
    rows = _complete(table)
    turn, deeper = style.turned(labels, 430 / len(labels) - 8)
    height = 400 + deeper
    splits = enumerate(dict.fromkeys(rows["split"]))
    fills = ", ".join(f"{'hollow' if i else 'filled'} {name}" for i, name in splits)
    figure = style.new_figure(
        _return_title(rows, labels),
        f"Next bar by state, 95 % intervals: {fills}",
        subject,
        height=height,
    )
    sheet = Sheet(figure)
    panels = cut(2, 2, (style.MARGIN, 36 + deeper, style.WIDTH + 36, height - 54), (62, 36))
    for i, name in enumerate(("mean", "volatility")):
        middle, half = (rows[column] / _BASIS_POINT for column in (name, f"{name}_error"))
        half = _ERRORS_95 * half
        low, high = scales.padded(min(0, (middle - half).min()), max(0, (middle + half).max()))
        low = low if name == "mean" else 0.0
        panel = panels[i] = panels[i].scaled((-0.5, len(labels) - 0.5), (low, high))
        _draw_intervals(sheet, panel, rows, middle, half, palette.regime_colors(len(labels)))
        sheet.draw_title(panel, f"{name} of the log return per bar (basis points)")
        sheet.draw_yticks(panel, scales.round_ticks(*panel.ylim, 5))
        deep = deeper + 14 if turn else None
        sheet.draw_xticks(panel, range(len(labels)), labels, rotation=turn, room=deep)
    sheet.draw_frames(panels)
    return figure


def _complete(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of the rows with a mean and a volatility; an unknown error is zero."""
    rows = {str(name): table[name].to_numpy() for name in table}
    known = np.isfinite(rows["mean"]) & np.isfinite(rows["volatility"])
    rows = {name: column[known] for name, column in rows.items()}
    none = np.zeros(known.sum())
    errors = {name: rows.get(name, none) for name in ("mean_error", "volatility_error")}
    return rows | {name: np.nan_to_num(error) for name, error in errors.items()}


def _draw_intervals(
    sheet: Sheet, panel: Panel, rows: Mapping[str, np.ndarray], middle, half, inks
) -> None:
    """Neighbouring dots for the parts of the data: the first filled, the others hollow."""
    splits = list(dict.fromkeys(rows["split"]))
    part = np.array([splits.index(split) for split in rows["split"]])
    x = rows["state"] + 0.24 * (part - part.max() / 2)
    colors = [inks[k] for k in rows["state"]]
    if panel.ylim[0] < 0:
        sheet.lines([panel.at(panel.xlim, [0, 0])], palette.GREY, linewidths=0.8)
    bars = [panel.at([at] * 2, [m - h, m + h]) for at, m, h in zip(x, middle, half, strict=True)]
    sheet.lines(bars, colors, linewidths=2)
    faces = [color if p == 0 else "white" for color, p in zip(colors, part, strict=True)]
    x, y = panel.at(x, middle)
    sheet.dots(x, y, 52, facecolors=faces, edgecolors=colors, linewidths=1.8, zorder=3)


def _return_title(rows: Mapping[str, np.ndarray], labels: Sequence[str]) -> str:
    """Name the states whose mean has the same significant sign in every part of the data."""
    significant = np.abs(rows["mean"]) > _ERRORS_95 * rows["mean_error"]
    side = np.where(significant, np.sign(rows["mean"]), 0.0)
    sides = {k: set(side[rows["state"] == k].tolist()) for k in range(len(labels))}
    steady = [k for k in sides if sides[k] in ({1.0}, {-1.0})]
    parts = " and ".join(dict.fromkeys(rows["split"]))
    if not steady:
        return f"No state's mean next-bar return differs significantly from zero on {parts}"
    names = ", ".join(f"{labels[k]} ({'+' if 1.0 in sides[k] else '−'})" for k in steady)
    return f"Mean next-bar return significantly non-zero on {parts}: {names}"
