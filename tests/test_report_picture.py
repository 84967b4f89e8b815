"""Texts and pictures of the page: dark ground with the same regimes, whole names and numbers."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from hmm_exp.figures.palette import DARK, INK, regime_colors
from hmm_exp.report.page import setting, typeset
from hmm_exp.report.picture import NEUTRAL, darkened
from tests.browsed import READABLE, contrast
from tests.test_report_page import themes


def rgb(color: str) -> tuple[int, int, int]:
    r, g, b = (round(255 * part) for part in to_rgb(color))
    return r, g, b


def stripes(colors: list[str]) -> bytes:
    """A picture with a stripe of ten pixels of every colour."""
    image = Image.new("RGB", (10 * len(colors), 10))
    draw = ImageDraw.Draw(image)
    for i, color in enumerate(colors):
        draw.rectangle((10 * i, 0, 10 * i + 9, 9), fill=rgb(color))
    image.save(found := BytesIO(), "PNG")
    return found.getvalue()


def redrawn(colors: list[str], kept: tuple[str, ...] = ()) -> list[tuple[int, int, int]]:
    with Image.open(BytesIO(darkened(stripes(colors), DARK, kept))) as image:
        return [image.getpixel((10 * i + 5, 5)) for i in range(len(colors))]


@pytest.mark.parametrize("n_states", range(1, 9))
def test_regimes_keep_their_colours_on_a_dark_ground(n_states):
    colors = regime_colors(n_states)
    assert redrawn([*colors], colors) == [rgb(color) for color in colors]


def test_ground_text_and_lines_take_the_colours_of_the_dark_theme():
    known = {**NEUTRAL, **DARK}
    assert redrawn([*known]) == [rgb(color) for color in known.values()]
    ground, text = redrawn(["#ffffff", INK])
    assert contrast(text, ground) >= READABLE
    dark = themes()[1]
    names = ("ink", "grey", "faint", "paper")
    assert [rgb(color) for color in NEUTRAL.values()] == [dark[name] for name in names]


def test_the_edge_of_a_line_mixes_its_colour_with_the_dark_ground():
    line = regime_colors(2)[0]
    middle = "#" + "".join(f"{round((255 + c) / 2):02x}" for c in rgb(line))
    (found,) = redrawn([middle], (line,))
    wanted = (np.array(rgb(line)) + rgb(NEUTRAL["#ffffff"])) / 2
    np.testing.assert_allclose(found, wanted, atol=2)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("(-0.0145, -.03 to +0.0017)", "(−0.0145, −.03 to +0.0017)"),
        ("2023-07-20, K=3-5, --run 3", "2023-07-20, K=3-5, --run 3"),
        ("Student-t by hour", '<span class="whole">Student-t</span> by hour'),
        ("vol-1 above VWAP", '<span class="whole">vol-1</span> above VWAP'),
        ("log_range_1H", "log_<wbr>range_<wbr>1H"),
        ("<b>&", "&lt;b&gt;&amp;"),
    ],
)
def test_numbers_and_names_are_typeset(text, html):
    assert typeset(text) == html


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("['1H', '4H']", "[1H,4H]"),
        ("[1, 5]", "[1,5]"),
        ("[]", "[]"),
        ("{'1H': [5, 10]}", "{1H:[5,10]}"),
        ("True", "true"),
        ("None", "null"),
        ("0.001", "0.001"),
        ("bars, 60.csv", "bars, 60.csv"),
        ("0042", "0042"),
    ],
)
def test_settings_are_shown_as_the_command_line_takes_them(recorded, shown):
    assert setting(recorded) == shown
