"""Figure of a model that is watched: likelihood and score against the promise, regimes, charts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hmm_exp.experiment.figures.calendar import days, set_time_axis
from hmm_exp.experiment.figures.decimate import column_means, column_times
from hmm_exp.experiment.figures.style import (
    ACCENT,
    FAINT,
    GREY,
    INK,
    WIDTH,
    add_axes,
    add_key,
    draw_lines,
    join,
    new_figure,
    number,
    padded,
    regime_colors,
    round_ticks,
    set_ticks,
)
from hmm_exp.experiment.figures.timeline import draw_stack

_ALARM = "#c2185b"  # no regime is magenta
_SCORE = "#8e5ea2"
_AREAS = 225  # columns of four pixels: single bars of a likelihood are noise
_HEIGHT, _PANEL, _FIRST = 760, 150, 104  # pixels
_HIGHEST = 1.5  # of a threshold: far beyond it a chart is drawn at the edge


def watch(
    rows: pd.DataFrame, bars: pd.DataFrame, labels: Sequence[str], *, subject: str = ""
) -> Figure:
    """What was seen against what was promised, the regimes, and the charts up to their threshold.

    Parameters
    ----------
    rows, bars
        As in `experiment.watch.Watch`.
    labels
        Names of the states, calm first.
    subject
        What the data is, for the line under the title.
    """
    charts = _charts(rows, bars, labels)
    time = rows.index.as_unit("ns").asi8
    crossed = [series.index[series.to_numpy() > 1.0] for series, _ in charts.values()]
    first = min((times[0] for times in crossed if len(times)), default=None)
    size = -(-len(rows) // _AREAS)
    figure = new_figure(
        _title(charts, first),
        join("Judged bars against the promise", f"mean of {size} bars" * (size > 1), subject),
        height=_HEIGHT,
    )
    place = iter(range(_FIRST, _HEIGHT, _PANEL + 12))
    shown = [("log-likelihood", rows, "log_lik")] + [("next-bar score", bars, "score")] * len(bars.columns[:1])
    for name, frame, column in shown:
        axes = _panel(figure, next(place), f"{name}\n(nats per bar)", time)
        _draw_pair(axes, frame, column)
    axes = _panel(figure, next(place), "regimes\n(probability)", time)
    draw_stack(axes, time, rows[[f"p_state_{k}" for k in range(len(labels))]].to_numpy(), regime_colors(len(labels)))
    axes.set_ylim(0, 1)
    set_ticks(axes, "y", (0, 0.5, 1), ("0", "0.5", "1"))
    axes = _panel(figure, next(place), "chart\n(1 = alarm)", time, last=True)
    return figure
