"""The picture of a figure for the page's dark theme: dark ground, light text, the same regimes."""

from collections.abc import Iterable, Mapping
from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image

from hmm_exp.figures.palette import FAINT, GREY, INK, rgb

# From the figure to the page's dark theme: ground and neutral colours, dark to light.
NEUTRAL = {INK: "#e6e3dd", GREY: "#a09d97", FAINT: "#45474b", "#ffffff": "#131416"}
_SPREAD = 12  # of the channels of a neutral pixel, at most


def darkened(png: bytes, colors: Mapping[str, str], kept: Iterable[str] = ()) -> bytes:
    """Redraw a picture on a dark ground.

    A pixel of a smooth edge is a mixture of white and a colour, and becomes the same mixture of the
    dark ground and that colour's counterpart.

    Parameters
    ----------
    colors
        Counterparts of the colours that would be too dark, by colour.
    kept
        Colours that stay, such as those of the regimes.
    """
    with Image.open(BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB"))
    places, shades = _distinct(pixels.reshape(-1, 3))
    pairs = {**dict.fromkeys(kept), **colors}
    inks, others = _rgb(pairs), _rgb(other or ink for ink, other in pairs.items())
    dark = np.where(
        np.ptp(shades.astype(int), axis=1, keepdims=True) <= _SPREAD,
        _neutral(shades.mean(axis=1)),
        _mixed(shades, inks, others),
    )
    redrawn = np.rint(dark).astype(np.uint8)[places].reshape(pixels.shape)
    Image.fromarray(redrawn).save(found := BytesIO(), "PNG")
    return found.getvalue()


def _distinct(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of every pixel, shape (n, 3), among the distinct ones; and those."""
    red, green, blue = pixels.astype(np.int32).T
    places, shades = pd.factorize(red << 16 | green << 8 | blue)
    return places, np.column_stack([shades >> 16, shades >> 8 & 255, shades & 255])


def _rgb(colors: Iterable[str]) -> np.ndarray:
    return 255.0 * np.array([rgb(color) for color in colors]).reshape(-1, 3)


def _neutral(lightness: np.ndarray) -> np.ndarray:
    """Counterparts of greys, shape (n, 3)."""
    knots, theirs = _rgb(NEUTRAL).mean(axis=1), _rgb(NEUTRAL.values())
    return np.column_stack([np.interp(lightness, knots, channel) for channel in theirs.T])


def _mixed(shades: np.ndarray, inks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mixtures of white and the nearest of `inks`, with the ground and `others` instead."""
    away, lines = 255.0 - shades, 255.0 - inks
    share = np.clip(away @ lines.T / (lines**2).sum(axis=1), 0.0, 1.0)
    distance = np.linalg.norm(away[:, None] - share[..., None] * lines, axis=2)
    nearest = distance.argmin(axis=1)
    part = np.take_along_axis(share, nearest[:, None], axis=1)
    ground = _rgb([NEUTRAL["#ffffff"]])
    return ground + part * (others[nearest] - ground)
