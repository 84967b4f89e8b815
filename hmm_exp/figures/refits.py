"""Figure of a walk forward: parameters of successive refits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hmm_exp.figures import palette, scales, style
from hmm_exp.figures.model import bars_text
from hmm_exp.figures.panels import Sheet
from hmm_exp.figures.scales import Panel, cut
from hmm_exp.judge.wording import percent

_DAY = 86_400e9  # nanoseconds
_LONGEST = 1e6  # bars: longer expected visits are drawn here


def drift(
    time: np.ndarray,
    means: np.ndarray,
    dwell: np.ndarray,
    features: Sequence[str],
    labels: Sequence[str],
    *,
    agreement: np.ndarray,
    refused: np.ndarray | None = None,
    bar: str = "",
    subject: str = "",
) -> Figure:
    """State means, expected dwell times and agreement of labels over the refits of a walk.

    Parameters
    ----------
    time
        Time of every refit, nanoseconds since 1970 UTC, increasing, shape (R,).
    means
        State means of the model in use, in raw units, shape (R, K, D).
    dwell
        Its expected dwell times in rows, shape (R, K).
    features, labels
        Names of the D features and of the K states, calm first.
    agreement
        Share of rows with the same label as by the model before, shape (R,); NaN for the first.
    refused
        Refits that were rejected, shape (R,): the model before stays in use.
    bar
        Name of one row, such as "1H", for the unit of the dwell times.
    """
    refused = np.zeros(len(time), dtype=bool) if refused is None else refused
    n_panels, columns = len(features) + 2, 3 if len(features) <= 7 else 4
    height = max(130 * -(-n_panels // columns), 260) + 110
    figure = style.new_figure(
        _title(agreement),
        f"{len(time)} {'fit' if len(time) == 1 else 'fits'}, each from its past",
        _most_moved(means, features, labels),
        "ring: refit rejected" if refused.any() else "",
        subject,
        height=height,
    )
    sheet = Sheet(figure)
    box = (style.MARGIN - 8, 30, style.WIDTH + 30, height - 84)
    panels = cut(n_panels, columns, box, (66, 44))
    edge = _DAY / 2 if len(time) == 1 else 0.0
    span = (float(time[0]) - edge, float(time[-1]) + edge)
    colors = palette.regime_colors(len(labels))
    room = (style.WIDTH - style.MARGIN) / columns - 8
    scaled = [
        *_draw_means(sheet, panels, span, time, means, colors),
        _draw_dwell(sheet, panels[-2].scaled(span, (0, 1)), time, dwell, colors),
        _draw_agreement(sheet, panels[-1].scaled(span, (0, 1)), time, agreement),
    ]
    unit = f"expected dwell (bars of {bar})" if bar else "expected dwell (bars)"
    if beyond := int((dwell > _LONGEST).sum()):
        unit += f", {beyond} longer at the edge"
    for panel, name in zip(scaled, [*features, unit, "agreement with the fit before"], strict=True):
        sheet.draw_title(panel, name, room=room)
        ringed: dict[str, Any] = {
            "facecolors": "white",
            "edgecolors": palette.GREY,
            "linewidths": 1,
        }
        x = panel.x(time[refused])
        sheet.dots(x, np.full(len(x), panel.bottom + 6), 20, zorder=4, **ringed)
    sheet.draw_frames(scaled)
    for panel in scaled[-columns:]:
        _draw_time(sheet, panel, time)
    style.add_key(figure, labels, colors)
    return figure


def _draw_time(sheet: Sheet, panel: Panel, time: np.ndarray) -> None:
    """Label round instants, or the day of a single fit."""
    at, names = style.time_ticks(int(time[0]), int(time[-1]), panel.width, most=5, points=8)
    if len(time) == 1:
        at, names = time, [str(np.datetime64(int(time[0]), "ns"))[:10]]
    sheet.draw_xticks(panel, at, names)


def _draw_means(sheet: Sheet, panels: Sequence[Panel], span, time, means, colors) -> list[Panel]:
    drawn = []
    for d, panel in enumerate(panels[: means.shape[2]]):
        scaled = panel.scaled(span, scales.padded(means[:, :, d].min(), means[:, :, d].max()))
        _draw_courses(sheet, scaled, time, means[:, :, d], colors)
        sheet.draw_yticks(scaled, scales.round_ticks(*scaled.ylim, 4))
        drawn.append(scaled)
    return drawn


def _draw_dwell(sheet: Sheet, panel: Panel, time, dwell, colors) -> Panel:
    """Draw expected dwell times on a log axis."""
    logs = np.log10(np.clip(dwell, 1, _LONGEST))
    scaled = panel.scaled(panel.xlim, scales.padded(logs.min(), logs.max()))
    _draw_courses(sheet, scaled, time, logs, colors)
    ticks = scales.log_ticks(10.0 ** max(scaled.ylim[0], 0.0), 10.0 ** scaled.ylim[1], 4)
    names = [bars_text(tick).removesuffix(".0") for tick in ticks]
    sheet.draw_yticks(scaled, np.log10(ticks), names)
    return scaled


def _draw_agreement(sheet: Sheet, panel: Panel, time, agreement) -> Panel:
    known = np.isfinite(agreement)
    low = min(float(agreement[known].min()), 0.999) if known.any() else 0.0
    scaled = panel.scaled(panel.xlim, scales.padded(low, 1.0))
    if known.any():
        _draw_courses(sheet, scaled, time[known], agreement[known][:, None], (palette.INK,))
    ticks = scales.round_ticks(low, 1.0, 4)
    sheet.draw_yticks(scaled, ticks, [f"{scales.number(round(100 * tick, 6))} %" for tick in ticks])
    return scaled


def _draw_courses(sheet: Sheet, panel: Panel, time, values, colors) -> None:
    """One line per column of `values` (R, n), with a dot per fit where there are few."""
    courses = [panel.at(time, column) for column in values.T]
    sheet.lines(courses, list(colors), linewidths=1.6, zorder=2)
    if len(time) <= 40:
        x, y = np.hstack(courses)
        dots = [color for color in colors for _ in time]
        sheet.dots(x, y, 9, facecolors=dots, linewidths=0, zorder=3)


def _title(agreement: np.ndarray) -> str:
    known = agreement[np.isfinite(agreement)]
    if len(known) == 0:
        return "Only one fit, no agreement to measure"
    least = f"at least {percent(known.min())}"
    return f"Successive fits agree on {percent(known.mean())} of labels on average, {least}"


def _most_moved(means: np.ndarray, features: Sequence[str], labels: Sequence[str]) -> str:
    """Name the mean with the widest range, relative to the distance between the states."""
    if len(means) == 1 or len(labels) == 1:
        return ""
    apart = np.maximum(np.ptp(means, axis=1).mean(axis=0), np.finfo(float).tiny)  # (D,)
    moved = np.ptp(means, axis=0) / apart  # (K, D)
    k, d = divmod(int(moved.argmax()), len(features))
    return f"largest drift: {labels[k]} in {features[d]}"
