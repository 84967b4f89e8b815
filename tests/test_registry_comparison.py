"""Candidate against champion by scoring the champion again on the candidate's own bars."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hmm_exp.config import Config, DataConfig, FeaturesConfig, ModelConfig, TimeframeConfig, checked
from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.judge.gains import hac_error
from hmm_exp.registry.comparison import NotCompared, compare
from hmm_exp.registry.evidence import Evidence, Incumbent, read_evidence
from hmm_exp.registry.versions import Champion
from hmm_exp.serving.mlflow_model import log_detector
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import read_data, read_scores

N_BARS = 6000


def recorded(store, features: str, timeframe: str, seed: int = 7) -> str:
    """Id of a true run on the synthetic market."""
    settings = Config(
        data=DataConfig(n_bars=N_BARS, seed=seed, name="synthetic", bar_stamp="open"),
        features=FeaturesConfig(name=features),
        timeframe=TimeframeConfig(timeframe, [timeframe]),
        model=ModelConfig(n_init=1, n_states=2),
    )
    settings.tracking.figures = False
    prepared = prepare(checked(settings))
    result = run(prepared)
    identity = {
        tags.INSTRUMENT: prepared.source.name,
        tags.DATA_KIND: "synthetic",
        tags.DATA_DIGEST: prepared.source.digest,
        tags.FINGERPRINT: prepared.fingerprint,
    }
    run_id = store.client.create_run(store.experiment_id, tags=identity).info.run_id
    with tempfile.TemporaryDirectory() as folder:
        write_artifacts(result, Path(folder))
        store.client.log_artifacts(run_id, folder)
    log_detector(store.experiment_id, run_id, result.detector)
    store.client.set_terminated(run_id)
    return run_id


@pytest.fixture(scope="module")
def hourly(store) -> Evidence:
    """v1 on hourly bars."""
    return evidence_of(store, recorded(store, "v1", "1H"))


@pytest.fixture(scope="module")
def four_hourly(store) -> Evidence:
    """v2 on 4H bars of the same market."""
    return evidence_of(store, recorded(store, "v2", "4H"))


def evidence_of(store, run_id: str) -> Evidence:
    return read_evidence(store.client, store.client.get_run(run_id))


def as_champion(evidence: Evidence, **meta: str) -> Incumbent:
    run = evidence.run
    champion = Champion("regimes", "1", run.info.run_id, dict(run.data.tags))
    return Incumbent(champion, replace(evidence.detector, meta=evidence.detector.meta | meta))


def test_models_of_other_features_and_timeframes_meet_on_the_base_bars(store, hourly, four_hourly):
    there = compare(store.client, hourly, as_champion(four_hourly), fewest=500)
    back = compare(store.client, four_hourly, as_champion(hourly), fewest=500)
    assert there.n_bars == back.n_bars == pytest.approx(0.15 * N_BARS, abs=2)
    assert there.gain == pytest.approx(-back.gain, abs=1e-3)
    assert there.error == pytest.approx(back.error, rel=0.05)
    assert there.low < there.gain < there.high
    assert there.gain - there.low == pytest.approx(there.high - there.gain)


def test_a_champion_scored_again_on_its_own_data_gets_its_stored_scores(store, hourly):
    found = compare(store.client, hourly, as_champion(hourly), fewest=500)
    assert abs(found.gain) < 1e-6


def test_only_bars_after_the_champions_training_count(store, hourly, four_hourly):
    time = hourly.scores.index
    late = as_champion(four_hourly, train_end=time[-600].tz_localize("UTC").isoformat())
    found = compare(store.client, hourly, late, fewest=500)
    assert found.n_bars == 599  # the last bar has no next return
    with pytest.raises(NotCompared, match=r"^900 test bars lie after"):
        compare(store.client, hourly, late, fewest=901)


def test_without_the_data_the_champions_stored_scores_are_used(store, hourly, four_hourly):
    champion = as_champion(four_hourly)
    nowhere = replace(
        champion,
        detector=replace(champion.detector, meta=champion.detector.meta | {"train_end": None}),
    )
    found = compare(store.client, hourly, nowhere, fewest=500)
    mine = read_scores(store.client, hourly.run.info.run_id)
    theirs = read_scores(store.client, four_hourly.run.info.run_id)
    on_test = (mine["split"] == "test") & (theirs["split"] == "test")
    gain = (mine["model_score"] - theirs["model_score"])[on_test].dropna().to_numpy()
    assert (found.n_bars, found.gain) == (len(gain), pytest.approx(gain.mean()))
    assert found.error == pytest.approx(hac_error(np.ascontiguousarray(gain)))


def test_a_champion_that_needs_more_history_is_not_compared(store, hourly, four_hourly):
    champion = as_champion(four_hourly)
    hungry = Incumbent(
        replace(champion.champion, run_id=None), replace(champion.detector, min_history=N_BARS + 1)
    )
    with pytest.raises(NotCompared, match=r"cannot be scored on the candidate's data: 6,000 bars"):
        compare(store.client, hourly, hungry, fewest=500)


def test_a_candidate_without_densities_is_not_compared(store, hourly, four_hourly):
    run_id = store.client.create_run(
        store.experiment_id,
        tags=hourly.run.data.tags | {tags.UNSCORED: '{"model": "8 returns are too few"}'},
    ).info.run_id
    scores = hourly.scores.assign(model_score=np.nan)
    unscored = replace(hourly, run=store.client.get_run(run_id), scores=scores)
    with pytest.raises(NotCompared, match="the state densities cannot be fitted: 8 returns"):
        compare(store.client, unscored, as_champion(four_hourly), fewest=500)


def test_data_that_have_changed_are_not_used(store, hourly):
    run_id = hourly.run.info.run_id
    digest = hourly.run.data.tags[tags.DATA_DIGEST]
    assert read_data(store.client, run_id).digest == digest
    store.client.set_tag(run_id, tags.DATA_DIGEST, "of other bars")
    assert read_data(store.client, run_id) is None
    store.client.set_tag(run_id, tags.DATA_DIGEST, digest)


def test_a_run_keeps_what_the_gate_reads(hourly, four_hourly):
    assert (len(hourly.states), len(hourly.scores)) == (900, 901)  # a return for the bar before
    assert len(four_hourly.states) == pytest.approx(900 / 4, abs=1)
    for evidence in (hourly, four_hourly):
        assert evidence.occupancy().sum() == pytest.approx(1.0)
        assert (evidence.dwell() > 1.0).all()
