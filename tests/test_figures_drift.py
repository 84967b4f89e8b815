"""The drift of a walk is drawn for any number of fits, states and features."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from hmm_exp import figures

MONTH = 30 * 86_400_000_000_000
START = 1_609_459_200_000_000_000  # 2021-01-01 UTC


def draw(n_fits, n_states, n_features, **more):
    rng = np.random.default_rng(0)
    levels = np.arange(n_states)[:, None]
    means = levels + 0.1 * rng.standard_normal((n_fits, n_states, n_features))
    agreement = np.r_[np.nan, rng.uniform(0.9, 1.0, n_fits - 1)]
    return figures.drift(
        START + MONTH * np.arange(n_fits),
        means,
        rng.uniform(5, 500, (n_fits, n_states)),
        [f"feature_{d}_1H" for d in range(n_features)],
        [f"vol-{k + 1}" for k in range(n_states)],
        agreement=agreement,
        **more,
    )


def words(figure):
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("n_states", [1, 3, 8])
@pytest.mark.parametrize("n_features", [1, 3, 36])
@pytest.mark.parametrize("n_fits", [1, 2, 60])
def test_every_feature_has_its_cell_and_every_state_its_colour(
    n_fits, n_states, n_features, tmp_path
):
    figure = draw(n_fits, n_states, n_features, bar="1H")
    figures.save(figure, tmp_path / "drift.png")
    written = words(figure)
    assert {f"feature_{d}_1H" for d in range(n_features)} <= set(written)
    assert "expected dwell (bars of 1H)" in written
    lines = figure.findobj(LineCollection)
    colors = {to_hex(color) for line in lines for color in line.get_colors()}
    assert set(figures.regime_colors(n_states)) <= colors


def test_the_title_gives_the_agreement_and_a_refused_fit_is_explained():
    refused = np.array([False, False, True, False])
    written = " ".join(words(draw(4, 2, 3, refused=refused)))
    assert "agree on 9" in written
    assert "ring: refit rejected" in written
    assert "ring" not in " ".join(words(draw(4, 2, 3)))
    assert "Only one fit" in " ".join(words(draw(1, 2, 3)))
