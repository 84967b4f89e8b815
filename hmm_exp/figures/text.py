"""Draw texts, and make them fit: smaller, then wrapped, and only then cut.

    lines, points = fit_block(["Close by decided regime", subject], ((9, 1), (8, 2)), room=960)
    write(figure, 0.02, 0.9, lines[0], fontsize=points)
    names, points = fit_all(labels, 9, room=80)

A cut text has an ellipsis in its middle, because names differ at both ends.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import get_data_path
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import ImageFont

DPI = 100
SEPARATOR = "  ·  "
SMALLEST = 6.5  # points
_CHUNK = 12  # characters of a long word that stay together
_FONT = Path("fonts", "ttf", "DejaVuSans.ttf")  # matplotlib's own
_INCH = 72  # points


def write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Write one line of text, horizontal or turned by 90 degrees, as `Figure.text` would."""
    style = {"transform": figure.transFigure} | style
    font = _properties(style.pop("fontsize", None))
    label = Label(x, y, text, parse_math=False, fontproperties=font, **style)
    label.set_figure(figure)
    figure.texts.append(label)


class Label(Text):
    """A text that Pillow draws on a raster canvas: .1 ms instead of 1 ms."""

    def draw(self, renderer) -> None:
        """Draw the text; other canvases than Agg draw it as any text."""
        if not (isinstance(renderer, RendererAgg) and self.get_visible()):
            super().draw(renderer)
            return
        (x0, y0), mask = self._placed()
        image = np.empty((*mask.shape, 4), dtype=np.uint8)
        image[..., :3] = np.multiply(to_rgb(self.get_color()), 255.0).round()
        image[..., 3] = mask[::-1]  # from the bottom
        renderer.draw_image(renderer.new_gc(), x0, y0, image)
        self.stale = False

    def get_window_extent(self, renderer=None, dpi=None) -> Bbox:
        """Box of the drawn pixels."""
        (x0, y0), mask = self._placed()
        return Bbox.from_bounds(x0, y0, mask.shape[1], mask.shape[0])

    def _placed(self) -> tuple[tuple[int, int], np.ndarray]:
        """Lower left pixel, and opacities from the top, shape (height, width)."""
        figure = self.get_figure()
        assert figure is not None
        pixels = float(self.get_fontsize()) * figure.dpi / _INCH
        mask, (right, down), length = _ink(self.get_text(), pixels)
        ascent, descent = _font(pixels).getmetrics()
        rise = (ascent - descent) / 2
        x, y = self.get_transform().transform(self.get_unitless_position())
        half, whole = length / 2, length
        before = {"center": half, "center_baseline": half, "right": whole, "top": whole}
        if self.get_rotation():
            x += {"left": ascent, "center": rise}[self.get_horizontalalignment()]
            y -= before.get(self.get_verticalalignment(), 0.0)
            return (round(x) + down, round(y) + right), np.rot90(mask)
        above = {"top": ascent, "bottom": -descent, "center": rise, "center_baseline": ascent / 2}
        x -= before.get(self.get_horizontalalignment(), 0.0)
        y -= above.get(self.get_verticalalignment(), 0.0)
        return (round(x) + right, round(y) - down - len(mask)), mask


@lru_cache(maxsize=64)
def _properties(points: float | None) -> FontProperties:
    return FontProperties(size=points)  # made once: it reads matplotlib's settings


@lru_cache(maxsize=256)
def _font(pixels: float) -> ImageFont.FreeTypeFont:
    basic = ImageFont.Layout.BASIC  # the other is not everywhere
    return ImageFont.truetype(Path(get_data_path()) / _FONT, pixels, layout_engine=basic)


@lru_cache(maxsize=2048)  # figures of a run, and those of the next run, share most of their labels
def _ink(text: str, pixels: float) -> tuple[np.ndarray, tuple[int, int], float]:
    """Opacities (height, width) of a text, their place right of and below its start, its length."""
    font = _font(pixels)
    ink, place = font.getmask2(text, mode="L", anchor="ls")
    mask = np.array(ink, dtype=np.uint8).reshape(ink.size[::-1])
    return mask, place, font.getlength(text)


@lru_cache(maxsize=8192)
def width(text: str, points: float) -> float:
    """Width of a drawn text in pixels of a 100 dpi canvas."""
    return _font(points * DPI / _INCH).getlength(text)


def fit_all(names: Sequence[str], points: float, room: float) -> tuple[list[str], float]:
    """Names of a common size, each at most `room` pixels wide."""
    return _fit(names, points, lambda some, size: max(map(_of(size), some), default=0) <= room)


def fit_row(
    names: Sequence[str], points: float, room: float, gap: float
) -> tuple[list[str], float]:
    """Names of a common size for one row of `room` pixels; each also needs `gap` pixels."""
    return _fit(
        names, points, lambda some, size: sum(map(_of(size), some)) + gap * len(some) <= room
    )


def fit_block(
    parts: Sequence[str], sizes: Sequence[tuple[float, int]], room: float
) -> tuple[list[str], float]:
    """Lines of the joined `parts`, and their size.

    `sizes` are pairs of points and the most lines of that size, in order of preference. Lines end
    between parts if that is enough, and otherwise between words. The longest parts are cut if the
    last size is not enough.
    """
    for points, most in sizes:
        for tokens in (_parts(parts), _words(parts)):
            if _holds(lines := _wrapped(tokens, points, room), most, points, room):
                return lines, points
    kept = _cut(
        parts, lambda some: _holds(_wrapped(_words(some), points, room), most, points, room)
    )
    return _wrapped(_words(kept), points, room), points


def _parts(parts: Sequence[str]) -> list[tuple[str, str]]:
    """Tokens of a block with what joins each to the one before."""
    return [(SEPARATOR, part) for part in parts]


def _words(parts: Sequence[str]) -> list[tuple[str, str]]:
    """Words as tokens; a line may end inside a very long word, after `_` if there is one."""
    tokens = []
    for part in parts:
        glue = SEPARATOR
        for word in part.split(" "):
            for piece in _pieces(word):
                tokens.append((glue, piece))
                glue = ""
            glue = " "
    return tokens


def _pieces(word: str) -> list[str]:
    """A very long word in pieces that end with `_`, or of `_CHUNK` characters without one."""
    if len(word) <= 2 * _CHUNK:
        return [word]
    parts = re.findall(r"[^_]*_|[^_]+", word)
    size = _CHUNK if max(map(len, parts)) > 2 * _CHUNK else len(word)
    return [part[i : i + size] for part in parts for i in range(0, len(part), size)]


def _wrapped(tokens: Sequence[tuple[str, str]], points: float, room: float) -> list[str]:
    """Fill lines with as many tokens as fit; a line has at least one."""
    lines = [""]
    for glue, token in tokens:
        longer = f"{lines[-1]}{glue}{token}" if lines[-1] else token
        if lines[-1] and width(longer, points) > room:
            lines.append(token)
        else:
            lines[-1] = longer
    return lines


def _holds(lines: Sequence[str], most: int, points: float, room: float) -> bool:
    return len(lines) <= most and max(width(line, points) for line in lines) <= room


def _fit(
    names: Sequence[str], points: float, fits: Callable[[Sequence[str], float], bool]
) -> tuple[list[str], float]:
    """The largest size that fits, down to `SMALLEST`; names are cut only at that size."""
    while points > SMALLEST and not fits(names, points):
        points = max(points - 0.5, SMALLEST)
    return (list(names) if fits(names, points) else _cut(names, lambda n: fits(n, points))), points


def _of(points: float) -> Callable[[str], float]:
    return lambda text: width(text, points)


def _cut(names: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> list[str]:
    """Cut the longest names to the largest common number of characters that fits."""
    longest = max(map(len, names))
    most = bisect_right(
        range(2, longest), False, key=lambda n: not fits([shortened(name, n) for name in names])
    )
    return [shortened(name, most + 1) for name in names]


def shortened(text: str, most: int) -> str:
    """Replace the middle of a text of more than `most` characters by an ellipsis."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"
