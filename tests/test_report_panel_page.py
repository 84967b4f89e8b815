"""The page of a panel in a real browser: map, table, a symbol's page, both themes, both widths."""

import itertools
import re
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from hmm_exp.figures.palette import regime_colors
from hmm_exp.report.panel_page import panel_page
from tests.browsed import READABLE, TEXTS, WIDTHS, contrast, framed, mixed
from tests.small_panel import EVIL, mixed_panel, panel_subject, symbol_days
from tests.test_report import parsed

LOOK = (
    "() => {"
    + TEXTS
    + """
  const groups = [".parts span", ".key > span, .ranges button", ".regimes li"];
  const labels = groups.map((group) => [...document.querySelectorAll(group)]
    .filter((el) => el.checkVisibility()).map((el) => [el.textContent, box(el)]));
  return { texts, labels, width: document.documentElement.scrollWidth };
}"""
)


@pytest.fixture(scope="module")
def subject():
    return mixed_panel()


@pytest.fixture(scope="module")
def address(subject, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("panel") / "report.html"
    path.write_text(panel_page(subject), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser):
    """Open pages in tabs of their own; no error, and nothing is fetched."""
    contexts, complaints, asked = [], [], []

    def open_page(address: str, scheme: str = "light", width: int = 1200):
        view = {"width": width, "height": 900}
        contexts.append(browser.new_context(color_scheme=scheme, viewport=view))
        tab = contexts[-1].new_page()
        tab.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        tab.wait_for_selector("html[data-ready=true]", state="attached", timeout=60_000)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def view(opened, address):
    return opened(address)


def test_names_and_sentences_of_the_store_are_text_everywhere(view, subject, address):
    html = panel_page(subject)
    page = parsed(html)
    assert not page.opened
    assert "<b onclick" not in html
    assert view.locator("b[onclick]").count() == 0
    link = view.locator("#symbols a", has_text="BTC/USDT")
    assert link.inner_text() == EVIL
    link.click()
    view.wait_for_selector("#symbol", state="visible")
    assert view.inner_text("#symbol h1") == EVIL
    assert unquote(view.evaluate("location.hash")) == f"#{EVIL}"
    assert view.locator("b[onclick]").count() == 0
    assert view.title().startswith(EVIL)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_overlaps_or_is_hard_to_read(opened, address, scheme):
    for width, symbol in itertools.product(WIDTHS, ("", "#K5", "#none")):
        look = opened(address + symbol, scheme, width).evaluate(LOOK)
        place = (scheme, width, symbol)
        assert look["width"] == width, place
        assert len(look["texts"]) > (100 if not symbol else 5), place
        for text, color, layers in look["texts"]:
            ground = (255.0, 255.0, 255.0)
            for *top, share in reversed(layers):
                ground = mixed(tuple(top), share, ground)
            assert contrast(mixed(color[:3], color[3], ground), ground) >= READABLE, (place, text)
        assert {text for text, _ in look["labels"][0]} <= {"train", "validation", "val", "test"}
        for (one, a), (other, b) in itertools.chain.from_iterable(
            itertools.combinations(group, 2) for group in look["labels"]
        ):
            across, along = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            assert across <= 0 or along <= 0, f"{one} overlaps {other}: {place}"


PIXEL = """([name, day]) => {
  const { mapped, order, rowHeight, gutter, data } = window.panel;
  const canvas = document.querySelector("#map canvas"), ratio = devicePixelRatio;
  const row = mapped.findIndex((one) => one.name === name), i = order().indexOf(row);
  const room = canvas.clientWidth - gutter() - 8, d = data.days.indexOf(day);
  const x = gutter() + (d + 0.5) / data.days.length * room, y = (i + 0.5) * rowHeight;
  return [...canvas.getContext("2d").getImageData(x * ratio, y * ratio, 1, 1).data];
}"""


def test_the_map_has_the_colours_of_the_figures_for_any_number_of_regimes(view, subject):
    for n_states in range(1, 9):
        days = subject.days[f"K{n_states}"]
        middle = next(
            i
            for i in range(180, 360)
            if len(set(days.regime[i - 4 : i + 5])) == 1
            and set(days.split[i - 4 : i + 5]) == {"test"}
        )
        *color, alpha = view.evaluate(PIXEL, [f"K{n_states}", int(days.day[middle].astype(int))])
        wanted = 255 * np.array(to_rgb(regime_colors(n_states)[days.regime[middle]]))
        np.testing.assert_allclose(color, wanted, atol=3)
        assert alpha == 255


def test_unknown_is_grey_and_a_day_without_bars_is_empty(view, subject):
    faint = view.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--faint')")
    day = int(subject.days["unknown"].day[100].astype(int))
    *color, _ = view.evaluate(PIXEL, ["unknown", day])
    np.testing.assert_allclose(color, 255 * np.array(to_rgb(faint.strip())), atol=2)
    assert view.evaluate(PIXEL, ["before", day])[3] == 0


def names(view) -> list[str]:
    return view.evaluate("window.panel.order().map((row) => window.panel.mapped[row].name)")


def test_the_rows_of_the_map_are_ordered_by_a_button(view, subject):
    assert sorted(names(view)) == sorted(subject.days)
    press = '#order button[data-order="{}"]'
    view.click(press.format("name"))
    assert names(view)[1:] == sorted(names(view)[1:], key=str.lower)
    view.click(press.format("gain"))
    assert names(view)[0] == "before"
    view.click(press.format("now"))
    places = {name: one.regime[-1] for name, one in subject.days.items()}
    assert names(view)[-1] == "unknown"
    assert places[names(view)[0]] == len(subject.days[names(view)[0]].labels) - 1
    assert view.get_attribute(press.format("now"), "aria-pressed") == "true"
    assert view.get_attribute(press.format("gain"), "aria-pressed") == "false"


def test_pointer_and_keys_name_symbol_day_and_regime(view, subject):
    view.click('#order button[data-order="name"]')
    first, *_, second = names(view)[:4]
    view.focus("#map")
    view.keyboard.press("ArrowLeft")
    text = view.inner_text("#readout")
    assert text.startswith(f"{first} · {subject.days[first].day[-1]} · vol-")
    assert "in their most turbulent regime" in text
    for _ in range(3):
        view.keyboard.press("ArrowDown")
    view.keyboard.press("Shift+ArrowLeft")
    days = subject.days[second]
    assert second in view.inner_text("#readout")
    assert str(days.day[-31]) in view.inner_text("#readout")
    assert days.labels[days.regime[-31]] in view.inner_text("#readout")
    assert "test" in view.inner_text("#readout")
    view.keyboard.press("Enter")
    shows(view, second)
    view.go_back()
    box = view.locator("#map").bounding_box()
    view.mouse.move(box["x"] + box["width"] / 2, box["y"] + 3)
    assert first in view.inner_text("#readout")


def shows(view, symbol: str) -> None:
    """Wait for the page of a symbol: the address changes before it."""
    view.wait_for_function(f"document.querySelector('#symbol h1').innerText === '{symbol}'")
    assert view.is_visible("#symbol")


def column(view, place: int) -> list[str]:
    rows = view.locator("#symbols tbody tr:visible")
    return [row.locator("th, td").nth(place).inner_text() for row in rows.all()]


def test_the_table_sorts_and_filters(view):
    heads = view.locator("#symbols thead button")
    place = heads.all_inner_texts().index
    heads.nth(place("gain, validation")).click()
    gains = column(view, place("gain, validation"))
    assert gains[0] == "+0.5000"
    assert gains[-1] == ""  # what is missing stays last
    heads.nth(place("p")).click()
    assert column(view, 0)[0] == "K3"
    assert column(view, place("p"))[0] == "<0.0001"
    view.check("#promoted")
    assert column(view, 0) == ["K3"]
    assert view.inner_text("#count") == "1 of 12 symbols"
    view.uncheck("#promoted")
    view.select_option("#now", "ended")
    assert column(view, 0) == ["before"]
    view.select_option("#now", "")
    view.fill("#filter", "k=4 no")
    assert set(column(view, 0)) == {"K4", "unknown"}


def test_a_symbol_has_its_page_behind_its_row_and_the_back_button_returns(view, subject):
    link = view.locator("#symbols a", has_text="K5")
    link.scroll_into_view_if_needed()
    before = view.evaluate("scrollY")
    link.click()
    view.wait_for_function("window.panel.chart()")
    assert not view.is_visible("#panel")
    assert view.evaluate("scrollY") == 0
    text = view.inner_text("#symbol")
    for part in ("Believe it? No: −0.01 on test", "q, Benjamini-Yekutieli", "0.9000, ", "+0.0200"):
        assert part.rstrip(", ") in text
    assert "v1@1H full K=9" in view.inner_text("#cells")
    assert view.locator("#cells tr.winner th").inner_text() == "v1@1H diag K=5"
    assert "hmm_exp.load_detector" in view.inner_text("#load")
    chart = view.evaluate("window.panel.chart()")
    np.testing.assert_allclose(chart["closes"], subject.days["K5"].close, rtol=1e-4)
    assert chart["regimes"] == subject.days["K5"].regime.tolist()
    box = view.locator("#close").bounding_box()
    view.locator("#close").hover(position={"x": box["width"] - 9, "y": 60})
    assert str(subject.days["K5"].day[-1]) in view.inner_text("#close-readout")
    view.go_back()
    view.wait_for_selector("#panel", state="visible")
    assert view.evaluate("scrollY") == pytest.approx(before, abs=2)
    view.go_forward()
    shows(view, "K5")
    view.click("#back")
    view.wait_for_selector("#panel", state="visible")


def test_the_address_opens_a_symbol_and_one_without_a_winner_shows_the_reason(opened, address):
    view = opened(f"{address}#none")
    text = view.inner_text("#symbol")
    assert "no column named close" in text
    assert "no winner" in text
    for part in ("#through-time", "#cells", "#load"):
        assert not view.is_visible(part)
    assert opened(f"{address}#%E0%A4%A").is_visible("#panel")  # no address of ours


PANELS = {
    "one": {"A": symbol_days([0, 1, 2, 1])},
    "one day": {"A": symbol_days([1]), "B": symbol_days([0])},
    "apart": {"A": symbol_days([0, 1] * 9), "B": symbol_days([1, 2] * 9, first="2019-03-01")},
    "no days": {"A": symbol_days([]), "B": symbol_days([0, 1])},
    "all unknown": {"A": symbol_days([-1] * 9), "B": symbol_days([-1] * 9, 1)},
    "no winner": {"A": None, "B": None},
}


@pytest.mark.parametrize("name", PANELS)
def test_small_and_odd_panels_are_drawn(opened, tmp_path, name):
    path = tmp_path / "report.html"
    path.write_text(panel_page(panel_subject(PANELS[name])), encoding="utf-8")
    for width in WIDTHS:
        for symbol in ("", "#A", "#B"):
            view = opened(path.as_uri() + symbol, width=width)
            view.wait_for_timeout(50)
            assert view.evaluate("document.documentElement.scrollWidth") == width
            shown = view.inner_text("main")
            assert not re.search(r"NaN|undefined|Infinity|null", shown)


def test_dark_redraws_the_map_and_a_narrow_window_fits_it(view, subject):
    day = int(subject.days["unknown"].day[100].astype(int))
    light = view.evaluate(PIXEL, ["unknown", day])
    view.click("#theme")
    assert view.evaluate(PIXEL, ["unknown", day]) != light
    view.set_viewport_size({"width": 390, "height": 800})
    fits = "document.querySelector('#map canvas').width <= 390 * devicePixelRatio"
    view.wait_for_function(fits)
    assert view.evaluate("document.documentElement.scrollWidth") == 390


def test_it_opens_in_a_sandboxed_frame_as_mlflow_shows_it(browser, address, tmp_path):
    with framed(browser, address, tmp_path) as frame:
        frame.click("#theme")
        frame.click("#symbols a >> text=K2")
        shows(frame, "K2")
