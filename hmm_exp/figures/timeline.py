"""Figures over time: price by regime, regime probabilities, and recovered planted regimes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hmm_exp.figures import style
from hmm_exp.figures.decimate import (
    COLUMNS,
    column_means,
    column_times,
    group_size,
    regime_lines,
)
from hmm_exp.figures.panels import Panel, Sheet
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
    logarithmic = bool(np.nanmax(close) > _LOG_FROM * np.nanmin(close))
    scale = "log scale" if logarithmic else ""
    size = group_size(len(time))
    most = f"most frequent of {size} bars per pixel" if size > 1 else ""
    figure = style.new_figure(
        occupancy_title(labels, shares), f"Close by {kind} regime", most, scale, subject
    )
    colors = style.regime_colors(len(labels))
    axes = style.add_axes(figure, xlabel="time (UTC)", ylabel=f"close ({unit})")
    _draw_price(axes, time, close, states, colors)
    _set_price_axis(axes, close, logarithmic)
    style.set_time_axis(axes, time)
    style.mark_splits(axes, splits or {})
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
    logarithmic = bool(np.nanmax(close) > _LOG_FROM * np.nanmin(close))
    shares, colors = occupancy(states, len(labels)), style.regime_colors(len(labels))
    figure = style.new_figure(
        occupancy_title(labels, shares),
        "Close by decided regime, and filtered probabilities",
        "log scale" if logarithmic else "",
        subject,
        height=640,
    )
    upper = style.add_axes(figure, bottom=250, ylabel=f"close ({unit})")
    lower = style.add_axes(figure, top=410, xlabel="time (UTC)", ylabel="probability")
    _draw_price(upper, time, close, states, colors)
    _set_price_axis(upper, close, logarithmic)
    _draw_stack(lower, time, probs, colors)
    style.set_time_axis(lower, time)
    upper.set_xlim(lower.get_xlim())
    _add_key(figure, labels, shares, "undecided" if (states < 0).any() else "")
    return figure


def _add_key(figure: Figure, labels: Sequence[str], shares: np.ndarray, other: str) -> None:
    """Key of the regimes with their shares, and of the bars without one if they have a name."""
    names = [f"{n} {percent(s)}" for n, s in zip(labels, shares, strict=True)]
    colors = [*style.regime_colors(len(labels)), style.FAINT]
    if other:
        names.append(other)
    style.add_key(figure, names, colors[: len(names)])


def _draw_price(axes: Axes, time, close, states, colors) -> None:
    n_states = len(colors)
    known = np.where(states < 0, n_states, states)
    lines = regime_lines(style.days(time), close, known, n_states + 1, breaks=_gaps(time))
    for (x, y), color in zip(lines, (*colors, style.FAINT), strict=True):
        if len(x):
            axes.plot(x, y, color=color, linewidth=1.3, solid_capstyle="projecting")


def _gaps(time: np.ndarray) -> np.ndarray:
    """Rows after a gap of more than 25 median steps and 1 % of the span."""
    step = np.diff(time, prepend=time[:1])
    usual = np.median(step[1:]) if len(step) > 1 else 0
    return (step > 25 * usual) & (step > 0.01 * (time[-1] - time[0]))


def _set_price_axis(axes: Axes, close: np.ndarray, logarithmic: bool) -> None:
    low, high = float(np.nanmin(close)), float(np.nanmax(close))
    if logarithmic:
        ticks = style.log_ticks(low, high, 7)
        axes.set_yscale("log")
        axes.set_ylim(low / 1.05, high * (high / low) ** 0.05)
    else:
        ticks = style.round_ticks(low, high, 5)
        axes.set_ylim(*style.padded(low, high, 0.05))
    style.set_ticks(axes, "y", ticks, map(style.number, ticks))


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
    axes = style.add_axes(figure, xlabel="time (UTC)", ylabel="probability")
    colors = style.regime_colors(len(labels))
    _draw_stack(axes, time, probs, colors)
    style.set_time_axis(axes, time)
    style.mark_splits(axes, splits or {})
    style.add_key(figure, labels, colors)
    return figure


def _draw_stack(axes: Axes, time: np.ndarray, probs: np.ndarray, colors: Sequence[str]) -> None:
    """Draw overlapping areas down to zero, turbulent first, without seams between neighbours."""
    x = np.append(style.days(column_times(time, _AREAS)), style.days(time[-1:]))
    heights = np.cumsum(column_means(probs, _AREAS), axis=1)
    heights[:, -1] = np.where(np.isfinite(heights[:, -1]), 1.0, np.nan)
    heights = np.vstack([heights, heights[-1:]])
    for k in range(len(colors))[::-1]:
        axes.fill_between(
            x,
            heights[:, k],
            where=np.isfinite(heights[:, k]),
            step="post",
            color=colors[k],
            linewidth=0,
        )
    axes.set_ylim(0, 1)
    style.set_ticks(axes, "y", (0, 0.5, 1), ("0", "0.5", "1"))


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
        colors = (*style.regime_colors(n_states), style.FAINT)
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
