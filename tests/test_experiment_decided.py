"""The decided regimes of a run: rule and end of training in the detector, metrics out of sample."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.config import (
    Config,
    DataConfig,
    DecisionConfig,
    FeaturesConfig,
    ModelConfig,
    SplitConfig,
    TimeframeConfig,
    checked,
)
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.judge.next_bar import detection_delay

WALK = SplitConfig("walk_forward", 0.5, 0.25, 0.25, refit_every=500)
DELAYS = ("detection_delay_mean", "detection_delay_median", "missed_switch_share")


def ran(config: Config, **decision):
    return run(prepare(checked(replace(config, decision=DecisionConfig(**decision)))))


@pytest.fixture
def result(small_config):
    return ran(small_config)


def test_the_detector_keeps_the_configured_rule(small_config):
    detector = ran(small_config, rule="min_bars", min_bars=5).detector
    assert (detector.decision.rule, detector.decision.min_bars) == ("min_bars", 5)


@pytest.mark.parametrize("refit", ["train", "train_val"])
def test_in_training_are_the_bars_that_the_served_parameters_know(small_config, refit):
    small_config.model.refit = refit
    result = ran(small_config)
    known = ["train"] if refit == "train" else ["train", "val"]
    is_known = result.regimes["split"].isin(known)
    np.testing.assert_array_equal(result.regimes["in_training"], is_known)


def test_a_walk_is_out_of_sample_and_its_detector_knows_the_last_refit(small_config):
    small_config.split = WALK
    result = ran(small_config)
    assert not result.regimes["in_training"].any()
    regimes = result.detector.filter(result.prepared.source.bars)
    last = result.regimes[result.regimes["refit"] == len(result.walk.refits) - 1]
    np.testing.assert_array_equal(
        regimes["in_training"], regimes["available_at"] < last["available_at"].iloc[0]
    )
    theirs = regimes.set_index("available_at").loc[last["available_at"], "regime"]
    assert list(theirs) == list(last["regime"])


@pytest.mark.parametrize("split", [SplitConfig(), WALK], ids=lambda split: split.kind)
def test_metrics_are_of_the_decided_regimes_out_of_sample(small_config, split):
    small_config.split = split
    result = ran(small_config)
    regimes = result.regimes[result.regimes["split"] != "train"]
    regimes = regimes[regimes["regime"] >= 0]
    n_switches = (regimes["regime"].diff().iloc[1:] != 0).sum()
    hours = len(regimes) - 1  # no bar is missing
    assert n_switches > 0
    assert result.metrics["switches_per_year"] == pytest.approx(n_switches / hours * 24 * 365.25)
    visit = len(regimes) / (n_switches + 1)
    assert result.metrics["mean_regime_visit_bars"] == pytest.approx(visit)


def test_by_the_argmax_the_delay_is_that_of_the_most_probable_state(small_config, result):
    argmax = ran(small_config, rule="argmax")
    assert list(argmax.regimes["regime"]) == list(argmax.regimes["state"])
    for name in DELAYS:
        assert argmax.metrics[f"regime_{name}"] == argmax.metrics[name] == result.metrics[name]
    assert result.metrics["regime_detection_delay_mean"] > result.metrics["detection_delay_mean"]


def test_the_delay_is_counted_to_the_decided_regime(result):
    bars, regimes = result.prepared.source.bars, result.regimes["regime"].to_numpy()
    labels = np.append(np.full(len(bars) - len(regimes), -1), regimes)
    by_hand = detection_delay(bars.states, labels)
    assert result.metrics["regime_detection_delay_mean"] == by_hand.mean_bars
    assert result.metrics["regime_missed_switch_share"] == by_hand.missed_share


def test_a_rule_changes_the_fingerprint_and_nothing_that_is_judged(small_config, result):
    other = ran(small_config, rule="argmax")
    assert other.prepared.fingerprint != result.prepared.fingerprint
    assert other.prepared.observation_space == result.prepared.observation_space
    pd.testing.assert_frame_equal(other.assessment.scores, result.assessment.scores)
    own = {"switches_per_year", "mean_regime_visit_bars", *(f"regime_{name}" for name in DELAYS)}
    for name in set(result.metrics) - own:
        if not name.startswith("seconds_"):
            assert other.metrics[name] == result.metrics[name], name


@pytest.mark.parametrize("features", ["v1", "range"])
def test_hysteresis_keeps_the_accuracy_on_three_planted_regimes(features):
    config = Config(
        data=DataConfig(n_bars=8000, bar_stamp="open", seed=3),
        features=FeaturesConfig(name=features),
        model=ModelConfig(n_states=3, n_init=3),
    )
    regimes, bars = ran(config).regimes, prepare(checked(config)).source.bars
    planted = bars.states[len(bars) - len(regimes) :]
    later = regimes["regime"] >= 0
    decided, state = ((regimes[name] == planted)[later].mean() for name in ("regime", "state"))
    assert decided > state - 0.01
    switches = [np.count_nonzero(np.diff(regimes[name][later])) for name in ("regime", "state")]
    assert switches[0] < switches[1]


def test_hysteresis_halves_the_switches_of_daily_dax_returns(shared_data):
    config = Config(
        data=DataConfig(
            "bars", str(shared_data / "dax.csv"), bar_stamp="open", gaps="bridge", bad_rows="drop"
        ),
        features=FeaturesConfig(name="returns"),
        timeframe=TimeframeConfig("1D", ["1D"]),
        model=ModelConfig(n_states=2, n_init=3),
    )
    rows = ran(config).regimes
    known = rows[rows["regime"] >= 0]
    regimes, states = (np.count_nonzero(np.diff(known[name])) for name in ("regime", "state"))
    assert 50 < regimes < states / 2
