"""Figures of the parameters of one fitted model: transitions and state means."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from hmm_exp.figures import palette, scales, style
from hmm_exp.figures.panels import Sheet
from hmm_exp.figures.scales import Panel, cut
from hmm_exp.hmm.health import expected_dwell

_LEAST_SHOWN = 5e-5  # smaller transitions are left blank


def transition_matrix(
    transmat: np.ndarray, labels: Sequence[str], *, bar: str = "", subject: str = ""
) -> Figure:
    """Transition probabilities as a heat map with log shading, and expected dwell times.

    Parameters
    ----------
    transmat
        Row k: from state k, shape (K, K).
    bar
        Name of one bar, such as "1H", for the unit of the dwell times.
    """
    n_states = len(labels)
    dwell = expected_dwell(transmat)
    blank = "blank: below 0.00005" if (transmat < _LEAST_SHOWN).any() else ""
    left = style.left_of(labels, 110, 260)
    turn, deeper = style.turned(labels, (560 - left) / n_states - 8)
    height = 360 if n_states <= 5 else 440
    figure = style.new_figure(
        _dwell_title(labels, dwell),
        "Probability of the next state, shaded on a log scale",
        blank,
        subject,
        height=height + deeper,
    )
    with np.errstate(divide="ignore"):
        shade = np.clip(1 + np.log10(transmat) / 4, 0, 1)
    sheet, bottom = Sheet(figure), 52 + deeper
    ends = (-0.5, n_states - 0.5)
    matrix = Panel(left, bottom, 560 - left, height - 126, ends, ends[::-1])
    bars = replace(matrix, left=600, width=300)
    sheet.draw_frames([matrix, bars])
    sheet.draw_heat(matrix, [[_probability(p) for p in row] for row in transmat], shade)
    room = bottom - 33 if turn else None
    sheet.draw_xticks(matrix, range(n_states), labels, rotation=turn, room=room, points=9)
    sheet.draw_yticks(matrix, range(n_states), labels, room=left - 33, points=9)
    sheet.name_axes(matrix, "to state", "from state")
    unit = f"expected dwell (bars of {bar})" if bar else "expected dwell (bars)"
    sheet.write(bars.left + bars.width / 2, 20, unit, ha="center", va="top", fontsize=9)
    _draw_dwell_bars(sheet, bars, dwell)
    return figure


def _draw_dwell_bars(sheet: Sheet, panel: Panel, dwell: np.ndarray) -> None:
    """One bar per state, aligned with its row of the matrix."""
    finite = dwell[np.isfinite(dwell)]
    panel = panel.scaled((0, finite.max() if len(finite) else 1.0), panel.ylim)
    rows, ends = np.arange(len(dwell)), panel.x(np.minimum(dwell, panel.xlim[1]))
    colors = palette.regime_colors(len(dwell))
    sheet.boxes(panel.left, ends, panel.y(rows + 0.25), panel.y(rows - 0.25), colors)
    for k, (x, bars) in enumerate(zip(ends, dwell, strict=True)):
        y = float(panel.y(k))
        sheet.write(x + 6, y, bars_text(bars), va="center", fontsize=9, color=palette.INK)


def _dwell_title(labels: Sequence[str], dwell: np.ndarray) -> str:
    if len(labels) == 1:
        return "One state, no transitions"
    short, long = int(dwell.argmin()), int(dwell.argmax())
    if bars_text(dwell[short]) == bars_text(dwell[long]):
        return f"Visits to all states last equally long, {bars_text(dwell[long])} bars expected"
    return (
        f"Visits to {labels[long]} last longest, {bars_text(dwell[long])} bars expected; "
        f"to {labels[short]} shortest, {bars_text(dwell[short])}"
    )


def bars_text(bars: float) -> str:
    """Format a length of visits: 8.3, 120, ∞."""
    if not np.isfinite(bars):
        return "∞"
    return f"{bars:,.0f}" if bars >= 99.95 else f"{bars:.1f}"


def _probability(p: float) -> str:
    """Three decimals, four within 0.01 of 0 and 1; empty if it rounds to zero."""
    if p < _LEAST_SHOWN:
        return ""
    if p > 1 - _LEAST_SHOWN:
        return "1"
    return f"{p:.4f}"[1:] if p < 0.01 or p > 0.99 else f"{p:.3f}"[1:]


def state_means(
    means: np.ndarray,
    sds: np.ndarray,
    features: Sequence[str],
    labels: Sequence[str],
    *,
    unit: str = "z",
    subject: str = "",
) -> Figure:
    """Mean ± one standard deviation of every feature by state, one panel per feature.

    Parameters
    ----------
    means, sds
        Per state and feature, shape (K, D).
    features, labels
        Names of the D features and of the K states, calm first.
    unit
        "z": standard deviations on train, with a common scale. "raw": a scale per panel.
    """
    columns = min(len(features), 3 if 4 < len(features) <= 9 else 4)
    rows = -(-len(features) // columns)
    height = max(110 * rows, 240) + 100
    units = "in standard deviations of train" if unit == "z" else "in the feature's own unit"
    figure = style.new_figure(
        _means_title(means, sds, features, labels),
        f"Mean ± 1 standard deviation per state, {units}",
        subject,
        height=height,
    )
    box = (style.MARGIN - 8, 14, style.WIDTH, height - 84)
    panels = cut(len(features), columns, box, (54 if unit == "raw" else 24, 34))
    low, high = (means - sds), (means + sds)
    sheet = Sheet(figure)
    shared = scales.padded(low.min(), high.max())
    panels = [
        panel.scaled((-0.6, len(labels) - 0.4), shared if unit == "z" else scales.padded(*ends))
        for panel, *ends in zip(panels, low.min(axis=0), high.max(axis=0), strict=True)
    ]
    sheet.draw_frames(panels)
    _draw_means(sheet, panels, means, sds)
    for i, (panel, name) in enumerate(zip(panels, features, strict=True)):
        sheet.draw_title(panel, name, room=(style.WIDTH - style.MARGIN) / columns - 8)
        if unit == "raw" or i % columns == 0:
            sheet.draw_yticks(panel, scales.round_ticks(*panel.ylim, 3))
    style.add_key(figure, labels, palette.regime_colors(len(labels)))
    if unit == "z":
        middle = (height - 84) / 2
        sheet.write(18, middle, "train deviations", rotation=90, va="center", fontsize=9)
    return figure


def _draw_means(sheet: Sheet, panels: Sequence[Panel], means: np.ndarray, sds: np.ndarray) -> None:
    """Draw all whiskers, dots and zero lines as three artists."""
    n_states, n_features = means.shape
    colors = palette.regime_colors(n_states) * n_features
    at = np.arange(n_states)
    dots = [panel.at(at, means[:, d]) for d, panel in enumerate(panels)]
    whiskers = [
        panel.at([k, k], [means[k, d] - sds[k, d], means[k, d] + sds[k, d]])
        for d, panel in enumerate(panels)
        for k in at
    ]
    zeros = [c.at(c.xlim, [0, 0]) for c in panels if c.ylim[0] < 0 < c.ylim[1]]
    sheet.lines(zeros, palette.FAINT, linewidths=0.8, linestyles="dashed", zorder=0)
    sheet.lines(whiskers, colors, linewidths=2)
    x, y = np.hstack(dots)
    sheet.dots(x, y, 34, facecolors=list(colors), linewidths=0, zorder=3)


def _means_title(means, sds, features, labels) -> str:
    """Name the feature whose state means differ most, relative to the spread in the states."""
    if len(labels) == 1:
        return f"One state over {len(features)} feature{'s' * (len(features) > 1)}"
    between, within = means.max(axis=0) - means.min(axis=0), sds.mean(axis=0)
    apart = between / np.maximum(within, np.finfo(float).tiny)
    d = int(apart.argmax())
    return f"States differ most in {features[d]}: means {apart[d]:.1f} standard deviations apart"
