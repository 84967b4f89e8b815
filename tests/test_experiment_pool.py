"""One model of many symbols: its rows, its likelihood against hmmlearn, its judgement."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.config import DataConfig, FeaturesConfig, SelectionConfig, SplitConfig
from hmm_exp.errors import ConfigError, DataError, FitError
from hmm_exp.experiment.assess import baselines_of
from hmm_exp.experiment.pool import Pool, fit_pool
from hmm_exp.experiment.pool_result import run_pool
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.hmm.fit import Search, fit_from, log_likelihood
from hmm_exp.hmm.posterior import Posterior
from hmm_exp.hmm.starts import starting_points
from hmm_exp.judge.return_forecasts import fit_return_densities
from hmm_exp.judge.split import TRAIN, VAL
from tests.pooled import SYMBOLS, own_scores, planted_panel, reader, settings, small_pool


@pytest.fixture(scope="module")
def configs():
    return {symbol: settings(symbol) for symbol in SYMBOLS}


@pytest.fixture(scope="module")
def pool(configs):
    return Pool.of(SYMBOLS, reader(configs))


def changed(configs, symbol, **data):
    """The same symbols, one of which has other data."""
    return configs | {symbol: replace(configs[symbol], data=replace(configs[symbol].data, **data))}


def bars_file(config, path, drop=()):
    """The bars of a synthetic symbol as a file, and the settings that read it."""
    frame = prepare(config).source.bars.frame.drop(columns=list(drop))
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(path, index=False)
    data = DataConfig(kind="bars", path=str(path), bar_stamp="open", name=config.data.name)
    return replace(config, data=data)


def test_the_rows_are_those_of_every_symbol_scaled_by_its_own_train(pool, configs):
    start = 0
    for symbol in SYMBOLS:
        prepared = prepare(configs[symbol])
        rows = prepared.train
        own = slice(start, start + int(rows.sum()))
        np.testing.assert_array_equal(pool.X[own], prepared.X[rows])
        np.testing.assert_array_equal(pool.steps[own], [0, *prepared.table.steps[rows][1:]])
        np.testing.assert_allclose(pool.X[own].mean(axis=0), 0.0, atol=1e-12)
        np.testing.assert_allclose(pool.X[own].std(axis=0), 1.0)
        start = own.stop
    assert start == len(pool.X)
    assert pool.symbols == SYMBOLS


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_a_pool_of_two_symbols_is_hmmlearn_with_their_lengths(configs, covariance):
    two = Pool.of(SYMBOLS[:2], reader(configs))
    lengths = [int(prepare(configs[symbol]).train.sum()) for symbol in SYMBOLS[:2]]
    point = starting_points(
        *(two.X, None),
        n_states=2,
        covariance_type=covariance,
        n_init=1,
        min_covar=1e-3,
        seed=3,
    )[0]
    search = Search(covariance_type=covariance, n_iter=12, tol=-np.inf, accelerate=False)
    ours = fit_from([point], two.X, two.steps, search)
    theirs = point.params.to_hmmlearn()
    theirs.init_params, theirs.monitor_.n_iter, theirs.monitor_.tol = "", 12, -np.inf
    theirs.n_iter = 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(two.X, lengths)
    assert ours.log_lik == pytest.approx(theirs.score(two.X, lengths), abs=1e-6)
    np.testing.assert_allclose(ours.params.transmat, theirs.transmat_, atol=1e-9)
    np.testing.assert_allclose(ours.params.means, theirs.means_, atol=1e-8)


def test_the_likelihood_is_the_sum_over_symbols(pool, configs):
    chosen = small_pool().fits.chosen
    total = 0.0
    for symbol in SYMBOLS:
        prepared = prepare(configs[symbol])
        X, steps = prepared.X[prepared.train], prepared.table.steps[prepared.train].copy()
        steps[0] = 0
        total += log_likelihood(chosen.params, X, steps)
    assert chosen.log_lik["train"] == pytest.approx(total, rel=1e-12)
    n, p = chosen.n_rows["train"], chosen.params.n_parameters()
    assert n == len(pool.X)
    assert chosen.criteria["bic"] == pytest.approx(-2 * total + p * np.log(n))


def test_the_order_of_the_symbols_changes_nothing_but_rounding(configs, pool):
    forward, back = fit_pool(pool), fit_pool(Pool.of(SYMBOLS[::-1], reader(configs)))
    assert forward.chosen.log_lik["train"] == pytest.approx(back.chosen.log_lik["train"], abs=0.05)
    np.testing.assert_allclose(forward.chosen.params.means, back.chosen.params.means, atol=0.01)


def test_validation_and_test_bars_of_any_symbol_change_no_bit_of_the_model(configs, tmp_path):
    """Rewrite what follows the train of one symbol."""
    config = bars_file(configs["ETH"], tmp_path / "ETH.csv")
    frame = pd.read_csv(config.data.path)
    later = frame.index >= int(0.7 * len(frame))
    prices = ["open", "high", "low", "close"]
    frame.loc[later, prices] *= 1 + 0.2 * np.random.default_rng(0).random((later.sum(), 1))
    frame["high"] = frame[prices].max(axis=1)
    frame["low"] = frame[prices].min(axis=1)
    frame.to_csv(tmp_path / "other.csv", index=False)
    other = replace(config, data=replace(config.data, path=str(tmp_path / "other.csv")))
    before, after = (
        fit_pool(Pool.of(SYMBOLS, reader(configs | {"ETH": one}))) for one in (config, other)
    )
    assert before.chosen.params.to_dict() == after.chosen.params.to_dict()
    assert before.labels == after.labels


def test_a_symbol_is_judged_by_the_model_on_its_own_scaled_rows(configs):
    """The densities of the next return are those of the symbol, its probabilities of the pool."""
    found = {}
    pool = Pool.of(SYMBOLS, reader(configs))
    result = run_pool(pool, lambda symbol: None, visit=found.__setitem__)
    assert tuple(found) == SYMBOLS
    prepared, params = prepare(configs["SOL"]), result.fits.chosen.params
    posterior = Posterior(params, prepared.X, prepared.table.steps)
    probs = np.full((len(prepared.row_of_bar), 2), np.nan)
    known = prepared.row_of_bar >= 0
    probs[known] = posterior.filtered.probs[prepared.row_of_bar[known]]
    returns, part = prepared.source.next_return, prepared.target_part
    densities = fit_return_densities(probs, np.where(part == TRAIN, returns, np.nan))
    scores = densities.log_score(probs, returns)
    static = baselines_of(prepared).static.log_score(np.ones((len(returns), 1)), returns)
    gain = np.nanmean((scores - static)[part == VAL])
    assert found["SOL"].metrics["return_gain_val"] == pytest.approx(gain, rel=1e-9)
    row = result.comparison.table.set_index("symbol").loc["SOL"]
    assert row["gain_val"] == pytest.approx(gain, rel=1e-9)


def test_the_gains_of_a_pool_are_means_over_symbols():
    result = small_pool()
    table = result.comparison.table
    for name, column in (("return_gain_val", "gain_val"), ("return_gain_test", "gain_test")):
        assert result.metrics[name] == pytest.approx(table[column].mean())
    assert {"return_gain_val_bound", "ewma_gain_test_error"} <= set(result.metrics)


def test_a_pool_of_symbols_with_equal_bars_is_as_good_as_the_model_of_one(configs):
    """Copies of one market: the pooled model is the single one."""
    same = {
        name: replace(configs["BTC"], data=replace(configs["BTC"].data, name=name))
        for name in ("A", "B", "C")
    }
    result = run_pool(Pool.of([*same], reader(same)), own_scores(same).get)
    assert result.comparison.table["difference"].abs().max() < 1e-5
    single = run(prepare(same["A"])).chosen
    total = result.fits.chosen.log_lik["train"]
    assert total == pytest.approx(3 * single.log_lik["train"], rel=1e-4)


@pytest.mark.slow
def test_a_pool_beats_the_models_of_short_symbols_that_share_one_planted_model(tmp_path):
    result = planted_panel(tmp_path, shared=True)
    assert "validation better than the models of each symbol: +0." in result.comparison.sentence
    assert (result.comparison.table["difference"] > 0).mean() > 0.8


@pytest.mark.slow
def test_a_pool_does_not_beat_the_models_of_symbols_that_differ(tmp_path):
    result = planted_panel(tmp_path, shared=False)
    assert "validation worse than the models of each symbol: -0." in result.comparison.sentence


def test_a_grid_of_states_is_chosen_by_the_rows_of_all_symbols(configs):
    grid = {
        symbol: replace(config, model=replace(config.model, n_states=None, state_grid=[2, 3]))
        for symbol, config in configs.items()
    }
    fits = fit_pool(Pool.of(SYMBOLS, reader(grid)))
    assert [candidate.n_states for candidate in fits.candidates] == [2, 3]
    assert fits.selection["n_states"].tolist() == [1, 2, 3]
    best = min(fits.candidates, key=lambda candidate: candidate.criteria["bic"])
    assert fits.chosen is best or best.faults
    assert all("val" in candidate.log_lik for candidate in fits.candidates)


def test_the_next_return_can_choose_the_number_of_states(configs):
    grid = {
        symbol: replace(
            config,
            model=replace(config.model, n_states=None, state_grid=[2, 3]),
            selection=SelectionConfig(within="bic_next"),
        )
        for symbol, config in configs.items()
    }
    fits = fit_pool(Pool.of(SYMBOLS, reader(grid)))
    values = {c.n_states: c.criteria["bic_next"] for c in fits.candidates if not c.faults}
    assert fits.chosen.n_states == min(values, key=values.get)


def test_symbols_that_are_short_or_cannot_be_read_are_left_out_by_name(configs, tmp_path):
    mixed = changed(configs, "ETH", n_bars=130)
    missing = DataConfig(kind="bars", path=str(tmp_path / "none.csv"), bar_stamp="open", name="SOL")
    mixed["SOL"] = replace(configs["SOL"], data=missing)
    pool = Pool.of(SYMBOLS, reader(mixed))
    assert pool.symbols == ("BTC", "DOGE")
    reasons = pool.left_out
    assert set(reasons) == {"ETH", "SOL"}
    assert "complete train rows: a pool needs 100 of every symbol" in reasons["ETH"]
    assert "none.csv" in reasons["SOL"]


def test_a_symbol_whose_data_change_meanwhile_is_left_out_by_name(configs):
    now = dict(configs)
    pool = Pool.of(SYMBOLS, reader(now))
    now |= changed(configs, "DOGE", n_bars=1234)
    result = run_pool(pool, lambda symbol: None)
    assert result.left_out == {"DOGE": "its data changed while the pool was fitted"}
    assert result.detector.symbols == SYMBOLS[:3]


def test_one_usable_symbol_is_no_pool(configs):
    with pytest.raises(FitError, match=r"a pool needs 2 symbols, 1 can be used; ETH: .*100 of"):
        Pool.of(["BTC", "ETH"], reader(changed(configs, "ETH", n_bars=130)))


@pytest.mark.parametrize("lacks", ["BTC", "ETH"])
def test_a_symbol_without_volume_is_refused_with_the_name_of_one_that_has_it(
    configs, tmp_path, lacks
):
    mixed = configs | {lacks: bars_file(configs[lacks], tmp_path / "bars.csv", drop=["volume"])}
    other = "ETH" if lacks == "BTC" else "BTC"
    rule = f"a pool with different columns: {lacks} has no volume, which {other} has"
    with pytest.raises(DataError, match=rule) as caught:
        Pool.of(["BTC", "ETH"], reader(mixed))
    assert "\n" not in str(caught.value)
    assert f"data.exclude=[{lacks}]" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        (["log_range_current_1H"], "ETH has no close_logret_current_1H, which BTC has"),
        (
            ["close_logret_current_1H", "log_range_current_1H", "close_parkinson_20_1H"],
            "ETH has close_parkinson_20_1H, which BTC has not",
        ),
        (["log_range_current_1H", "close_logret_current_1H"], "of BTC are in another order"),
    ],
)
def test_symbols_with_different_columns_are_refused_by_name(configs, columns, rule):
    wanted = ["close_logret_current_1H", "log_range_current_1H"]
    mixed = {
        symbol: replace(configs[symbol], features=FeaturesConfig(name="columns", columns=names))
        for symbol, names in (("BTC", wanted), ("ETH", columns))
    }
    with pytest.raises(DataError, match="a pool with different columns: ") as caught:
        Pool.of(["BTC", "ETH"], reader(mixed))
    assert rule.replace("of BTC", "those of ETH and BTC") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"split": SplitConfig(kind="walk_forward")}, "split=walk_forward: a pool is fitted once"),
        ({"model": {"refit": "train_val"}}, "model.refit=train_val: a pool serves its train fit"),
        ({"selection": SelectionConfig(cv_blocks=5)}, "selection.cv_blocks=5: a pool is not"),
    ],
)
def test_settings_that_a_pool_cannot_follow_are_refused(configs, change, rule):
    def read(symbol):
        config = configs[symbol]
        known = {
            name: replace(config.model, **value) if name == "model" else value
            for name, value in change.items()
        }
        return prepare(replace(config, **known))

    with pytest.raises(ConfigError, match=rule):
        Pool.of(SYMBOLS, read)


def test_without_a_column_of_volatility_the_states_are_ordered_by_scaled_returns(configs):
    """A symbol with prices of another scale has the same say."""
    features = FeaturesConfig(name="columns", columns=["log_volume_delta_current_1H"])
    plain = {symbol: replace(config, features=features) for symbol, config in configs.items()}
    pool = Pool.of(SYMBOLS, reader(plain))
    assert pool.volatility is None
    start = 0
    for symbol in SYMBOLS:
        n = int(prepare(plain[symbol]).train.sum())
        assert np.nanstd(pool.returns[start : start + n]) == pytest.approx(1.0)
        start += n
    params = fit_pool(pool).chosen.params
    probs = Posterior(params, pool.X, pool.steps).smoothed.probs
    known = np.isfinite(pool.returns)
    squares = (probs[known] * pool.returns[known, None] ** 2).sum(axis=0)
    spread = squares / probs[known].sum(axis=0)
    assert spread[0] < spread[1]
