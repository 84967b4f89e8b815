"""Bokeh charts of a report, as JSON for the page.

Models that follow the page's light or dark theme carry a tag `{property: role}`; the page sets
the property to the role's colour. No text of the store is drawn here; it is in the page's HTML.
The page itself thins the timeline at each zoom (`report.js`).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from bokeh.embed import json_item
from bokeh.layouts import column
from bokeh.model import Model as BokehModel
from bokeh.models import (
    BasicTicker,
    BoxZoomTool,
    ColumnDataSource,
    CrosshairTool,
    CustomJS,
    CustomJSTickFormatter,
    DatetimeTickFormatter,
    FixedTicker,
    LogScale,
    NoOverlap,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    ResetTool,
    Span,
    WheelZoomTool,
)
from bokeh.plotting import figure

from hmm_exp.figures.palette import regime_colors
from hmm_exp.figures.scales import far_null
from hmm_exp.report.course import (
    CRITERIA,
    GAINS,
    Course,
    PageChart,
    PageCharts,
    bars_with_regimes,
    cumulative_gains,
)

_LOG_FROM = 3.0  # ratio of highest to lowest price from which the axis is logarithmic
_DASHES = {"full": "solid", "diag": "dashed", "tied": "dotted", "spherical": "dotdash"}


def draw(course: Course | None, criteria_by_states: pd.DataFrame) -> PageCharts:
    """Draw all charts of a page; `criteria_by_states` are those of a sweep, or empty."""
    spaces = criteria_by_states.groupby("space", sort=False) if len(criteria_by_states) else ()
    return PageCharts(
        timeline=None if course is None else timeline(course),
        criteria={str(space): criteria(rows) for space, rows in spaces},
    )


def timeline(course: Course) -> PageChart:
    """Price by regime, probabilities and cumulative gain over a common time axis."""
    bars = bars_with_regimes(course)
    seconds = (bars.index - bars.index[0]).total_seconds().to_numpy()
    source = ColumnDataSource(
        {"t": seconds.astype(np.uint32)} | {name: bars[name].to_numpy() for name in bars},
        name="bars",
    )
    start = bars.index[0].value / 1e6  # milliseconds since 1970, as Bokeh counts
    end = start + 1000 * float(seconds[-1])
    colors = regime_colors(len(course.labels))
    panels = _panels(course, bars, Range1d(start, end, name="time"), colors)
    first = course.regimes["split"].drop_duplicates()  # row of every part, in time order
    starts = dict(zip(first.astype(str), pd.DatetimeIndex(first.index), strict=True))
    _link(panels, list(starts.values())[1:])
    root = column(panels, sizing_mode="stretch_width")
    root.tags = [source]  # the page finds it by its name
    about = {
        "start": start,
        "labels": course.labels,
        "colors": colors,
        "price": "close" in bars,
        "log": "close" in bars and isinstance(panels[0].y_scale, LogScale),
        "parts": {name: at.value / 1e6 for name, at in starts.items()},
        "end": end,
    }
    return PageChart(_item(root), about)


def _panels(
    course: Course, bars: pd.DataFrame, x_range: Range1d, colors: Sequence[str]
) -> list[figure]:
    """Panels from top to bottom: price and gain only if they are recorded."""
    panels = [_probability_panel(x_range, colors)]
    if "close" in bars:
        panels.insert(0, _price_panel(bars["close"].to_numpy(), x_range, colors))
    if (gains := cumulative_gains(course)) is not None:
        panels.append(_gain_panel(gains, x_range))
    return panels


def _link(panels: list[figure], boundaries: list[pd.Timestamp]) -> None:
    """Give all panels the lines between parts, a shared crosshair and the page's events."""
    shared = Span(dimension="height", line_width=1)
    _follow(shared, line_color="grey")
    for panel in panels:
        for at in boundaries:
            edge = Span(dimension="height", location=at.value / 1e6, line_dash=[4, 3], line_width=1)
            _follow(edge, line_color="grey")
            panel.add_layout(edge)
        panel.add_tools(CrosshairTool(overlay=shared))
        panel.js_on_event("mousemove", _dispatch("at"))
        panel.js_on_event("mouseleave", _dispatch("gone"))
        panel.js_on_event("doubletap", _dispatch("whole"))
        panel.xaxis.visible = panel is panels[-1]


def _price_panel(close: np.ndarray, x_range: Range1d, colors: Iterable[str]) -> figure:
    low, high = float(np.nanmin(close)), float(np.nanmax(close))
    scale = "log" if high > _LOG_FROM * low > 0 else "linear"
    panel = _panel(330, x_range, y_range=Range1d(low, high, name="price"), y_axis_type=scale)
    panel.yaxis.ticker = BasicTicker(desired_num_ticks=6)
    panel.yaxis.formatter = NumeralTickFormatter(format="0,0.[0000]" if high < 1000 else "0,0")
    for k, color in enumerate([*colors, None]):
        source = ColumnDataSource({"x": [], "y": []}, name=f"price{k}")
        line = panel.line("x", "y", source=source, line_color=color, line_width=1.4)
        if color is None:  # before the first regime
            _follow(line.glyph, line_color="faint")
    return panel


def _probability_panel(x_range: Range1d, colors: Iterable[str]) -> figure:
    panel = _panel(130, x_range, y_range=Range1d(0, 1))
    panel.yaxis.ticker = FixedTicker(ticks=[0, 0.5, 1])
    panel.grid.visible = False
    colors = list(colors)
    names = ["x", *(f"y{k}" for k in range(len(colors) + 1))]
    blank = {name: [0.0, 0.0] for name in names}  # Bokeh hangs on a step area without rows
    source = ColumnDataSource(blank, name="probabilities")
    for k, color in enumerate(colors):
        area = {"x": "x", "y1": f"y{k}", "y2": f"y{k + 1}"}
        panel.varea_step(**area, source=source, fill_color=color, step_mode="after")
    return panel


def _gain_panel(course: pd.DataFrame, x_range: Range1d) -> figure:
    panel = _panel(150, x_range, y_range=Range1d(0, 1, name="gain"))
    panel.yaxis.ticker = BasicTicker(desired_num_ticks=5)
    panel.yaxis.formatter = CustomJSTickFormatter(
        code=r"return tick.toLocaleString('en').replace('-', '\u2212')"
    )
    data = {"x": course.index.to_numpy().view("int64") / 1e6}
    data |= {str(name): course[name].to_numpy(np.float32) for name in course}
    source = ColumnDataSource(data, name="course")
    for name in course:
        line = panel.line("x", name, source=source, line_width=1.6)
        _follow(line.glyph, line_color=GAINS[str(name)])
    zero = Span(dimension="width", location=0, line_width=1)
    _follow(zero, line_color="faint")
    panel.add_layout(zero)
    return panel


def _panel(height: int, x_range: Range1d, **options: Any) -> figure:
    """One panel of the timeline: drag or Ctrl and wheel to zoom."""
    panel = figure(
        height=height,
        x_range=x_range,
        x_axis_type="datetime",
        sizing_mode="stretch_width",
        toolbar_location=None,
        min_border_left=64,
        min_border_right=8,
        tools=[
            box := BoxZoomTool(dimensions="width"),
            PanTool(dimensions="width"),
            wheel := WheelZoomTool(dimensions="width", modifiers={"ctrl": True}),
            ResetTool(),
        ],
        output_backend="canvas",
        **options,
    )
    panel.toolbar.active_drag, panel.toolbar.active_scroll = box, wheel
    panel.xaxis.formatter = DatetimeTickFormatter(
        hours="%H:%M", days="%d %b", months="%b %Y", years="%Y"
    )
    _style(panel)
    return panel


def criteria(rows: pd.DataFrame) -> PageChart:
    """Criteria of one space by number of states, each minus its minimum.

    `rows` are those of `criteria_by_states` for one space. The page shows one criterion at a time.
    """
    panel = _small()
    kept: dict[str, list[str]] = {"names": []}
    for densities, group in rows.groupby("covariance", sort=False):
        covariance, _, heavy_tailed = str(densities).partition("-")
        group = _with_gaps(group.sort_values("bic").drop_duplicates("n_states"))
        data = {"x": group["n_states"].to_numpy(float)}
        for name in CRITERIA:
            if name in rows and rows[name].notna().any():
                data[name] = _above_lowest(rows, name, group)
        hollow = ~group["eligible"].fillna(False).astype(bool)
        source = ColumnDataSource(
            data | {"y": data["bic"], "hollow": np.where(hollow, 0.0, 1.0)},
            name=f"criterion-{densities}",
        )
        kept["names"].append(str(densities))
        line = panel.line("x", "y", source=source, line_dash=_DASHES[covariance], line_width=2)
        dots = panel.scatter("x", "y", source=source, size=7, fill_alpha="hollow")
        color = "square" if heavy_tailed else "ink"
        _follow(line.glyph, line_color=color)
        _follow(dots.glyph, line_color=color, fill_color=color)
    states = sorted(int(n) for n in rows["n_states"].unique())
    panel.xaxis.ticker = FixedTicker(ticks=states)
    panel.xaxis.axis_label = "number of states"
    panel.yaxis.formatter = NumeralTickFormatter(format="0,0")
    null_left_out = any(far_null(rows, name) for name in CRITERIA if name in rows)
    return PageChart(_item(panel), {"covariances": kept["names"], "null_left_out": null_left_out})


def _with_gaps(group: pd.DataFrame) -> pd.DataFrame:
    """A row for every number of states in the range; lines break at those that were not tried."""
    every = pd.RangeIndex(group["n_states"].min(), group["n_states"].max() + 1, name="n_states")
    return group.set_index("n_states").reindex(every).reset_index()


def _above_lowest(rows: pd.DataFrame, name: str, group: pd.DataFrame) -> np.ndarray:
    """A criterion minus its minimum; NaN for one state if that would dwarf the others."""
    excess = group[name] - rows[name].min()
    left_out = (group["n_states"] == 1) & far_null(rows, name)
    return np.where(left_out, np.nan, excess).astype(np.float64)


def _small() -> figure:
    """A small chart without tools."""
    panel = figure(
        height=190,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        min_border_left=48,
        min_border_right=8,
    )
    _style(panel)
    return panel


def _style(panel: figure) -> None:
    """Common style: hairlines, no box, grey text."""
    panel.background_fill_color = panel.border_fill_color = None
    panel.outline_line_color = None
    for axis in panel.axis:
        axis.minor_tick_line_color = axis.major_tick_line_color = None
        axis.major_label_policy = NoOverlap(min_distance=8)
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "11px"
        axis.axis_label_standoff, axis.major_label_standoff = 4, 6
        roles = {"axis_line_color": "faint", "major_label_text_color": "grey"}
        _follow(axis, **roles, axis_label_text_color="grey")
    for grid in panel.xgrid:
        grid.visible = False
    for grid in panel.ygrid:
        _follow(grid, grid_line_color="hair")


def _follow(model: BokehModel, **roles: str) -> None:
    """Make properties of a model follow the page's theme."""
    model.tags = [roles]


def _dispatch(event: str) -> CustomJS:
    """Pass a chart event on to the page."""
    return CustomJS(
        code=f"window.dispatchEvent(new CustomEvent('chart-{event}', {{detail: cb_obj.x}}))"
    )


def _item(root: BokehModel) -> dict[str, Any]:
    return dict(json_item(root))
