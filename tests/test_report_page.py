"""The report page in a real browser, wide and narrow, light and dark; and its colours."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bokeh.document import Document

from hmm_exp.judge.residuals import ResidualLimits
from hmm_exp.report import charts, plots, tables
from hmm_exp.report.collect import Subject, read_sweep
from hmm_exp.report.page import TEMPLATES, render
from hmm_exp.report.words import verdict
from hmm_exp.tracking import tags
from tests.browsed import READABLE, RGB, TEXTS, WIDTHS, contrast, framed, mixed
from tests.test_report import parsed
from tests.test_train_cli import store_of


@pytest.fixture(scope="module")
def subject(reported_sweep) -> Subject:
    return read_sweep(store_of(reported_sweep[0]), "latest")


def themes() -> list[dict[str, RGB]]:
    """The custom properties of every theme block of the style sheet: one light, two dark."""
    css = (TEMPLATES / "report.css").read_text()
    found = []
    for block in re.findall(r":root[^{]*\{([^}]*--paper[^}]*)\}", css):
        theme = {}
        for name, value in re.findall(r"--([\w-]+): ([^;]+);", block):
            digits = value.removeprefix("#")
            wide = "".join(2 * c for c in digits) if len(digits) == 3 else digits
            parts = (
                value.split(",") if "," in value else [int(wide[i : i + 2], 16) for i in (0, 2, 4)]
            )
            theme[name] = tuple(float(part) for part in parts)
        found.append(theme)
    return found


def test_both_dark_themes_are_the_same_and_differ_from_the_light_one():
    light, dark, system = themes()
    assert dark == system
    assert dark != light
    assert set(dark) == set(light)


def shades() -> Iterator[tuple[str, float]]:
    """Colour and largest share of every shading of a table."""
    css = (TEMPLATES / "report.css").read_text()
    for name, share in re.findall(r"rgba\(var\(--(\w+-rgb)\), (?:calc\(.*?\* )?(\.\d+)", css):
        yield name, float(share)


@pytest.mark.parametrize("theme", themes())
def test_every_text_colour_is_readable_on_every_ground(theme):
    grounds = {"paper": theme["paper"], "code": theme["code"], "hair": theme["hair"]}
    for role, ground in itertools.product(("ink", "grey"), grounds):
        assert contrast(theme[role], grounds[ground]) >= READABLE, (role, ground)
    for role in ("accent", "below", "square"):
        assert contrast(theme[role], theme["paper"]) >= READABLE, role
    shaded = [*shades()]
    assert {name for name, _ in shaded} == {"accent-rgb", "below-rgb"}
    for name, share in shaded:
        ground = mixed(theme[name], share, theme["paper"])
        assert contrast(theme["ink"], ground) >= READABLE, (name, share)


NORMALISED = ["'Open' read as open", "rows sorted by time"]


@pytest.fixture(scope="module")
def address(subject, tmp_path_factory) -> str:
    """A page with long names, warnings, dropped rows, untried numbers of states and outliers."""
    model = subject.model
    run = model.run
    notes = {"normalised": NORMALISED, "dropped": {"a missing or infinite number": 1166}}
    residuals = model.residuals.copy()
    residuals.loc[residuals["kind"] == "quantile", "value"] *= 2.0
    known = {
        tags.GATE_DECISION: "promoted",
        tags.GATE_REASONS: "its lower bound -0.0126 is not above zero",
        tags.INSTRUMENT: "a_perpetual_future_of_one_exchange_" * 3,
    }
    before = dict(run.data.tags)
    run.data.tags.update(known)
    try:
        html = render(
            replace(
                subject,
                model=replace(model, data=model.data | notes, residuals=residuals),
                criteria=criteria_of((1, 2, 3, 5)),
            )
        )
    finally:
        run.data.tags.clear()
        run.data.tags.update(before)
    path = tmp_path_factory.mktemp("narrow") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


def criteria_of(states: tuple[int, ...], space: str = "v1@1H") -> pd.DataFrame:
    values = {name: [900.0, 30.0, 10.0, 0.0][: len(states)] for name in ("bic", "aic")}
    same = {"space": space, "covariance": "diag", "eligible": True}
    return pd.DataFrame({"n_states": states} | values | same)


LOOK = (
    "() => {"
    + TEXTS
    + """
  const labels = [".parts span", ".key > span, .ranges button", ".regimes li", ".checks li"]
    .map((group) => [...document.querySelectorAll(group)].map((el) => [el.textContent, box(el)]));
  const tables = [...document.querySelectorAll(".scroll")].map((place) => {
    const name = place.querySelector("tbody th"), hint = place.previousElementSibling.textContent;
    const cut = place.classList.contains("more"), before = box(name)[0];
    place.scrollLeft = 120;
    const moved = [before, box(name)[0], box(name)[2] - before];
    place.scrollLeft = 0;
    const width = place.clientWidth;
    return { wide: place.scrollWidth > width + 1, cut, hint, moved, width };
  });
  return { texts, labels, tables, width: document.documentElement.scrollWidth,
           shown: document.body.innerText };
}"""
)


FITTED = """() => {
  const place = document.querySelector("#timeline").clientWidth;
  const panels = [...window.report.doc.all_models].filter((model) => model.type === "Figure");
  return panels.every((panel) => Math.abs(place - panel.inner_width - 72) < 12);
}"""


@pytest.fixture(scope="module")
def looks(browser, address) -> dict[tuple[str, int], dict]:
    """What the browser lays out, by colour scheme and width."""
    found = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        tab = context.new_page()
        tab.set_viewport_size({"width": WIDTHS[0], "height": 900})
        tab.goto(address)
        drawn(tab)
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            tab.wait_for_function(FITTED)
            tab.wait_for_timeout(200)  # two frames: the names follow in the next
            found[scheme, width] = tab.evaluate(LOOK)
        context.close()
    return found


def test_no_page_is_wider_than_its_window(looks):
    assert {width: look["width"] for (_, width), look in looks.items()} == {w: w for w in WIDTHS}


def test_labels_do_not_overlap(looks):
    for (_, width), look in looks.items():
        parts, *_ = look["labels"]
        assert [text for text, _ in parts] in (
            ["train", "validation", "test"],
            ["train", "val", "test"],
        )
        for group in look["labels"]:
            assert len(group) >= 2
            for (one, a), (other, b) in itertools.combinations(group, 2):
                across, along = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                assert across <= 0 or along <= 0, f"{one} overlaps {other} at {width}"
            assert all(b[0] >= 0 and b[2] <= width for _, b in group)


def test_every_text_is_readable_in_light_and_dark(looks):
    for place, look in looks.items():
        assert len(look["texts"]) > 150
        for text, color, layers in look["texts"]:
            ground = (255.0, 255.0, 255.0)
            for *top, share in reversed(layers):
                ground = mixed(tuple(top), share, ground)
            assert contrast(mixed(color[:3], color[3], ground), ground) >= READABLE, (place, text)


def test_wide_tables_say_that_they_scroll_and_keep_their_names_and_numbers_in_view(looks):
    for (_, width), look in looks.items():
        for table in look["tables"]:
            assert table["wide"] == table["cut"] == ("scroll sideways" in table["hint"])
            before, after, names = table["moved"]
            assert after == pytest.approx(before, abs=1)
            assert names < 0.5 * table["width"]
        assert width > 400 or any(table["wide"] for table in look["tables"])


def test_no_raw_json_is_shown(looks):
    for look in looks.values():
        assert not re.search(r'\{"|\["|": ', look["shown"])
        assert "; ".join(NORMALISED) in look["shown"]
        assert "1,166 with a missing or infinite number" in look["shown"]


def test_the_last_bar_closes_when_the_regime_is_known(subject, looks):
    now = subject.model.run.data.tags[tags.REGIME_NOW]
    stamp = re.search(r"regime at (\S+):", now)[1]
    assert any(f"to {stamp}" in look["shown"] for look in looks.values())


@pytest.mark.parametrize(
    ("stamp", "step", "shown"),
    [
        ("open", "1H", "closed 2024-01-01T01:00:00Z to 2024-01-03T00:00:00Z"),
        ("open", "1D", "closed 2024-01-02T00:00:00Z to 2024-01-03T23:00:00Z"),
        ("open", "0 days 00:00:30", "closed 2024-01-01T00:00:30Z to 2024-01-02T23:00:30Z"),
        ("close", "1H", "closed 2024-01-01T00:00:00Z to 2024-01-02T23:00:00Z"),
    ],
)
def test_facts_give_closes_whatever_the_stamp_means(subject, stamp, step, shown):
    data = {"first": "2024-01-01 00:00", "last": "2024-01-02 23:00", "rows_used": 48}
    model = replace(subject.model, data=data | {"bar_stamp": stamp, "step": step})
    assert dict(tables.facts(model))["bars"] == f"48 of {step}, {shown}"


@pytest.mark.parametrize(
    ("decision", "reasons", "sign"),
    [
        ("promoted", "", "✓"),
        ("promoted", "its lower bound -0.0126 is not above zero", "–"),
        ("refused", "its lower bound -0.0126 is not above zero", "✗"),
        ("unchanged", "", "–"),
    ],
)
def test_a_promotion_with_a_warning_has_no_tick(subject, decision, reasons, sign):
    known = subject.model.run.data.tags
    before = dict(known)
    known.update({tags.GATE_DECISION: decision, tags.GATE_REASONS: reasons})
    try:
        (gate,) = [c for c in verdict(subject).checks if c.text.startswith("Gate ")]
    finally:
        known.clear()
        known.update(before)
    assert gate.sign == sign


def test_criteria_join_only_neighbours_and_name_a_left_out_null():
    chart = charts.criteria(criteria_of((1, 2, 3, 5)))
    (source,) = Document.from_json(chart.item["doc"]).select({"name": "criterion-diag"})
    drawn_at = np.isfinite(np.asarray(source.data["y"], dtype=float))
    assert drawn_at.tolist() == [False, True, True, False, True]
    assert chart.about["null_left_out"]
    assert not charts.criteria(criteria_of((2, 3))).about["null_left_out"]


def test_of_cells_with_one_number_of_states_the_page_draws_the_lowest():
    rows = pd.concat([criteria_of((2, 3)), criteria_of((2, 3)).assign(bic=[900.0, 950.0])])
    chart = charts.criteria(rows)
    (source,) = Document.from_json(chart.item["doc"]).select({"name": "criterion-diag"})
    lowest = rows.groupby("n_states")["bic"].min()
    assert np.asarray(source.data["y"]).tolist() == (lowest - lowest.min()).tolist()


def test_quantiles_beyond_the_plot_are_counted(subject):
    rows = pd.DataFrame(
        {"kind": "quantile", "x": [-4.0, 0.0, 4.0, 4.2], "value": [-7.0, 0.0, 4.0, 5.0]}
    )
    _, note = plots.quantiles(rows)
    assert note == "2 of 4 points beyond ±4.1, at the edge"
    residuals = subject.model.residuals.copy()
    residuals.loc[residuals["kind"] == "quantile", "value"] = 0.1
    model = replace(subject.model, residuals=residuals)
    text = parsed(render(replace(subject, model=model))).sections["residuals"]
    assert "points beyond" not in text
    assert str(ResidualLimits().memory) in text


@pytest.fixture(scope="module")
def html(subject, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(subject), encoding="utf-8")
    return path


@pytest.fixture
def view(browser, html):
    """The report in its own tab, all charts drawn; no console error, nothing fetched."""
    context = browser.new_context(color_scheme="light", viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    complaints, asked = [], []
    tab.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(html.as_uri())
    drawn(tab)
    yield tab
    context.close()
    assert not complaints
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def drawn(tab) -> None:
    tab.wait_for_selector("html[data-ready=true]", state="attached", timeout=60_000)


def column(tab, place: int) -> list[str]:
    rows = tab.locator("#leaderboard tbody tr:visible")
    return [row.locator("th, td").nth(place).inner_text() for row in rows.all()]


def test_the_leaderboard_sorts_and_filters(view):
    states = view.locator("#leaderboard thead button").nth(1)
    states.click()
    assert column(view, 1) == ["2", "3", "", ""]  # what is missing stays last
    states.click()
    assert column(view, 1) == ["3", "2", "", ""]
    view.fill("#filter", "K=3 window=20 ")
    assert {name.split(" window")[0] for name in column(view, 0)} == {"v1@1H diag K=3"}
    view.fill("#filter", "")
    view.check("#eligible")
    assert len(column(view, 0)) == 2
    assert view.inner_text("#count") == "2 of 4 cells"


SPAN = "(({time}) => [time.start, time.end])(window.report)"
PRICES = "window.report.doc.get_model_by_name('price').start"
AREAS = "[...window.report.doc.get_model_by_name('probabilities').data.x]"


def test_zooming_one_panel_zooms_all(view):
    start, end = view.evaluate(SPAN)
    lowest = view.evaluate(PRICES)
    view.locator("#timeline").scroll_into_view_if_needed()
    box = view.locator("#timeline").bounding_box()
    y = box["y"] + 100
    view.mouse.move(box["x"] + 500, y)
    view.mouse.down()
    view.mouse.move(box["x"] + 600, y, steps=4)
    view.mouse.up()
    view.wait_for_function(f"window.report.time.start > {start}")
    view.wait_for_timeout(200)  # two frames: the panels follow in the next
    left, right = view.evaluate(SPAN)
    assert start < left < right < end
    assert right - left == pytest.approx((end - start) * 100 / (box["width"] - 72), rel=0.1)
    shared = "new Set([...window.report.doc.all_models].filter(m => m.type === 'Figure')"
    assert view.evaluate(f"{shared}.map(m => m.x_range.id)).size") == 1
    assert view.evaluate(PRICES) > lowest  # the price axis fits what is in view
    assert view.evaluate("Number.isFinite(window.report.doc.get_model_by_name('gain').end)")
    # probabilities are drawn of the bars in view, no longer of groups
    first, second = view.evaluate(f"{AREAS}.slice(0, 2)")
    assert second - first == 3_600_000
    view.get_by_role("button", name="all", exact=True).click()
    view.wait_for_function(f"window.report.time.start === {start}")


def test_the_readout_names_the_bar_under_the_pointer(view, subject):
    box = view.locator("#timeline").bounding_box()
    view.locator("#timeline").hover(position={"x": box["width"] / 2, "y": 100})
    view.wait_for_function("document.querySelector('#readout').textContent.includes('UTC')")
    assert any(label in view.inner_text("#readout") for label in subject.model.labels)


def test_dark_follows_the_system_and_the_button(view):
    paper = "getComputedStyle(document.body).backgroundColor"
    axis = "[...window.report.doc.all_models].find(m => m.type === 'DatetimeAxis')"
    light, ink = view.evaluate(paper), view.evaluate(f"{axis}.major_label_text_color")
    view.emulate_media(color_scheme="dark")
    view.wait_for_function(f"{axis}.major_label_text_color !== '{ink}'")
    dark = view.evaluate(paper)
    assert dark != light
    view.click("#theme")
    assert view.evaluate(paper) == light
    assert view.evaluate(f"{axis}.major_label_text_color") == ink


def test_nothing_sticks_out_at_any_width(view):
    for width in (1200, 900, 420):
        view.set_viewport_size({"width": width, "height": 900})
        view.wait_for_timeout(150)
        assert view.evaluate("document.documentElement.scrollWidth") <= width


def test_it_opens_in_a_sandboxed_frame_as_mlflow_shows_it(browser, html, tmp_path):
    with framed(browser, html.as_uri(), tmp_path) as frame:
        frame.click("#theme")
        assert frame.evaluate("document.documentElement.dataset.theme") == "dark"
