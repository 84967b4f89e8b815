"""Make texts fit: measure them as drawn, make them smaller, wrap them, and only then cut them.

    lines, points = fit_block(["Close by decided regime", subject], ((9, 1), (8, 2)), room=960)
    names, points = fit_all(labels, 9, room=80)

A cut text has an ellipsis in its middle, because names differ at both ends.
"""

import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

DPI = 100
SEPARATOR = "  ·  "
SMALLEST = 6.5  # points
_CHUNK = 12  # characters of a long word that stay together
_SAFETY = 1.03  # a glyph that is not hinted is up to 3 % wider


@lru_cache(maxsize=8192)
def width(text: str, points: float) -> float:
    """Width of a drawn text in pixels of a 100 dpi canvas."""
    renderer = _renderer(threading.get_ident())
    size = renderer.get_text_width_height_descent(text, FontProperties(size=points), False)
    return _SAFETY * size[0]


@lru_cache(maxsize=64)
def _renderer(_thread: int) -> RendererAgg:
    return RendererAgg(1, 1, DPI)


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
