"""Backtest of a stored model: judged after its training and validation, as its run judged it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.backtest.backtest import BacktestOptions, backtest_bars, rules_of
from hmm_exp.commands.backtest import main
from hmm_exp.config import Config, DataConfig, ModelConfig, SplitConfig, TimeframeConfig, checked
from hmm_exp.detector.detector import Detector
from hmm_exp.errors import ConfigError, DataError, HistoryError, ModelError
from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.judge.strategy_words import in_words
from hmm_exp.market.synthetic import make_market
from tests.test_registered_before import MODEL as REGISTERED_BEFORE

N_BARS = 3000
PRICES = ["open", "high", "low", "close"]


def config(**changes):
    plain = Config(
        data=DataConfig(n_bars=N_BARS, name="synthetic", bar_stamp="open"),
        model=replace(ModelConfig(), n_init=2, n_states=3),
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def market():
    return make_market(N_BARS)


@pytest.fixture(scope="module")
def result():
    return run(prepare(checked(config())))


@pytest.fixture(scope="module")
def folder(result, market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backtest")
    result.detector.save(folder / "detector.json")
    market.frame.to_csv(folder / "bars.csv", index=False)
    return folder


def command(folder, *words):
    return main(["--model", f"{folder}/detector.json", "--bars", f"{folder}/bars.csv", *words])


def numbers(rows):
    return rows.drop(columns="part")


def test_a_backtest_of_the_file_of_a_run_gives_the_table_of_the_run(result, market):
    found = backtest_bars(result.detector, market).table
    pd.testing.assert_frame_equal(numbers(found.rows), numbers(result.strategies.rows))
    assert result.strategies.rows["part"].unique().tolist() == ["test"]
    assert found.rows["first"][0] > result.prepared.split.val_end


def test_a_run_judges_test_alone(result):
    judged = pd.to_datetime(result.strategies.time, utc=True)
    assert (result.prepared.split.of(judged) == 2).all()
    assert len(judged) == (result.prepared.split.of(result.prepared.source.time) == 2).sum()


def test_the_future_changes_no_position_and_no_rule(result, market):
    """Bars after one in the middle of test are rewritten; the positions before it stay."""
    at = N_BARS - 200
    frame = market.frame.copy()
    frame.loc[frame.index[at:], PRICES] *= 1.3
    frame.loc[frame.index[at:], "volume"] *= 5
    before = backtest_bars(result.detector, market).table
    after = backtest_bars(result.detector, replace(market, frame=frame)).table
    n = at - (N_BARS - len(before.time))
    assert np.array_equal(before.held[:, : n + 1], after.held[:, : n + 1])
    assert np.array_equal(before.net[:, :n], after.net[:, :n])
    assert not np.array_equal(before.net[:, n:], after.net[:, n:])


def test_a_file_that_starts_later_warms_up_and_judges_the_same_bars(result, market):
    short = replace(market, frame=market.frame.iloc[-1500:])
    whole, part = (backtest_bars(result.detector, bars).table for bars in (market, short))
    assert np.array_equal(whole.time, part.time)
    assert np.allclose(whole.held, part.held, atol=1e-3)


def test_bars_of_training_and_validation_are_never_judged(result, market):
    val_end = result.prepared.split.val_end
    earlier = market.frame[market.frame.index <= val_end]
    with pytest.raises(DataError, match="0 bars to judge, at least 100 are needed"):
        backtest_bars(result.detector, replace(market, frame=earlier))
    early = BacktestOptions(since=market.frame.index[10])
    assert backtest_bars(result.detector, market, early).table.rows["first"][0] > val_end
    since = market.frame.index[-150]
    later = backtest_bars(result.detector, market, BacktestOptions(since=since)).table
    assert later.rows["first"][0] == market.frame.index[-149]


def test_too_short_a_file_is_refused_with_the_number(result, market):
    with pytest.raises(HistoryError, match="too few"):
        backtest_bars(result.detector, replace(market, frame=market.frame.iloc[-20:]))


def test_a_refit_learns_its_rules_on_validation_too_and_judges_after_it(result):
    refit = run(prepare(checked(config(model=replace(config().model, refit="train_val")))))
    rules, after = rules_of(refit.detector)
    assert after == result.prepared.split.val_end
    assert rules.target != rules_of(result.detector)[0].target
    pd.testing.assert_frame_equal(refit.strategies.rows, result.strategies.rows)


def test_cost_delay_and_target_of_the_user_replace_those_of_training(result, market):
    options = BacktestOptions(cost_bp=0.0, delays=(5,), target=0.01)
    rows = backtest_bars(result.detector, market, options).table.rows
    assert rows["delay"].unique().tolist() == [5]
    assert rows["cost_bp"].unique().tolist() == [0.0]
    targeted = rows[rows["strategy"] == "regime_target"]
    assert (targeted["volatility"] < 0.02).all()


def test_a_delay_that_training_did_not_learn_is_refused_with_the_cure(result, market):
    with pytest.raises(ConfigError, match=r"--delays 3: .* delays of 1, 5; strategy.delays=\[3\]"):
        backtest_bars(result.detector, market, BacktestOptions(delays=(1, 3)))


def test_delays_and_cost_of_the_config_are_learned_stored_and_served(market):
    settings = config()
    settings.strategy = replace(settings.strategy, delays=[2], cost_bp=3.0)
    detector = run(prepare(checked(settings))).detector
    rows = backtest_bars(detector, market).table.rows
    assert rows["delay"].unique().tolist() == [2]
    assert rows["cost_bp"].unique().tolist() == [3.0]


@pytest.mark.parametrize("delays", [[], [0], [1, 1], [1001]])
def test_impossible_delays_are_refused(delays):
    settings = config()
    settings.strategy = replace(settings.strategy, delays=delays)
    with pytest.raises(ConfigError, match=r"strategy.delays=.*distinct whole numbers"):
        checked(settings)


def test_the_rules_survive_a_file(result, tmp_path):
    result.detector.save(tmp_path / "detector.json")
    assert rules_of(Detector.load(tmp_path / "detector.json")) == rules_of(result.detector)


def test_a_model_without_rules_is_refused_with_the_cure(result, market):
    with pytest.raises(ModelError, match=r"no trading rules: .* train it again"):
        backtest_bars(replace(result.detector, strategy={}), market)
    with pytest.raises(ModelError, match="no trading rules"):
        backtest_bars(Detector.load(REGISTERED_BEFORE), market)


def test_a_damaged_rule_is_named(result, market):
    broken = {**result.detector.strategy, "judged_after": "soon"}
    with pytest.raises(ModelError, match=r"strategy.judged_after is 'soon'"):
        backtest_bars(replace(result.detector, strategy=broken), market)


def test_a_table_of_features_has_no_strategies(tmp_path, market):
    from hmm_exp.features.build import build_features
    from hmm_exp.features.recipe import Recipe

    table = build_features(market, Recipe.of_set("v1", ["1H"]))
    path = tmp_path / "v1.csv"
    table.frame.assign(timestamp=table.timestamp).to_csv(path, index=False)
    data = DataConfig(kind="features", path=str(path), bar_stamp="open")
    found = run(prepare(checked(config(data=data))))
    assert found.strategies is None
    assert found.detector.strategy == {}
    assert not [name for name in found.metrics if name.startswith("strategy")]
    write_artifacts(found, tmp_path)
    assert not (tmp_path / "strategy.csv").exists()
    assert not (tmp_path / "plots" / "strategy.png").exists()


def test_a_single_walk_of_one_number_of_states_judges_validation_too():
    split = SplitConfig(kind="walk_forward", train=0.5, val=0.2, test=0.3, refit_every=500)
    fixed = run(prepare(checked(config(split=split))))
    grid = replace(config().model, n_states=None, state_grid=[2, 3])
    chosen = run(prepare(checked(config(split=split, model=grid))))
    assert fixed.strategies.rows["bars"][0] == N_BARS // 2
    assert chosen.strategies.rows["bars"][0] == 0.3 * N_BARS
    assert "validation and test, rules learned anew" in fixed.strategies.rows["part"][0]
    assert "states of the last refit" in in_words(fixed.strategies.rows).invested
    assert "refit" not in in_words(run(prepare(checked(config()))).strategies.rows).invested
    assert rules_of(fixed.detector)[1] == pd.Timestamp(fixed.detector.meta["train_end"])


def test_a_walk_decides_by_rules_of_its_past_alone(tmp_path, market):
    """Bars after a refit are rewritten: positions that were decided before them stay."""
    split = SplitConfig(kind="walk_forward", train=0.5, val=0.2, test=0.3, refit_every=500)
    frame = market.frame.copy()
    frame.loc[frame.index[2300:], PRICES] *= np.linspace(1, 2, 700)[:, None]
    found = []
    for name, bars in (("plain", market.frame), ("changed", frame)):
        bars.to_parquet(tmp_path / f"{name}.parquet")
        data = DataConfig(
            kind="bars", path=str(tmp_path / f"{name}.parquet"), bar_stamp="open", name="m"
        )
        found.append(run(prepare(checked(config(split=split, data=data)))).walk.positions)
    plain, changed = found
    assert plain[:, 1499:2300].any(axis=1).all()
    assert np.array_equal(plain[:, :2300], changed[:, :2300])
    assert not np.array_equal(plain[:, 2300:], changed[:, 2300:])


def test_the_command_prints_tables_and_verdict_and_writes_its_files(folder, result, capsys):
    output, figure = folder / "table.csv", folder / "strategy.png"
    assert command(folder, "--output", f"{output}", "--figure", f"{figure}") == 0
    text = capsys.readouterr().out
    for words in ("buy and hold", "regime, volatility target", "200-bar average", "drawdown"):
        assert words in text
    *_, invested, verdict, judged = text.strip().splitlines()
    assert invested.startswith("invested states, by their later return on train: ")
    assert "buy and hold" in verdict
    assert judged.startswith("judged: bars after training and validation, 450 bars, ")
    assert figure.stat().st_size > 10_000
    written = pd.read_csv(output)
    assert written["sharpe"].to_numpy() == pytest.approx(result.strategies.rows["sharpe"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--delays", "3"), "error: --delays 3: the model knows its invested states"),
        (("--from", "2031-01-01"), "0 bars to judge, at least 100 are needed"),
        (("--from", "soon"), "error: --from soon is not a date"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, words, message):
    assert command(folder, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--delays", "1,1"), "'1,1': must be distinct whole numbers of bars"),
        (("--delays", "0"), "at least 1, such as 1,5"),
        (("--cost-bp", "-1"), "-1: must be 0 to 1,000"),
        (("--cost-bp", "nan"), "nan: must be 0 to 1,000"),
        (("--target", "much"), "'much': must be a number"),
    ],
)
def test_a_wrong_option_is_one_line(folder, capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        command(folder, *words)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_coarser_model_acts_at_the_closes_of_its_rows(market):
    timeframe = TimeframeConfig(name="4H", timeframes=["4H"])
    found = run(prepare(checked(config(timeframe=timeframe))))
    table = found.strategies
    again = backtest_bars(found.detector, market).table
    pd.testing.assert_frame_equal(numbers(again.rows), numbers(table.rows))
    rules = found.detector.strategy["rules"] | {"invested": {"1": [0], "5": [0]}}
    calm = replace(found.detector, strategy=found.detector.strategy | {"rules": rules})
    table = backtest_bars(calm, market).table
    place = table.rows.index[(table.rows["strategy"] == "regime") & (table.rows["delay"] == 1)][0]
    changes = np.flatnonzero(np.diff(table.held[place])) + 1
    assert len(changes)
    decided = pd.to_datetime(table.time[changes - 1], utc=True)  # one bar before it earns
    assert (decided.hour % 4 == 0).all()


def test_one_state_equals_buy_and_hold_or_cash(market):
    found = run(prepare(checked(config(model=replace(config().model, n_states=1)))))
    rows = found.strategies.rows
    notes = set(rows.loc[rows["strategy"] == "regime", "note"])
    assert notes <= {"equals buy and hold", "equals cash"}
