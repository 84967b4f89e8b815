"""The criteria that compare numbers of states inside a run, and doubts about the choice."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hmm_exp.config import DataConfig, TimeframeConfig, checked
from hmm_exp.errors import FitError
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run


def settings(config, features="range", within="bic", **model):
    config.features.name = features
    config.selection.within = within
    config.model = replace(config.model, **({"n_states": None, "state_grid": [2, 3]} | model))
    return checked(config)


@pytest.mark.parametrize("grid", [[3], [2, 3]])
def test_the_criterion_of_the_next_return_is_made_of_the_recorded_scores(small_config, grid):
    result = run(prepare(settings(small_config, state_grid=grid)))
    scores = result.assessment.scores
    on_train = scores.loc[scores["split"] == "train", "model_score"].dropna()
    expected = -2 * on_train.sum() + 13 * math.log(len(on_train))
    assert result.n_states == 3
    assert result.metrics["bic_next"] == pytest.approx(expected, rel=1e-12)


def test_the_next_return_can_choose_the_number_of_states(small_config):
    small_config.data = replace(small_config.data, n_regimes=1)
    by_bic = run(prepare(settings(small_config, "v1", state_grid=[1, 2])))
    by_return = run(prepare(settings(small_config, "v1", "bic_next", state_grid=[1, 2])))
    assert (by_bic.n_states, by_return.n_states) == (2, 1)
    values = by_return.selection.set_index("n_states")["bic_next"]
    assert values[1] < values[2] - 10
    assert "selection=next_return would choose 1 state: model.n_states=1 fits that number" in (
        by_bic.warnings
    )
    assert not any("next_return" in line for line in by_return.warnings)


def test_a_table_without_returns_cannot_be_chosen_by_them(small_config, tmp_path):
    prepared = prepare(settings(small_config))
    table = prepared.table.frame.assign(timestamp=prepared.table.timestamp.dt.tz_localize(None))
    table.to_csv(tmp_path / "table.csv", index=False)
    data = DataConfig(kind="features", path=str(tmp_path / "table.csv"), bar_stamp="open")
    small_config.data = data
    with pytest.raises(FitError, match="no next-bar return is known, and bic_next is of its"):
        run(prepare(settings(small_config, within="bic_next")))


def test_rows_that_repeat_a_coarser_range_leave_the_number_of_states_open(small_config):
    small_config.timeframe = TimeframeConfig("multi", ["1H", "4H"])
    prepared = prepare(settings(small_config))
    result = run(prepared)
    assert prepared.bic_doubt in result.warnings
    assert "4 rows repeat one value of the coarsest log range" in prepared.bic_doubt
    dwell = 1 / (1 - np.diagonal(result.detector.params.transmat))
    short = [fault for fault in result.faults if "(least 10)" in fault]
    assert len(short) == (dwell < 10).sum()


def test_one_timeframe_leaves_no_doubt(small_config):
    assert prepare(settings(small_config)).bic_doubt is None


def test_a_column_that_follows_from_another_is_named(small_config):
    small_config.covariance = replace(small_config.covariance, type="full")
    prepared = prepare(settings(small_config, "v1", n_states=2, state_grid=None))
    prepared.X[:, 1] = 2 * prepared.X[:, 0]
    name = prepared.recipe.columns[1]
    with pytest.raises(FitError, match=rf"^2 states: {name} is constant or follows from the feat"):
        run(prepared)
