"""Figures of a model's quality: its cumulative gain, and its forecast residuals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtr, ndtri

from hmm_exp.figures import palette, scales, style
from hmm_exp.figures.decimate import group_size
from hmm_exp.figures.panels import Sheet, wide
from hmm_exp.figures.scales import Panel, cut
from hmm_exp.judge.gains import quantiles
from hmm_exp.judge.residuals import (
    ResidualLimits,
    autocorrelation,
    cut_squares,
    rejections,
    residual_effects,
)
from hmm_exp.judge.wording import percent, signed

_WEEK = 7 * 86_400_000_000_000  # ns
_LINES = (palette.INK, "#9a9a9a", "#8e5ea2")  # far from the regimes' colours
_SERIES = 6  # in one row
_LAGS = 20
_REACH = 4.5  # range of a QQ plot, in deviations
_SQUARES = _LINES[2]


def cumulative_gain(
    time: np.ndarray,
    gains: Mapping[str, np.ndarray],
    *,
    splits: Mapping[str, int],
    subject: str = "",
) -> Figure:
    """Cumulative log score gain of the model, starting at zero in every part of the data.

    A steady slope indicates skill, a single steep week luck.

    Parameters
    ----------
    time
        `available_at` of the forecast bars, nanoseconds since 1970 UTC, increasing, shape (N,).
    gains
        Gain per bar in nats by name of the baseline, such as "static" and "EWMA", at most three,
        each of shape (N,); NaN for unscored bars.
    splits
        First instant (nanoseconds) of every part: {"train": ..., "val": ..., "test": ...}. The
        title is about the last part.
    """
    last = max(splits, key=lambda name: splits[name])
    judged = time >= splits[last]
    first = next(iter(gains))
    figure = style.new_figure(
        _gain_title({name: gain[judged] for name, gain in gains.items()}, last),
        "Log score gain in each part",
        _best_week(time[judged], gains[first][judged], f"{last} gain over {first}"),
        subject,
    )
    sheet, ends = Sheet(figure), style.time_range(time)
    starts = np.searchsorted(time, sorted(splits.values()))
    courses = [_courses(time, gain, starts) for gain in gains.values()]
    every = np.concatenate([[0.0], *(y for _, y in courses)])
    span = scales.padded(float(np.nanmin(every)), float(np.nanmax(every)), 0.05)
    panel = wide().scaled(tuple(style.days(np.array(ends))), span)
    sheet.lines([panel.at(panel.xlim, [0, 0])], palette.FAINT, linewidths=0.8, zorder=0)
    for (x, y), color in zip(courses, _LINES, strict=False):
        sheet.line(*panel.at(x, y), color=color, linewidth=1.6)
    sheet.draw_frames([panel])
    sheet.draw_time(panel, *ends, y=20, points=9)
    sheet.draw_yticks(panel, scales.round_ticks(*span, 5), points=9)
    sheet.name_y(panel, "cumulative gain (nats)")
    sheet.mark_splits(panel, splits)
    style.add_key(figure, [f"over {name}" for name in gains], _LINES[: len(gains)])
    return figure


def _courses(
    time: np.ndarray, gain: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative gain of every part from zero, decimated, with a break between parts."""
    edges = [*starts, len(time)]
    size = group_size(len(time))
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    for start, end in pairwise(edges):
        if start == end:
            continue
        course = np.cumsum(np.nan_to_num(gain[start:end]))
        shown = np.append(np.arange(0, end - start - 1, size), end - start - 1)
        xs += [style.days(time[start:end][shown]), style.days(time[end - 1 : end])]
        ys += [course[shown], np.array([np.nan])]
    return np.concatenate(xs), np.concatenate(ys)


def _gain_title(gains: Mapping[str, np.ndarray], part: str) -> str:
    texts = []
    for name, gain in gains.items():
        seen = gain[np.isfinite(gain)]
        mean = signed(seen.mean()).replace("-", "−") if len(seen) else "none"
        texts.append(f"{mean} over {name}")
    return f"Gain on {part}, nats per bar: {', '.join(texts)}"


def _best_week(time: np.ndarray, gain: np.ndarray, what: str) -> str:
    """Share of a gain above zero in its best week; empty for less than two weeks."""
    if len(time) == 0 or time[-1] - time[0] < 2 * _WEEK:
        return ""
    course = np.concatenate([[0.0], np.cumsum(np.nan_to_num(gain))])
    after = np.searchsorted(time, time + _WEEK)
    best = (course[after] - course[:-1]).max()
    is_gain = course[-1] > 0 and signed(course[-1] / len(gain)) != signed(0.0)
    return f"best week: {percent(best / course[-1])} of the {what}" if is_gain else ""


@dataclass(frozen=True, eq=False)
class _Series:
    """Residuals of one series with their effects."""

    name: str
    z: np.ndarray  # (T,)
    effect: str  # the largest one; empty with too few rows to judge
    size: float
    rejected: bool
    memory: np.ndarray  # (2, lags): autocorrelations of z and of its squares

    @property
    def verdict(self) -> str:
        if not self.effect:
            return "too few rows to judge"
        return "rejected" if self.rejected else "within limits"


def residuals(
    series: Mapping[str, np.ndarray], *, limits: ResidualLimits | None = None, subject: str = ""
) -> Figure:
    """Forecast pseudo-residuals: quantiles against the normal ones, and autocorrelations.

    `series` are residuals (T,) by name, NaN if unknown: the features and, last, the next return. Of
    more than six the last and the five worst are drawn. Effects beyond `limits` reject the model.
    """
    limits = limits or ResidualLimits()
    judged = [_judge(name, z, limits) for name, z in series.items()]
    kept = sorted(judged[:-1], key=lambda one: -one.size)[: _SERIES - 1]
    shown = [one for one in judged if one in kept or one is judged[-1]]
    of = f"{len(shown)} of {len(judged)}, the worst" if len(shown) < len(judged) else ""
    height = 520
    figure = style.new_figure(
        _residual_title(judged),
        "Forecast pseudo-residuals: a correct model follows the lines",
        of,
        subject,
        height=height,
    )
    sheet = Sheet(figure)
    panels = cut(
        2 * len(shown), len(shown), (style.MARGIN, 46, style.WIDTH + 14, height - 56), (34, 50)
    )
    every = np.concatenate([[-0.25, 0.25], *(one.memory.ravel() for one in shown)])
    reach, room = (-_REACH, _REACH), scales.padded(float(every.min()), float(every.max()), 0.05)
    quantiles = [panel.scaled(reach, reach) for panel in panels[: len(shown)]]
    memories = [panel.scaled((0.5, _LAGS + 0.5), room) for panel in panels[len(shown) :]]
    for one, above, below in zip(shown, quantiles, memories, strict=True):
        beyond = int((np.abs(one.z) > _REACH).sum())
        note = f"{beyond:,} beyond ±{_REACH:g}" if beyond else ""
        sheet.draw_title(above, one.name, note, room=style.WIDTH / len(shown) - 24)
        sheet.draw_title(below, one.verdict)
    _draw_quantiles(sheet, quantiles, [one.z for one in shown])
    _draw_memory(sheet, memories, [one.memory for one in shown], limits.memory)
    _label(sheet, quantiles, memories)
    style.add_key(figure, ["residuals", "their squares"], [palette.INK, _SQUARES])
    return figure


def _judge(name: str, z: np.ndarray, limits: ResidualLimits) -> _Series:
    effects = residual_effects(z)
    if effects is None:
        return _Series(name, z, "", 0.0, False, np.zeros((2, _LAGS)))
    sizes = {
        "distance from normal": effects.ks,
        "memory": effects.memory,
        "memory of squares": effects.square_memory,
    }
    effect = max(sizes, key=lambda name: sizes[name])
    memory = np.array([autocorrelation(x, _LAGS) for x in (z, cut_squares(z))])
    rejected = bool(rejections(name, effects, limits))
    return _Series(name, z, effect, sizes[effect], rejected, memory)


def _residual_title(judged: Sequence[_Series]) -> str:
    rejected = [one for one in judged if one.rejected]
    known = [one for one in judged if one.effect]
    if not known:
        return "Too few rows to judge the residuals"
    if not rejected and len(known) < len(judged):
        return f"Residuals of {len(known)} of {len(judged)} series are within limits"
    if not rejected:
        return f"Residuals of all {len(judged)} series are within limits"
    worst = max(rejected, key=lambda one: one.size)
    text = f"{len(rejected)} of {len(judged)} series rejected"
    return f"{text}, worst is {worst.name}: {worst.effect} {worst.size:.2f}"


def _draw_quantiles(sheet: Sheet, panels: Sequence[Panel], zs: Sequence[np.ndarray]) -> None:
    """Sample quantiles at evenly spaced normal quantiles, clipped to the panels."""
    ends, dots = [-_REACH, _REACH], []
    for panel, z in zip(panels, zs, strict=True):
        z = z[np.isfinite(z)]
        reach = min(-float(ndtri(0.5 / len(z))), _REACH) if len(z) else 0.0
        normal = np.linspace(-reach, reach, 161 if len(z) else 0)
        sample = quantiles(z[:, None], ndtr(normal))[:, 0] if len(z) else normal
        sample = np.clip(sample, -_REACH, _REACH)
        dots.append(panel.at(normal, sample))
    sheet.lines([panel.at(ends, ends) for panel in panels], palette.GREY, linewidths=0.8)
    sheet.marks(*np.hstack(dots), color=palette.INK, markersize=2.2, mew=0)


def _draw_memory(
    sheet: Sheet, panels: Sequence[Panel], memories: Sequence[np.ndarray], limit: float
) -> None:
    """Autocorrelations as stems; dashed lines at the rejection limit."""
    zeros = [panel.at(panel.xlim, [0, 0]) for panel in panels]
    edges = [panel.at(panel.xlim, [sign * limit] * 2) for panel in panels for sign in (-1, 1)]
    sheet.lines(zeros, palette.GREY, linewidths=0.8)
    sheet.lines(edges, palette.FAINT, linewidths=0.8, linestyles=[(0, (4, 3))])
    lags = np.arange(1, _LAGS + 1)
    for i, (color, shift) in enumerate(((palette.INK, -0.2), (_SQUARES, 0.2))):
        stems = [
            np.stack([panel.at(lags + shift, 0.0), panel.at(lags + shift, memory[i])], axis=-1)
            for panel, memory in zip(panels, memories, strict=True)
        ]  # each (2, lags, 2)
        sheet.lines([*np.concatenate(stems, axis=1).swapaxes(0, 1)], color, linewidths=1.6)


def _label(sheet: Sheet, quantiles: Sequence[Panel], memories: Sequence[Panel]) -> None:
    """Draw ticks (y ticks on the first column only) and axis labels."""
    for above, below in zip(quantiles, memories, strict=True):
        sheet.draw_xticks(above, (-3, 0, 3))
        sheet.draw_xticks(below, (1, 5, 10, 15, 20))
    sheet.draw_yticks(quantiles[0], (-3, 0, 3))
    sheet.draw_yticks(memories[0], scales.round_ticks(*memories[0].ylim, 4))
    sheet.draw_frames([*quantiles, *memories])
    for panels, name in ((quantiles, "quantile of residuals"), (memories, "autocorrelation")):
        middle = panels[0].bottom + panels[0].height / 2
        sheet.write(20, middle, name, rotation=90, ha="center", va="center", fontsize=9)
    sheet.write(style.WIDTH / 2, 20, "lag (rows)", ha="center", va="top", fontsize=9)
    beneath = quantiles[0].bottom - 18
    sheet.write(style.WIDTH / 2, beneath, "normal quantile", ha="center", va="top", fontsize=9)
