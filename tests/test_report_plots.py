"""Small static plots of the report."""

import re

import numpy as np
import pandas as pd
import pytest

from hmm_exp.judge.residuals import ResidualLimits
from hmm_exp.report.plots import Plot, autocorrelations, quantiles


def ends(plot: Plot, kind: str, role: str) -> np.ndarray:
    """Both ends of the segments of the only line of a kind and role, shape (N, 2, 2)."""
    (line,) = [line for line in plot.lines if (line.kind, line.role) == (kind, role)]
    return np.array(re.findall(r"-?\d+", line.path), dtype=int).reshape(-1, 2, 2)


def quantile_rows(value: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"kind": "quantile", "x": [-2.1, 0.0, 2.1, 4.0], "value": value})


def memory_rows(memory: list[float], squares: list[float]) -> pd.DataFrame:
    lags = np.arange(1.0, len(memory) + 1.0)
    of_kind = {"memory": memory, "square_memory": squares}
    return pd.concat(
        pd.DataFrame({"kind": kind, "x": lags, "value": values}) for kind, values in of_kind.items()
    )


def test_quantiles_of_a_correct_model_are_on_the_diagonal():
    plot, note = quantiles(quantile_rows([-2.1, 0.0, 2.1, 4.0]))
    dots = ends(plot, "dots", "ink")
    np.testing.assert_array_equal(dots[:, 0], dots[:, 1])  # of no length: round caps draw them
    np.testing.assert_array_equal(dots[:3, 0], [[250, 750], [500, 500], [750, 250]])
    np.testing.assert_array_equal(ends(plot, "line", "grey"), [[[0, 1000], [1000, 0]]])
    assert note == ""


def test_quantiles_beyond_the_plot_are_drawn_at_its_edge_and_counted():
    plot, note = quantiles(quantile_rows([-9.0, 0.0, 4.1, 70.0]))
    assert note == "2 of 4 points beyond ±4.1, at the edge"
    heights = ends(plot, "dots", "ink")[:, 0, 1]
    assert heights.max() <= 1000
    assert heights[3] == heights[2] >= 0


def test_ticks_are_where_their_values_are_drawn():
    plot, _ = quantiles(quantile_rows([-2.1, 0.0, 2.1, 4.0]))
    assert [text for _, text in plot.y_ticks] == ["−3", "0", "3"]
    assert [round(at, 2) for at, _ in plot.y_ticks] == [85.71, 50.0, 14.29]
    assert [round(at, 2) for at, _ in plot.x_ticks] == [14.29, 50.0, 85.71]


@pytest.mark.parametrize("highest", [0.02, 0.3, 0.97])
def test_autocorrelations_stand_on_zero_between_the_limits(highest):
    plot = autocorrelations(memory_rows([highest, 0.1, -0.05], [0.2, 0.0, -0.9]))
    stems, squares = ends(plot, "stems", "ink"), ends(plot, "stems", "square")
    zero = ends(plot, "hair", "grey")[0, 0, 1]
    assert set(stems[:, 0, 1]) == set(squares[:, 0, 1]) == {zero}
    assert stems[0, 1, 1] < zero < stems[2, 1, 1]  # up is less
    assert stems[:, :, 0].max() < 4 * 1000 / 21
    assert stems.min() >= 0
    assert max(stems.max(), squares.max()) <= 1000  # also of one far below the limit
    shown = {text: at for at, text in plot.y_ticks}
    assert round(10 * shown["0"]) == pytest.approx(zero, abs=1)
    limit = ResidualLimits().memory
    drawn = [line.path for line in plot.lines if (line.kind, line.role) == ("hair", "faint")]
    above = (zero - int(re.findall(r"\d+", drawn[1])[1])) / (zero - stems[0, 1, 1])
    assert above == pytest.approx(limit / highest, rel=0.05)
