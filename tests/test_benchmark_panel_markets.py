"""The benchmark of panels of markets: its markets, and its short way through the chain."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks import panel_markets as benchmark
from hmm_exp.config import FeaturesConfig
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run


def returns_of(bars):
    return np.diff(np.log(bars["close"].to_numpy()))


@pytest.mark.parametrize(("kind", "expected"), [("iid", 0.0), ("factor", 0.5)])
def test_symbols_end_together_and_share_the_variance_that_is_asked(kind, expected):
    symbols = [bars for _, bars in benchmark.panel(kind, 0)]
    assert len(symbols) == benchmark.N_SYMBOLS
    assert len({bars["timestamp"].iloc[-1] for bars in symbols}) == 1
    lengths = np.array([len(bars) for bars in symbols])
    assert 5 < (lengths < benchmark.N_BARS).sum() < 30
    assert lengths.min() >= benchmark.FEWEST_BARS
    shared = [returns_of(bars)[-2400:] for bars in symbols]
    common = np.corrcoef(shared)[np.triu_indices(len(shared), 1)].mean()
    assert common == pytest.approx(expected, abs=0.1)  # of returns with heavy tails
    assert all((bars["high"] >= bars["close"]).all() for bars in symbols)


def test_worthless_returns_have_a_volatility_that_does_not_last():
    moves = [np.abs(returns_of(bars)) for _, bars in benchmark.panel("iid", 1)]
    lasting = [np.corrcoef(move[:-1], move[1:])[0, 1] for move in moves]
    assert abs(np.mean(lasting)) < 0.01


@pytest.mark.parametrize("place", [2, 30])  # planted, and worthless
def test_the_short_way_finds_the_gain_of_the_cells_of_a_sweep(tmp_path, place):
    path = tmp_path / "market.parquet"
    symbols = list(benchmark.panel("planted", 0))
    symbols[place][1].to_parquet(path)
    config = next(benchmark.prepared_spaces(path)).config
    best = {}
    for space in benchmark.SPACES:
        for n_states in benchmark.STATES:
            model = replace(config.model, n_states=n_states)
            features = FeaturesConfig(name=space)
            cell = run(prepare(replace(config, features=features, model=model)))
            if not cell.faults and (
                space not in best or cell.metrics["bic"] < best[space].metrics["bic"]
            ):
                best[space] = cell
    gains = {}
    for space, cell in best.items():
        scores = cell.assessment.scores.set_index("available_at")
        gain = scores["model_score"] - scores["static_score"]
        gains[space] = pd.DataFrame({"gain": gain, "split": scores["split"]})
    val = pd.DataFrame({name: g["gain"][g["split"] == "val"] for name, g in gains.items()})
    space = val.dropna().mean().idxmax()
    expected = gains[space].query("split == 'test'")["gain"].dropna()
    name, found = benchmark.winner(path)
    assert name == f"{space} K={best[space].n_states}"
    pd.testing.assert_series_equal(found["return_gain"], expected, check_names=False)


@pytest.fixture
def record():
    """A panel of which one symbol has no winner and two are promoted, one of them worthless."""
    ratios = [3.0, 3.0, *[1.0] * 48]
    p = [1e-6, 0.5, None, 1e-5, *[0.6] * 46]
    names = [None if value is None else "v1 K=3" for value in p]
    gain = [None if value is None else 0.1 for value in p]
    about = {"kind": "planted", "number": 0, "seconds": 1.0}
    return about | {"ratio": ratios, "winner": names, "gain": gain, "p": p}


def test_the_report_counts_false_and_true_promotions(record):
    planted = benchmark.report([record])
    assert "48 worthless symbols, 2.1% without an eligible cell" in planted
    assert "false share of the promoted: 50.00%" in planted
    assert "power, ratio 3.0: 50.0% of 2" in planted
    quiet = record | {"kind": "iid", "number": 1, "ratio": [1.0] * 50, "p": [0.5] * 50}
    worthless = benchmark.report([record | {"kind": "iid"}, quiet])
    assert "panels that promote a symbol: 1 of 2 = 50.0% (1.3% to 98.7%)" in worthless


def test_panels_that_are_known_are_not_examined_again(record, tmp_path):
    path = tmp_path / "known.jsonl"
    path.write_text(json.dumps(record) + "\n")
    args = argparse.Namespace(panels=2, kinds=["planted"], workers=1, out=path)
    assert list(benchmark.work(args)) == [record]
