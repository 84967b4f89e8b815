"""Figures over time: price by regime, regime probabilities, and recovered planted regimes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hmm_exp.figures import palette, scales, style
from hmm_exp.figures.decimate import (
    COLUMNS,
    column_means,
    column_times,
    group_size,
    regime_lines,
)
from hmm_exp.figures.panels import Sheet, wide
from hmm_exp.figures.scales import Panel
from hmm_exp.judge.states import occupancy
from hmm_exp.judge.wording import percent

_LOG_FROM = 3.0  # ratio of highest to lowest price from which the axis is logarithmic
_CERTAIN = 0.9
_AREAS = COLUMNS // 2  # columns of two pixels: narrower ones flicker


def price(
    time: np.ndarray,
    close: np.ndarray,
    states: np.ndarray,
    labels: Sequence[str],
    *,
    splits: Mapping[str, int] | None = None,
    subject: str = "",
    kind: str = "filtered",
    unit: str = "quote currency",
) -> Figure:
    """Close price coloured by regime, one line per regime.

    Parameters
    ----------
    close
        Closing prices, shape (T,).
    states
        State of every bar, calm first, shape (T,); negative if unknown.
    unit
        Unit of the price.
    """
    shares = occupancy(states, len(labels))
    scale = "log scale" if _is_logarithmic(close) else ""
    size = group_size(len(time))
    most = f"most frequent of {size} bars per pixel" if size > 1 else ""
    figure = style.new_figure(
        occupancy_title(labels, shares), f"Close by {kind} regime", most, scale, subject
    )
    colors = palette.regime_colors(len(labels))
    sheet, panel = Sheet(figure), _over(time, wide())
    panel = _draw_price(sheet, panel, time, close, states, colors)
    sheet.draw_frames([panel])
    sheet.name_y(panel, f"close ({unit})")
    sheet.draw_time(panel, *style.time_range(time), y=20, points=9)
    sheet.mark_splits(panel, splits or {})
    _add_key(figure, labels, shares, "unknown" if (states < 0).any() else "")
    return figure


def regimes(
    time: np.ndarray,
    close: np.ndarray,
    states: np.ndarray,
    probs: np.ndarray,
    labels: Sequence[str],
    *,
    subject: str = "",
    unit: str = "quote currency",
) -> Figure:
    """Close price coloured by regime, above the filtered probabilities.

    Parameters
    ----------
    close
        Closing prices, shape (T,).
    states
        Regime of every row, calm first, shape (T,); negative if undecided.
    probs
        Filtered probabilities, shape (T, K).
    unit
        Unit of the price.
    """
    shares, colors = occupancy(states, len(labels)), palette.regime_colors(len(labels))
    figure = style.new_figure(
        occupancy_title(labels, shares),
        "Close by decided regime, and filtered probabilities",
        "log scale" if _is_logarithmic(close) else "",
        subject,
        height=640,
    )
    sheet, lower = Sheet(figure), _over(time, wide(top=230))
    upper = _draw_price(sheet, _over(time, wide(250, 540)), time, close, states, colors)
    _draw_stack(sheet, lower, time, probs, colors)
    sheet.draw_frames([upper, lower])
    sheet.name_y(upper, f"close ({unit})")
    sheet.name_y(lower, "probability")
    sheet.draw_time(lower, *style.time_range(time), y=20, points=9)
    _add_key(figure, labels, shares, "undecided" if (states < 0).any() else "")
    return figure


def _add_key(figure: Figure, labels: Sequence[str], shares: np.ndarray, other: str) -> None:
    """Key of the regimes with their shares, and of the bars without one if they have a name."""
    names = [f"{n} {percent(s)}" for n, s in zip(labels, shares, strict=True)]
    colors = [*palette.regime_colors(len(labels)), palette.FAINT]
    if other:
        names.append(other)
    style.add_key(figure, names, colors[: len(names)])


def _over(time: np.ndarray, panel: Panel) -> Panel:
    """The panel with the days of `time` across, and 0 to 1 upwards."""
    return panel.scaled(tuple(style.days(np.array(style.time_range(time)))), (0.0, 1.0))


def _draw_price(sheet: Sheet, panel: Panel, time, close, states, colors) -> Panel:
    """Draw one line per regime and the ticks; return the panel with its range."""
    n_states, logarithmic = len(colors), _is_logarithmic(close)
    low, high = float(np.nanmin(close)), float(np.nanmax(close))
    scale = np.log10 if logarithmic else np.asarray
    ends = (low / 1.05, high * (high / low) ** 0.05) if logarithmic else ()
    ends = ends or scales.padded(low, high, 0.05)
    panel = panel.scaled(panel.xlim, tuple(scale(ends).tolist()))
    known = np.where(states < 0, n_states, states)
    lines = regime_lines(style.days(time), close, known, n_states + 1, breaks=_gaps(time))
    for (x, y), color in zip(lines, (*colors, palette.FAINT), strict=True):
        if len(x):
            points = panel.at(x, scale(y))
            sheet.line(*points, color=color, linewidth=1.3, solid_capstyle="projecting")
    ticks = scales.log_ticks(low, high, 7) if logarithmic else scales.round_ticks(low, high, 5)
    sheet.draw_yticks(panel, scale(ticks), [scales.number(tick) for tick in ticks], points=9)
    return panel


def _is_logarithmic(close: np.ndarray) -> bool:
    return bool(np.nanmax(close) > _LOG_FROM * np.nanmin(close))


def _gaps(time: np.ndarray) -> np.ndarray:
    """Rows after a gap of more than 25 median steps and 1 % of the span."""
    step = np.diff(time, prepend=time[:1])
    usual = np.median(step[1:]) if len(step) > 1 else 0
    return (step > 25 * usual) & (step > 0.01 * (time[-1] - time[0]))


def probabilities(
    time: np.ndarray,
    probs: np.ndarray,
    labels: Sequence[str],
    *,
    splits: Mapping[str, int] | None = None,
    subject: str = "",
    kind: str = "filtered",
) -> Figure:
    """Probability of every regime over time, stacked calm to turbulent.

    Parameters
    ----------
    probs
        Probabilities, shape (T, K); NaN rows are left blank.
    """
    with np.errstate(invalid="ignore"):
        certain = (probs.max(axis=1) > _CERTAIN).sum() / max(np.isfinite(probs[:, 0]).sum(), 1)
    share = percent(certain)
    title = f"One regime is more than {percent(_CERTAIN)} probable in {share} of bars"
    size = group_size(len(time), _AREAS)
    averaged = f"mean of {size} bars per column" if size > 1 else ""
    figure = style.new_figure(title, f"{kind.capitalize()} probabilities", averaged, subject)
    sheet, panel = Sheet(figure), _over(time, wide())
    colors = palette.regime_colors(len(labels))
    _draw_stack(sheet, panel, time, probs, colors)
    sheet.draw_frames([panel])
    sheet.name_y(panel, "probability")
    sheet.draw_time(panel, *style.time_range(time), y=20, points=9)
    sheet.mark_splits(panel, splits or {})
    style.add_key(figure, labels, colors)
    return figure


def _draw_stack(
    sheet: Sheet, panel: Panel, time: np.ndarray, probs: np.ndarray, colors: Sequence[str]
) -> None:
    """Draw overlapping areas down to zero, turbulent first, without seams between neighbours."""
    edges = np.append(style.days(column_times(time, _AREAS)), style.days(time[-1:]))
    heights = np.cumsum(column_means(probs, _AREAS), axis=1)
    known = np.isfinite(heights[:, -1])
    heights[known, -1] = 1.0
    turns = np.flatnonzero(np.diff(known, prepend=False, append=False)).reshape(-1, 2)
    outlines, inks = [], []
    for k in range(len(colors))[::-1]:
        for first, end in turns:
            x = np.repeat(edges[first : end + 1], 2)
            y = np.concatenate([[0.0], np.repeat(heights[first:end, k], 2), [0.0]])
            outlines.append(panel.at(x, y))
            inks.append(colors[k])
    sheet.areas(outlines, inks)
    sheet.draw_yticks(panel, (0, 0.5, 1), ("0", "0.5", "1"), points=9)


def recovered(
    time: np.ndarray,
    planted: np.ndarray,
    states: np.ndarray,
    labels: Sequence[str],
    *,
    planted_labels: Sequence[str] | None = None,
    subject: str = "",
    kind: str = "filtered",
) -> Figure:
    """Recovered and planted regimes: share of each that was found, and both over time.

    `planted` and `states` are numbered calm first, shape (T,), and negative if unknown. The planted
    states have the labels of the recovered ones unless `planted_labels` are given.
    """
    truth = tuple(planted_labels or labels)
    shares = confusion(planted, states, len(truth), len(labels))
    left = style.left_of([*truth, *labels], 110, 240)
    turn, deeper = style.turned(labels, (460 - left) / len(labels) - 8)
    figure = style.new_figure(
        _recovered_title(truth, labels, shares),
        f"Planted and {kind} regimes of the synthetic market",
        subject,
        height=400 + deeper,
    )
    sheet, bottom = Sheet(figure), 52 + deeper
    ends = (-0.5, len(labels) - 0.5), (len(truth) - 0.5, -0.5)
    matrix = Panel(left, bottom, 460 - left, 270, *ends)
    sheet.draw_heat(matrix, [[f"{100 * s:.0f}" for s in row] for row in shares], shares)
    room = bottom - 33 if turn else None
    sheet.draw_xticks(matrix, range(len(labels)), labels, rotation=turn, room=room, points=9)
    sheet.draw_yticks(matrix, range(len(truth)), truth, room=left - 33, points=9)
    sheet.name_axes(matrix, "recovered as (% of the planted bars)", "planted")
    strips = Panel(570, bottom, style.WIDTH - 590, 270, ylim=(0, 2))
    _draw_strips(sheet, strips, time, (planted, len(truth)), (states, len(labels)))
    sheet.draw_frames([matrix, strips])
    return figure


def confusion(planted: np.ndarray, states: np.ndarray, n_planted: int, n_states: int) -> np.ndarray:
    """Share of each planted regime's bars in each state, shape (n_planted, n_states)."""
    known = (planted >= 0) & (states >= 0)
    counts = np.zeros((n_planted, n_states))
    np.add.at(counts, (planted[known], states[known]), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _recovered_title(truth: Sequence[str], labels: Sequence[str], shares: np.ndarray) -> str:
    if len(truth) != len(labels):
        regimes = "1 regime" if len(labels) == 1 else f"{len(labels)} regimes"
        return f"{regimes} recovered where {len(truth)} were planted"
    found = np.diag(shares)
    worst = int(found.argmin())
    return (
        f"Balanced accuracy {percent(found.mean())}; hardest to find is "
        f"{truth[worst]}, {percent(found[worst])} of its bars"
    )


def _draw_strips(
    sheet: Sheet, panel: Panel, time: np.ndarray, *rows: tuple[np.ndarray, int]
) -> None:
    """One band per series of states, with the most frequent state of every pixel column."""
    start, end = style.time_range(time)
    panel = panel.scaled(tuple(style.days(np.array([start, end]))), panel.ylim)
    for height, (states, n_states) in zip((1, 0), rows, strict=True):
        bottom, top = panel.y([height + 0.08, height + 0.92])
        colors = (*palette.regime_colors(n_states), palette.FAINT)
        sheet.states(panel, (bottom, top), time, states, colors)
    sheet.draw_time(panel, start, end, y=20)
    sheet.draw_yticks(panel, (0.5, 1.5), ("recovered", "planted"), room=90, points=9)


def occupancy_title(labels: Sequence[str], shares: np.ndarray) -> str:
    """Describe the shares of the states; of more than three the most frequent and the last."""
    if len(labels) == 1:
        return f"One regime, {labels[0]}, holds every bar"
    if len(labels) <= 3:
        parts = (f"{n} {percent(s)}" for n, s in zip(labels, shares, strict=True))
        return f"{', '.join(parts)} of bars"
    most = int(np.argmax(shares))
    share = percent(shares[most])
    if most == len(labels) - 1:
        return f"Most frequent regime is the most turbulent, {labels[most]}: {share}"
    return (
        f"Most frequent regime is {labels[most]}, {share} of bars; "
        f"the most turbulent, {labels[-1]}, holds {percent(shares[-1])}"
    )
