"""Colours of figures and of the pages of a report; without matplotlib."""

import numpy as np

INK = "#222222"
GREY = "#6b6b6b"
FAINT = "#d9d9d9"
ACCENT = "#00695c"  # what was chosen or best; far from every regime colour
# Colours of trading rules that would be too dark on a dark ground, and theirs there.
DARK = {ACCENT: "#58b8a8", "#5cb8a7": "#2f7f72", "#8e5ea2": "#b993c9"}

# Calm to turbulent: CIE lightness 75 falling to 32, and at least 13 Delta E apart pairwise in
# normal, protan, deutan and tritan sight (simulated after Machado et al. 2009).
_RAMP = ("#66c1ff", "#89b2ce", "#92a4a9", "#b18f55", "#c37500", "#ba561b", "#af3327", "#8d2428")


def regime_colors(n_states: int) -> tuple[str, ...]:
    """Hex colours of states in order, calm to turbulent, increasingly dark.

    The ends are the same for any number of states; a single state has the middle colour.
    """
    ramp = np.array([rgb(color) for color in _RAMP])
    places = np.linspace(0, 1, n_states) if n_states > 1 else np.array([0.5])
    knots = np.linspace(0, 1, len(ramp))
    mixed = np.column_stack([np.interp(places, knots, channel) for channel in ramp.T])
    return tuple("#" + bytes(np.rint(255 * one).astype(np.uint8)).hex() for one in mixed)


def rgb(color: str) -> tuple[float, float, float]:
    """Red, green and blue of a hex colour, each from 0 to 1."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red / 255, green / 255, blue / 255
