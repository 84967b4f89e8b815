"""The report of a sweep: content of the page, no outside resources, and its controls."""

import base64
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from hmm_exp.commands import promote
from hmm_exp.errors import TrackingError
from hmm_exp.figures.palette import regime_colors
from hmm_exp.judge.return_forecasts import GAINS
from hmm_exp.judge.strategy_words import in_words
from hmm_exp.judge.unscored import FORECASTS
from hmm_exp.market.iso import write_csv
from hmm_exp.report.board import heatmap
from hmm_exp.report.collect import Subject, read_run, read_sweep
from hmm_exp.report.course import UNKNOWN, bars_with_regimes
from hmm_exp.report.log import report_line
from hmm_exp.report.page import TEMPLATES, render
from hmm_exp.report.tables import baselines
from hmm_exp.report.words import verdict
from hmm_exp.store.store import Store
from hmm_exp.tracking import tags
from hmm_exp.tracking.ui import plain
from tests.test_train_cli import runs_of, store_of

EVIL = "<img src=x onerror=\"document.title='gone'\"></script><b>"
# Empty elements that HTML never closes.
VOID = {"meta", "link", "input", "br", "img", "hr", "wbr"}


@dataclass
class Page(HTMLParser):
    """A page as a parser sees it: its elements, its text by section, and whether they nest."""

    opened: list[str] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    inside: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.opened.append(tag)
        if tag == "section":
            self.inside = dict(attrs)["id"]

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if not {"script", "style"} & set(self.opened):
            self.sections[self.inside] = self.sections.get(self.inside, "") + data


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


@pytest.fixture(scope="session")
def report_cli(warm):
    return partial(warm.run, module="hmm_exp.report")


@pytest.fixture(scope="module")
def client(reported_sweep) -> MlflowClient:
    return store_of(reported_sweep[0])


@pytest.fixture(scope="module")
def subject(client) -> Subject:
    return read_sweep(client, "latest")


@pytest.fixture(scope="module")
def page(subject) -> Page:
    return parsed(render(subject))


def test_a_sweep_ends_with_its_report(reported_sweep, client):
    folder, done = reported_sweep
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("report: ")]
    html = (folder / line.removeprefix("report: ")).read_text()
    (parent,) = runs_of(client, "sweep")
    assert parent.info.run_id in line
    assert parsed(html).sections["verdict"]
    assert done.stdout.strip().splitlines()[-1].startswith("regime at ")


def test_the_verdict_names_winner_margin_cells_tried_and_the_gate(subject, page):
    text = page.sections["verdict"]
    metrics = subject.model.metrics
    assert subject.model.name in text
    assert f"{metrics['return_gain_val']:+.4f}" in text
    assert f"{metrics['return_gain_val_low']:+.4f}".replace("-", "−") in text
    assert "The best of 4 cells" in text
    assert "White's p = " in text
    assert "Gate off: promoted" in text
    assert "2 cells did not finish" in text
    for label in subject.model.labels:
        assert label in text
    assert "regime at" in text.lower()


def test_regimes_have_the_colours_of_the_figures(subject, page):
    styles = " ".join(attrs.get("style") or "" for _, attrs in page.elements)
    for color in regime_colors(len(subject.model.labels)):
        assert f"background:{color}" in styles


def test_every_part_is_there(subject, page):
    parts = ("through-time", "states", "board", "search", "criteria", "residuals", "failed")
    parts = (*parts, "strategies")
    for part in (*parts, "reproduce"):
        assert page.sections[part].strip(), part
    assert not page.opened
    assert "python -m hmm_exp.train -m model.n_states=2,3" in page.sections["reproduce"]
    assert "numpy==" in page.sections["reproduce"]
    for run in subject.cells:
        assert run.info.run_id[:8] in page.sections["board"]


def test_parameters_have_their_standard_errors(client, subject, page):
    text = page.sections["states"]
    labels = subject.model.labels
    n_features = len(subject.model.tables["state_means"].columns)
    missing = subject.model.run.data.tags.get(tags.NO_ERRORS, "")
    n_parameters = len(labels) * (len(labels) + 2 * n_features) - missing.count(" to ")
    assert f"Standard errors of {n_parameters} parameters" in text
    assert f"{labels[0]} → {labels[1]}" in text
    run_id = subject.model.run.info.run_id
    client.set_tag(run_id, tags.NO_ERRORS, "no errors: the fit is degenerate")
    try:
        again = parsed(render(read_run(client, run_id))).sections["states"]
    finally:
        client.set_tag(run_id, tags.NO_ERRORS, missing)
    assert "Standard errors: no errors: the fit is degenerate." in again


def test_strategies_are_tabled_with_the_verdict_and_the_picture(subject, page):
    rows = subject.model.strategies
    text = page.sections["strategies"]
    assert in_words(rows).verdict[1:] in text
    assert in_words(rows).judged[1:] in text
    assert f"{rows['sharpe'][0]:.2f}".replace("-", "−") in text
    assert text.count("200-bar average") == 4
    assert ("img", "picture") not in [(tag, attrs.get("class")) for tag, attrs in page.elements]
    Image.new("RGB", (2, 2), "white").save(png := BytesIO(), "PNG")
    model = replace(subject.model, strategy_figure=png.getvalue())
    drawn = parsed(render(replace(subject, model=model)))
    light, dark = [attrs for tag, attrs in drawn.elements if tag == "img"]
    assert light["class"] == "picture by-light"
    assert dark["class"] == "picture by-dark"
    assert base64.b64decode(light["src"].partition(",")[2]) == png.getvalue()


def test_a_table_with_empty_columns_is_shown(client, subject, tmp_path):
    """A file gives no type to a column without a value."""
    winner = subject.model.run.info.run_id
    (other,) = [
        run.info.run_id
        for run in subject.cells
        if run.info.status == "FINISHED" and run.info.run_id != winner
    ]
    empty = {"note": "", "invested": "", "sharpe_p": np.nan, "sharpe_low": np.nan}
    write_csv(subject.model.strategies.assign(**empty), tmp_path / "strategy.csv")
    client.log_artifact(other, str(tmp_path / "strategy.csv"))
    text = parsed(render(read_run(client, other))).sections["strategies"]
    assert "none at delay 1" in text
    assert "n/a" in text


def test_a_run_without_strategies_has_no_such_section(subject):
    model = replace(subject.model, strategies=None, strategy_figure=None)
    assert "strategies" not in parsed(render(replace(subject, model=model))).sections


def test_failed_cells_are_named_with_their_reason(subject, page):
    assert len(subject.unfinished) == 2
    for run in subject.unfinished:
        assert run.data.tags[tags.CELL] in page.sections["failed"]
        assert run.data.tags[tags.STATUS_REASON] in page.sections["failed"]


def test_the_page_loads_nothing(page):
    for tag, attrs in page.elements:
        assert tag not in {"iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "data"):
            where = attrs.get(name) or ""
            assert not where or where.startswith(("#", "data:")), f"{tag} {name}={where}"
    css = (TEMPLATES / "report.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_text_of_the_store_is_never_markup(client):
    (failed, *_) = [run for run in runs_of(client, "cell") if run.info.status == "FAILED"]
    before = failed.data.tags[tags.STATUS_REASON]
    (parent,) = runs_of(client, "sweep")
    for run, name in ((failed, tags.STATUS_REASON), (failed, tags.CELL), (parent, tags.VERDICT)):
        client.set_tag(run.info.run_id, name, EVIL)
    winner = parent.data.tags[tags.WINNER]
    name = client.get_run(winner).data.tags[tags.INSTRUMENT]
    client.set_tag(winner, tags.INSTRUMENT, EVIL)
    try:
        html = render(read_sweep(client, "latest"))
    finally:
        client.set_tag(winner, tags.INSTRUMENT, name)
        client.set_tag(failed.info.run_id, tags.STATUS_REASON, before)
        client.set_tag(failed.info.run_id, tags.CELL, failed.data.tags[tags.CELL])
        client.set_tag(parent.info.run_id, tags.VERDICT, parent.data.tags[tags.VERDICT])
    page = parsed(html)
    assert EVIL in page.sections["failed"]
    assert not [attrs for tag, attrs in page.elements if tag == "img" or "onerror" in attrs]


def test_the_command_makes_the_same_report_again(
    report_cli, reported_sweep, subject, page, tmp_path
):
    folder, _ = reported_sweep
    sweep_id = subject.main.data.tags[tags.SWEEP_ID]
    done = report_cli(folder, "--sweep", sweep_id, "--output", str(tmp_path / "again.html"))
    assert done.stdout == f"report: {tmp_path / 'again.html'}\n"
    again = parsed((tmp_path / "again.html").read_text())
    for name in ("verdict", "states", "board", "failed"):
        assert again.sections[name] == page.sections[name]
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_a_run_has_a_report_of_the_same_make(client, subject):
    run_id = subject.model.run.info.run_id
    text = parsed(render(read_run(client, run_id))).sections
    assert f"regimes, model {subject.model.name}" in text[""]
    assert "board" not in text
    assert text["states"].strip()
    assert f"--run {run_id}" in text["reproduce"]


def test_bad_input_is_one_line(report_cli, reported_sweep):
    lines = {
        (
            "--sweep",
            "never",
        ): f"error: no sweep never in this store (sqlite:///{reported_sweep[0]}/mlflow.db)\n",
        (): "error: one of the arguments --sweep --run is required (see --help)\n",
    }
    for words, line in lines.items():
        done = report_cli(reported_sweep[0], *words)
        assert (done.returncode, done.stderr) == (2, line)


def test_what_is_no_finished_run_has_no_report(client, subject):
    failed = subject.unfinished[0]
    wrong = {
        "0" * 32: "no run 0000",
        subject.main.info.run_id: "is a sweep: use --sweep",
        failed.info.run_id: f"is FAILED: {failed.data.tags[tags.STATUS_REASON]}",
    }
    for run_id, reason in wrong.items():
        with pytest.raises(TrackingError, match=re.escape(reason)):
            read_run(client, run_id)


def test_help_has_examples_and_imports_no_charts(tmp_path):
    command = [sys.executable, "-m", "hmm_exp.report", "--help"]
    shown = subprocess.check_output(command, cwd=tmp_path, text=True)
    assert "--sweep latest" in shown
    program = (
        "import sys\nfrom hmm_exp.report.__main__ import parse\nimport hmm_exp.callback\n"
        "sys.exit(' '.join({'bokeh', 'mlflow', 'pandas', 'jinja2'} & set(sys.modules)) or 0)"
    )
    light = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert light.returncode == 0, light.stderr


def test_a_report_that_cannot_be_made_costs_a_warning(client):
    store = Store("", "1", "hmm_exp", client)
    line = report_line(store, "never")
    assert line.startswith("warning: no report (no sweep never")
    assert line.endswith("retry: python -m hmm_exp.report --sweep never")


def test_without_a_winner_the_report_says_so(subject):
    html = render(replace(subject, model=None, rival=None))
    text = parsed(html).sections
    assert "No model won" in text[""]
    assert "through-time" not in text
    assert text["board"].strip()


def test_a_hundred_thousand_bars_fit_in_five_megabytes(subject):
    model = subject.model
    n = 100_000
    index = pd.date_range("2010-01-01", periods=n, freq="h")
    many = replace(
        model,
        regimes=model.regimes.iloc[np.arange(n) % len(model.regimes)].set_axis(index),
        scores=model.scores.iloc[np.arange(n) % len(model.scores)].set_axis(index),
    )
    assert len(render(replace(subject, model=many)).encode()) < 5_000_000


def test_the_timeline_shows_at_each_close_what_was_known_then(subject):
    model = subject.model
    every_fourth = replace(model, regimes=model.regimes.iloc[::4])  # as of a coarser timeframe
    shown = bars_with_regimes(every_fourth)
    rows = every_fourth.regimes
    assert (shown.loc[shown.index < rows.index[0], "state"] == UNKNOWN).all()
    at = shown.index[shown.index >= rows.index[0]]
    latest = rows.index.searchsorted(at, side="right") - 1
    decided = rows["regime"].where(rows["regime"] >= 0, UNKNOWN).to_numpy()
    assert (decided != rows["state"]).any()
    assert (shown.loc[at, "state"] == decided[latest]).all()
    cut = rows.index[len(rows) // 2]
    future = rows.copy()
    future.loc[future.index > cut, ["regime", "p_state_0"]] = [1, 0.123]
    rewritten = bars_with_regimes(replace(model, regimes=future))
    pd.testing.assert_frame_equal(rewritten[:cut], shown[:cut])


def test_the_terminal_gives_the_sentences_of_the_report_before_the_promotion(
    reported_sweep, subject, capsys
):
    found = verdict(subject)
    sentences = [found.headline, f"believe it? {found.belief}"]
    lines = reported_sweep[1].stdout.splitlines()
    start = lines.index(sentences[0])
    assert lines[start : start + 2] == sentences
    assert lines[start + 2].startswith("promoted: ")
    where = ("--tracking-uri", f"sqlite:///{reported_sweep[0]}/mlflow.db", "--dry-run")
    winner = subject.model.run.info.run_id
    for words in (("--sweep", "latest"), ("--run", winner)):
        capsys.readouterr()
        assert promote.main([*words, *where]) == 0
        *_, opening, believed, outcome = capsys.readouterr().out.splitlines()
        assert [opening, believed] == sentences
        assert outcome.endswith("already is this model (version 1)")


def test_the_page_of_the_sweep_in_the_ui_holds_the_verdict(client, subject):
    (parent,) = runs_of(client, "sweep")
    assert plain(verdict(subject).belief) in parent.data.tags[tags.NOTE]


def test_only_what_is_shown_on_test_is_believed(subject):
    metrics = subject.model.run.data.metrics

    def belief(*bounds: float) -> str:
        changed = {
            f"{gain}_test{end}": bound
            for gain, bound in zip(GAINS, bounds, strict=True)
            for end in ("", "_low", "_bound", "_high")
        }
        before = {name: metrics[name] for name in changed}
        metrics.update(changed)
        try:
            return verdict(subject).belief
        finally:
            metrics.update(before)

    assert belief(0.1, 0.1, 0.1, 0.1, 0.1).startswith("Yes")
    assert belief(0.1, -0.1, 0.1, 0.1, 0.1).startswith("In part")
    assert belief(-0.1, 0.1, 0.1, 0.1, 0.1).startswith("No")
    assert belief(0.1, 0.1, -0.1, 0.1, -0.1) == (
        "In part: on test it forecasts the next bar better than the static Student-t (+0.1000, "
        "+0.1000 to +0.1000), the EWMA Student-t (+0.1000, +0.1000 to +0.1000) and the EWMA "
        "Student-t by hour (+0.1000, +0.1000 to +0.1000), but worse than the range EWMA Student-t "
        "(-0.1000, -0.1000 to -0.1000) and the range EWMA Student-t by hour (-0.1000, -0.1000 to "
        "-0.1000); nats per bar"
    )


@pytest.mark.parametrize(
    ("low", "high", "passed", "words"),
    [
        (0.1, 0.2, True, "On test it forecasts better than the EWMA Student-t"),
        (-0.1, 0.1, False, "On test it forecasts about as well as the EWMA Student-t"),
        (-0.2, -0.1, False, "On test it forecasts worse than the EWMA Student-t"),
    ],
)
def test_a_check_of_a_gain_is_worded_by_its_interval(subject, low, high, passed, words):
    ends = {"_low": low, "_bound": low, "_high": high, "": 0.5 * (low + high)}
    metrics = subject.model.run.data.metrics
    changed = {f"ewma_gain_test{end}": value for end, value in ends.items()}
    before = {name: metrics[name] for name in changed}
    metrics.update(changed)
    try:
        checks = verdict(subject).checks
    finally:
        metrics.update(before)
    assert [check.passed for check in checks if check.text == words] == [passed]


def test_a_baseline_without_a_score_gets_no_claim(subject):
    metrics = subject.model.run.data.metrics
    before = {name: metrics[name] for name in metrics if name.startswith("ewma_gain_test")}
    for name in before:
        del metrics[name]
    try:
        checks = verdict(subject).checks
    finally:
        metrics.update(before)
    (check,) = [check for check in checks if check.text.endswith("the EWMA Student-t")]
    assert (check.passed, check.text.split(" the ")[0]) == (None, "On test it is not compared with")


def test_the_gain_over_every_baseline_is_tabled(subject):
    table = baselines(subject.model)
    assert [name for name, _ in table.rows] == [
        "static Student-t",
        "EWMA Student-t",
        "range EWMA Student-t",
        "EWMA Student-t by hour",
        "range EWMA Student-t by hour",
    ]
    metrics = subject.model.metrics
    for gain, (_, cells) in zip(GAINS, table.rows, strict=True):
        shown = [f"{metrics[f'{gain}_{end}']:+.4f}" for end in ("val", "test", "test_bound")]
        assert [cell.text.replace("−", "-") for cell in cells[:3]] == shown
    added = subject.model.tables["added_gain"]
    (strongest,) = [name for name, cells in table.rows if cells[-1].mark]
    gain = {name: f"{metrics[f'added_gain_{name}']:+.4f}" for name in ("val", "test")}
    cells = [cell.text.replace("−", "-") for cell in dict(table.rows)[strongest][3:5]]
    assert cells == [gain["val"], gain["test"]]
    assert FORECASTS[added["strongest"].idxmax()] == f"the {strongest}"
    assert "range EWMA Student-t by hour" in parsed(render(subject)).sections["baselines"]


@pytest.mark.parametrize(
    ("gain", "text"),
    [
        *((0.2492, "+.249"), (-0.05, "−.050"), (0.0, ".000"), (1.05, "+1.050")),
        *((-10.25, "−10.250"), (100.5, "+100.500")),
    ],
)
def test_a_heatmap_leaves_out_only_a_leading_zero(subject, gain, text):
    run = next(run for run in subject.cells if "return_gain_val" in run.data.metrics)
    before = run.data.metrics["return_gain_val"]
    run.data.metrics["return_gain_val"] = gain
    try:
        ((_, (cell,)),) = heatmap(replace(subject, cells=[run]), "return_gain_val").rows
    finally:
        run.data.metrics["return_gain_val"] = before
    assert cell.text == text
