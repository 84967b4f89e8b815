"""The character benchmark: its markets are what they say, its verdicts are the product's."""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import character, markets
from hmm_exp.config import Config, DataConfig, ModelConfig, checked
from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.market.synthetic import make_market
from hmm_exp.registry.evidence import read_evidence
from hmm_exp.registry.gate import judge, named_gate
from hmm_exp.serving.mlflow_model import log_detector
from hmm_exp.tracking import tags
from tests.small_detector import forget_store, store_in


def returns_of(bars):
    return np.diff(np.log(bars.frame["close"].to_numpy()))


def correlation(x, lag):
    return np.corrcoef(x[:-lag], x[lag:])[0, 1]


@pytest.mark.parametrize("n_regimes", [2, 3])
def test_planted_markets_follow_their_true_model(n_regimes):
    bars, model = make_market(60_000, n_regimes, seed=3), markets.true_model(n_regimes)
    pairs = bars.states[:-1] * n_regimes + bars.states[1:]
    counts = np.bincount(pairs, minlength=n_regimes**2).reshape(n_regimes, n_regimes)
    found = counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, model.transmat, atol=0.003)
    np.testing.assert_allclose(model.transmat.sum(axis=1), 1.0)
    own, states = returns_of(bars), bars.states[1:]
    for k in range(n_regimes):
        law = stats.t(model.df, model.loc[k], model.scale[k])
        assert stats.kstest(own[states == k], law.cdf).statistic < 0.015


def test_independent_returns_are_fat_tailed_and_nothing_else():
    returns = returns_of(markets.iid_market(40_000, seed=1))
    scale = markets.VOLATILITY * np.sqrt((markets.IID_DF - 2) / markets.IID_DF)
    assert stats.kstest(returns, stats.t(markets.IID_DF, 0.0, scale).cdf).statistic < 0.01
    assert abs(correlation(np.abs(returns), 1)) < 0.02


def test_garch_returns_follow_the_recursion():
    returns = returns_of(markets.garch_market(40_000, seed=1)) / markets.VOLATILITY
    first = np.log(markets.garch_market(40_000, seed=1).frame["close"].iloc[0] / 20_000.0)
    returns = np.append(first / markets.VOLATILITY, returns)
    variance = np.ones(len(returns))
    for t in range(1, len(returns)):
        news = markets.ARCH * returns[t - 1] ** 2
        kept = (markets.PERSISTENCE - markets.ARCH) * variance[t - 1]
        variance[t] = 1.0 - markets.PERSISTENCE + news + kept
    errors = returns / np.sqrt(variance)
    scale = np.sqrt((markets.GARCH_DF - 2) / markets.GARCH_DF)
    assert stats.kstest(errors, stats.t(markets.GARCH_DF, 0.0, scale).cdf).statistic < 0.01
    assert abs(correlation(np.abs(errors), 1)) < 0.02 < 0.1 < correlation(np.abs(returns), 20)


def test_the_true_model_scores_by_the_plain_filter_and_sees_no_future():
    model = markets.true_model(3)
    returns = np.append(returns_of(make_market(400, 3, seed=2)), np.nan)
    probs, expected = np.full(3, 1 / 3), []
    for value in returns:
        ahead = probs @ model.transmat
        density = stats.t.pdf(value, model.df, model.loc, model.scale)
        expected.append(np.log(ahead @ density))
        probs = ahead * density / (ahead @ density)
    found = markets.true_scores(3, returns)
    np.testing.assert_allclose(found[:-1], expected[:-1], rtol=1e-9)
    later = returns.copy()
    later[200:] *= -3.0
    np.testing.assert_array_equal(markets.true_scores(3, later)[:200], found[:200])


@pytest.fixture(scope="module")
def result():
    settings = Config(data=DataConfig(n_bars=4000), model=ModelConfig(n_init=1, n_states=3))
    return run(prepare(checked(settings)))


def test_the_gate_hears_what_it_would_read_of_the_record(result, tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = store_in(tmp_path)
    told = {tags.INSTRUMENT: "market", tags.DATA_KIND: "bars"}
    run_id = store.client.create_run(store.experiment_id, tags=told).info.run_id
    with tempfile.TemporaryDirectory() as folder:
        write_artifacts(result, Path(folder))
        store.client.log_artifacts(run_id, folder)
    log_detector(store.experiment_id, run_id, result.detector)
    store.client.set_terminated(run_id)
    stored = read_evidence(store.client, store.client.get_run(run_id))
    told = character.evidence_of(result)
    for name in character.GATES:
        gate = named_gate(name)
        findings = judge(store.client, stored, None, gate).findings
        assert judge(None, told, None, gate).findings == findings != []
    np.testing.assert_array_equal(told.states, stored.states)
    np.testing.assert_array_equal(told.steps, stored.steps)
    forget_store()


def asked(path: Path, **changes) -> argparse.Namespace:
    given = {
        "markets": 1,
        "sweeps": 1,
        "harder": 0,
        "cv": 0,
        "bars": 1500,
        "seed": 4,
        "workers": 1,
        "out": path,
    }
    return argparse.Namespace(**given | changes)


@pytest.fixture(scope="module")
def record():
    return character.examine("planted 2", 1500, 4, swept=True, cross_validated=False)


def test_a_market_is_judged_in_every_space(record):
    json.dumps(record)
    assert record["errors"] == {}
    assert set(record["states"]) == set(record["verdicts"]) == set(character.SPACES)
    assert set(record["states"]["returns"]) == {"BIC", "ICL", "next return"}
    assert record["truth"]["ewma_gain"] > 0.0
    assert record["winner"] in character.SWEEP
    assert record["doubts"] == {space: space == character.MULTI for space in character.SPACES}
    assert record["states"]["range"]["BIC"] == 2
    assert record["accuracy"]["range"] > 0.9


def test_a_harder_market_is_judged_in_range_alone():
    record = character.examine("planted 3, df 5", 1500, 4, swept=False, cross_validated=False)
    assert set(record["states"]) == {"range"}
    assert (record["truth"], record["winner"]) == ({}, None)


def test_markets_that_are_known_are_not_examined_again(record, tmp_path):
    path = tmp_path / "known.jsonl"
    known = [record | {"kind": kind} for kind in markets.KINDS]
    path.write_text("".join(json.dumps(of) + "\n" for of in known))
    assert list(character.work(asked(path))) == known
    assert len(path.read_text().splitlines()) == len(known)


def test_tables_count_what_the_records_say(record):
    findings = {"default": [], "strict": [], "strictest": ["why"]}
    passing = dict.fromkeys(character.SPACES, findings)
    refused = dict.fromkeys(character.SPACES, findings | {"strict": ["why"]})
    records = [record | {"verdicts": verdict} for verdict in (passing, passing, refused)]
    records.append(record | {"verdicts": passing, "winner": None})
    gate, states, _ = character.tables(records).split("\n\n")
    cells = [cell.strip() for cell in gate.splitlines()[-1].strip("|").split("|")]
    assert cells[:5] == ["planted 2", "4", "75.0 % of 4", "50.0 % of 4", "0.0 % of 4"]
    assert cells[6:15] == ["100.0 % of 4", "75.0 % of 4", "0.0 % of 4"] * 3
    assert cells[17] == f"{4 * character._is_right(record)} of 4"
    n_states = record["states"]["returns"]["BIC"]
    line = next(line for line in states.splitlines() if "| returns | BIC |" in line)
    shares = [cell.strip() for cell in line.strip("|").split("|")][3:]
    assert shares == ["4", *("100 %" if k == n_states else "0 %" for k in character.STATES)]
