"""Figure of a walk forward: parameters of successive refits."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hmm_exp.figures.model import bars_text
from hmm_exp.figures.panels import (
    Panel,
    add_sheet,
    cut,
    draw_frames,
    draw_title,
    draw_xticks,
    draw_yticks,
)
from hmm_exp.figures.style import (
    GREY,
    INK,
    MARGIN,
    WIDTH,
    add_key,
    draw_lines,
    join,
    new_figure,
    number,
    padded,
    percent,
    regime_colors,
    round_ticks,
    time_ticks,
)

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
    subject
        Name of the data, for the subtitle.
    """
    refused = np.zeros(len(time), dtype=bool) if refused is None else refused
    n_panels, columns = len(features) + 2, 3 if len(features) <= 7 else 4
    height = max(130 * -(-n_panels // columns), 260) + 110
    marks = "ring: refit rejected" if refused.any() else ""
    figure = new_figure(
        _title(agreement),
        join(
            f"{len(time)} {'fit' if len(time) == 1 else 'fits'}, each from its past",
            _most_moved(means, features, labels),
            marks,
            subject,
        ),
        height=height,
    )
    sheet = add_sheet(figure)
    box = (MARGIN - 8, 30, WIDTH + 30, height - 84)
    panels = cut(n_panels, columns, box, (66, 44))
    span = _span(time)
    colors = regime_colors(len(labels))
    room = (WIDTH - MARGIN) / columns - 8
    scaled = [
        *_draw_means(sheet, panels, span, time, means, colors),
        _draw_dwell(sheet, panels[-2].scaled(span, (0, 1)), time, dwell, colors),
        _draw_agreement(sheet, panels[-1].scaled(span, (0, 1)), time, agreement),
    ]
    unit = f"expected dwell (bars of {bar})" if bar else "expected dwell (bars)"
    for panel, name in zip(scaled, [*features, unit, "agreement with the fit before"], strict=True):
        draw_title(sheet, panel, name, room=room)
        _ring(sheet, panel, time[refused])
    draw_frames(sheet, scaled)
    _draw_time(sheet, scaled, columns, time)
    add_key(figure, labels, colors)
    return figure


def _span(time: np.ndarray) -> tuple[float, float]:
    """First and last refit; a day around a single one."""
    room = _DAY / 2 if len(time) == 1 else 0.0
    return float(time[0]) - room, float(time[-1]) + room


def _draw_means(sheet: Axes, panels: Sequence[Panel], span, time, means, colors) -> list[Panel]:
    drawn = []
    for d, panel in enumerate(panels[: means.shape[2]]):
        scaled = panel.scaled(span, padded(means[:, :, d].min(), means[:, :, d].max()))
        _draw_courses(sheet, scaled, time, means[:, :, d], colors)
        draw_yticks(sheet, scaled, round_ticks(*scaled.ylim, 4))
        drawn.append(scaled)
    return drawn


def _draw_dwell(sheet: Axes, panel: Panel, time, dwell, colors) -> Panel:
    """Draw expected dwell times on a log axis."""
    logs = np.log10(np.clip(dwell, 1, _LONGEST))
    scaled = panel.scaled(panel.xlim, padded(logs.min(), logs.max()))
    _draw_courses(sheet, scaled, time, logs, colors)
    ticks = _dwell_ticks(*scaled.ylim)
    names = [bars_text(tick).removesuffix(".0") for tick in ticks]
    draw_yticks(sheet, scaled, np.log10(ticks), names)
    return scaled


def _draw_agreement(sheet: Axes, panel: Panel, time, agreement) -> Panel:
    known = np.isfinite(agreement)
    low = min(float(agreement[known].min()), 0.9) if known.any() else 0.0
    scaled = panel.scaled(panel.xlim, (low - 0.02, 1.02))
    if known.any():
        _draw_courses(sheet, scaled, time[known], agreement[known][:, None], (INK,))
    ticks = round_ticks(low, 1.0, 3)
    draw_yticks(sheet, scaled, ticks, [f"{number(round(100 * tick, 6))} %" for tick in ticks])
    return scaled


def _draw_courses(sheet: Axes, panel: Panel, time, values, colors) -> None:
    """One line per column of `values` (R, n), with a dot per fit where there are few."""
    courses = [panel.at(time, column) for column in values.T]
    draw_lines(sheet, courses, list(colors), linewidths=1.6, zorder=2)
    if len(time) <= 40:
        x, y = np.hstack(courses)
        dots = [color for color in colors for _ in time]
        sheet.scatter(x, y, s=9, c=dots, linewidths=0, zorder=3)


def _ring(sheet: Axes, panel: Panel, time: np.ndarray) -> None:
    """Mark instants above the lower edge of a panel."""
    if len(time):
        y = np.full(len(time), panel.bottom + 6)
        sheet.scatter(
            panel.x(time), y, s=20, facecolors="white", edgecolors=GREY, linewidths=1, zorder=4
        )


def _draw_time(sheet: Axes, panels: Sequence[Panel], columns: int, time: np.ndarray) -> None:
    """Label the time axis of the lowest panel of every column."""
    if len(time) < 2:
        return
    at, names = time_ticks(int(time[0]), int(time[-1]), most=5)
    for panel in panels[-columns:]:
        draw_xticks(sheet, panel, at, names)


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


def _dwell_ticks(low: float, high: float) -> np.ndarray:
    """At most four round lengths between two powers of ten."""
    for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = np.array([digit * 10.0**power for power in range(7) for digit in digits])
        ticks = ticks[(np.log10(ticks) >= low) & (np.log10(ticks) <= high)]
        if len(ticks) <= 4:
            break
    return ticks
