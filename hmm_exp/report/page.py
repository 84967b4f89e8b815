"""Render a report as one HTML page that loads nothing from elsewhere.

The template engine escapes all text of the store; chart data is JSON without `<`.
"""

import ast
import base64
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import jinja2
import pandas as pd
from bokeh.resources import Resources
from markupsafe import Markup, escape

import hmm_exp
from hmm_exp.figures.palette import DARK, regime_colors
from hmm_exp.judge.strategy_words import in_words
from hmm_exp.judge.wording import capitalize, percent
from hmm_exp.market.iso import iso
from hmm_exp.report import board, tables
from hmm_exp.report.collect import RecordedRun, Subject
from hmm_exp.report.course import CRITERIA, Course, PageChart, PageCharts, gains_of
from hmm_exp.report.picture import darkened
from hmm_exp.report.plots import Plot, autocorrelations, quantiles
from hmm_exp.report.words import verdict
from hmm_exp.tracking import tags
from hmm_exp.tracking.runs import called

TEMPLATES = Path(__file__).parent / "templates"
DRAW = "hmm_exp.report.charts:draw"
# Begins to draw, and gives what waits for the charts.
Draw = Callable[[Course | None, pd.DataFrame], Callable[[], PageCharts]]


def template(name: str) -> jinja2.Template:
    """Read a template of `TEMPLATES`; it escapes every text that it is given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"typeset": typeset, "setting": setting, "percent": percent}
    environment.filters["sentence"] = capitalize
    return environment.get_template(name)


def render(subject: Subject, draw: Draw | None = None) -> str:
    """Render a sweep or a run as an HTML page; `draw` draws its charts elsewhere meanwhile."""
    course = subject.model.course if subject.model else None
    charts = (draw or _draw_here)(course, subject.criteria)
    run = subject.model.run if subject.model else next(iter(subject.cells), subject.main)
    started = datetime.fromtimestamp(subject.main.info.start_time // 1000, UTC)
    return template("report.html").render(
        **assets("report.css", "shared.js", "report.js"),
        bokeh=_charts_library(),
        **_model_parts(subject.model),
        **_sweep_parts(subject),
        **_chart_parts(charts()),
        subject=subject,
        verdict=verdict(subject),
        title=run.data.tags.get(tags.INSTRUMENT, "regimes"),
        main=subject.main,
        sweep_id=subject.main.data.tags.get(tags.SWEEP_ID, ""),
        again=_recreate_command(subject),
        made=iso(datetime.now(UTC).replace(microsecond=0)),
        started=iso(started),
        version=hmm_exp.__version__,
    )


def _draw_here(course: Course | None, criteria: pd.DataFrame) -> Callable[[], PageCharts]:
    return lambda: resolve_name(DRAW)(course, criteria)


def assets(*names: str) -> dict[str, Markup]:
    """Style sheets and scripts of a page, by their suffix."""
    return {
        kind: Markup(
            "\n".join((TEMPLATES / name).read_text() for name in names if name.endswith(f".{kind}"))
        )
        for kind in ("css", "js")
    }


def _charts_library() -> Markup:
    return Markup("\n".join(Resources("inline", components=["bokeh"], log_level="warn").js_raw))


def _recreate_command(subject: Subject) -> str:
    """The command that recreates this page."""
    if subject.is_sweep:
        return f"python -m hmm_exp.report --sweep {subject.main.data.tags[tags.SWEEP_ID]}"
    return f"python -m hmm_exp.report --run {subject.main.info.run_id}"


def _model_parts(model: RecordedRun | None) -> dict[str, Any]:
    if model is None:
        return {"model": None}
    return {
        "model": model,
        "regimes": tables.regimes(model),
        "regime_now": model.run.data.tags.get(tags.REGIME_NOW, ""),
        "gains": [*gains_of(model.course)],
        "baselines": tables.baselines(model),
        "transitions": tables.transitions(model),
        "dwells": tables.dwells(model),
        "moments": tables.moments(model),
        "estimates": tables.estimates(model),
        "no_errors": model.run.data.tags.get(tags.NO_ERRORS, ""),
        "next_bars": tables.next_bars(model),
        "strategies": tables.strategies(model),
        "strategy_words": None if model.strategies is None else in_words(model.strategies),
        "strategy_figures": [*_pictures(model)],
        "effects": tables.effects(model),
        "residuals": [*_residual_plots(model)],
        "facts": [*tables.facts(model)],
        "space": model.run.data.tags[tags.OBSERVATION_SPACE].split("#")[0],
        "n_rows": len(model.regimes),
    }


def _pictures(model: RecordedRun) -> Iterator[tuple[str, str]]:
    """Theme and address of the strategy figure; the address holds the picture itself."""
    png = model.strategy_figure
    if png is not None:
        dark = darkened(png, DARK, regime_colors(len(model.labels)))
        for theme, picture in (("light", png), ("dark", dark)):
            yield theme, f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def typeset(text: str) -> Markup:
    """A text for the page: minus signs, `Student-t` on one line, names that break after `_`."""
    html = str(escape(with_minus(text)))
    html = re.sub(r"\b([A-Za-z]\w*-\w)\b(?!-)", r'<span class="whole">\1</span>', html)
    return Markup(html.replace("_", "_<wbr>"))


def with_minus(text: str) -> str:
    """A text with minus signs before its negative numbers."""
    return re.sub(r"(?<![\w-])-(?=[.\d])", "−", text)


def setting(value: str) -> str:
    """A recorded setting as the command line takes it: `[1H,4H]`, `true`, `null`."""
    try:
        return _override(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


def _override(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_override, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_override(one)}' for key, one in value.items())}}}"
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value))


def _residual_plots(model: RecordedRun) -> Iterator[tuple[str, str, list[Plot]]]:
    """Name, note, and plots of quantiles and autocorrelations of each series shown."""
    if model.residuals is None:
        return
    for name in tables.worst_series(model):
        rows = model.residuals[model.residuals["series"] == name]
        if len(rows):
            plot, note = quantiles(rows)
            yield name, note, [plot, autocorrelations(rows)]


def _sweep_parts(subject: Subject) -> dict[str, Any]:
    return {
        "board": board.rows(subject) if len(subject.table) else [],
        "failures": board.failures(subject),
        "called": called,
        "missing": board.missing(subject),
        "heatmaps": [
            (title, board.heatmap(subject, metric))
            for title, metric in (
                ("over the static Student-t", "return_gain_val"),
                ("over the EWMA Student-t", "ewma_gain_val"),
            )
        ],
        "criteria_names": [name for name in CRITERIA if name in subject.criteria],
    }


def _chart_parts(charts: PageCharts) -> dict[str, Any]:
    return {
        "timeline": charts.timeline and _json(charts.timeline),
        "criteria": [
            (space, chart.about, _json(chart)) for space, chart in charts.criteria.items()
        ],
    }


def _json(chart: PageChart) -> Markup:
    return script_json({"item": chart.item, "about": chart.about})


def script_json(content: Any) -> Markup:
    """JSON that is safe inside a script element, whatever its strings contain."""
    text = json.dumps(content, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))
