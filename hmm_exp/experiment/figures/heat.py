"""A matrix as shaded cells with numbers, for transitions and for recovered regimes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from hmm_exp.experiment.figures.style import INK, draw_lines

_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#c9ced6", "#3d4654"])
_DARK = 0.75  # shade from which white text reads better


def draw_heat(
    axes: Axes, matrix: np.ndarray, names: Sequence[Sequence[str]], shade: np.ndarray
) -> None:
    """Cells of `matrix` in greys by `shade` (0 white to 1 dark) with their numbers.

    Greys, because colours mean regimes. Empty names are not drawn.
    """
    rows, columns = matrix.shape
    axes.imshow(shade, cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    across = [np.array([[-0.5, columns - 0.5], [i - 0.5] * 2]) for i in range(1, rows)]
    along = [np.array([[j - 0.5] * 2, [-0.5, rows - 0.5]]) for j in range(1, columns)]
    draw_lines(axes, across + along, "white", linewidths=2)
    for i, j in np.ndindex(rows, columns):
        if names[i][j]:
            axes.text(
                j,
                i,
                names[i][j],
                ha="center",
                va="center",
                fontsize=9,
                color="white" if shade[i, j] > _DARK else INK,
                parse_math=False,
            )
