"""A walk forward: its folds, that no row looks ahead, what is chosen, what comes out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from hmm_exp.config import Config, DataConfig, ModelConfig, SplitConfig, checked
from hmm_exp.detector.detector import Detector
from hmm_exp.errors import ConfigError, FitError
from hmm_exp.experiment import walk as walk_module
from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.experiment.walk import carried
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.market.iso import iso
from hmm_exp.market.synthetic import make_market

HOURS = pd.date_range("2024-01-01", periods=1000, freq="h", tz="UTC")
N_BARS = 3000
FIRST = 1500  # bars of the first fit
EVERY = 400
MARKET = make_market(N_BARS, 3, seed=7).frame
STAMPS = MARKET.index
PRICES = ["open", "high", "low", "close"]


def written(frame, path):
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(path, index=False)
    return path


def walked(path, *, grid=(2,), **split):
    """Run a walk with fixed instants on a file of bars."""
    instants = {"train_end": f"{STAMPS[FIRST - 1]}", "val_end": f"{STAMPS[2199]}"}
    config = Config(
        data=DataConfig(kind="bars", path=str(path), bar_stamp="open", name="m"),
        model=replace(ModelConfig(), n_init=2, state_grid=list(grid)),
        split=SplitConfig(**({"kind": "walk_forward", "refit_every": EVERY} | instants | split)),
    )
    return run(prepare(checked(config)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("walk")


@pytest.fixture(scope="module")
def result(folder):
    """The walk that the others are compared with."""
    return walked(written(MARKET, folder / "bars.csv"))


@pytest.fixture(scope="module")
def rolling(result, folder):
    return walked(folder / "bars.csv", window=1200)


def changed(frame, bars):
    """Bars rewritten: other prices, wilder moves, other volume."""
    frame = frame.copy()
    place = frame.index[bars]
    rng = np.random.default_rng(0)
    jump = np.exp(0.02 * rng.standard_normal(len(place)))
    for name in PRICES:
        frame.loc[place, name] *= 1.7 * jump
    frame.loc[place, "high"] *= 1.01
    frame.loc[place, "low"] /= 1.01
    frame.loc[place, "volume"] *= 9.0
    return frame


def params_of(refit):
    params = refit.candidate.params
    return [params.startprob, params.transmat, params.means, params.covars]


def assert_same_before(one, other, n_bars):
    """Rows, scores and fits that were known after `n_bars` bars are the same to the bit."""
    last = STAMPS[n_bars - 1]
    rows = [r.regimes[r.regimes["available_at"] <= last] for r in (one, other)]
    assert len(rows[0]) == n_bars - FIRST
    pd.testing.assert_frame_equal(*rows, check_exact=True)
    scores = [r.assessment.scores.iloc[: n_bars - 1].drop(columns="split") for r in (one, other)]
    assert scores[0]["model_score"].notna().sum() == n_bars - FIRST
    pd.testing.assert_frame_equal(*scores, check_exact=True)
    fits = [[f for f in r.walk.refits if f.fold.end <= n_bars] for r in (one, other)]
    assert len(fits[0]) == len(fits[1]) > 1
    for a, b in zip(*fits, strict=True):
        for x, y in zip(params_of(a), params_of(b), strict=True):
            np.testing.assert_array_equal(x, y)
        assert a.agreement == b.agreement


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ({"refit_every": 0}, "split.refit_every=0: must be at least 1"),
        ({"window": 3}, "split.window=3: must be at least 10"),
        ({"val": 0.0, "test": 0.6}, "chooses on its validation part"),
        ({"test": 0.4}, "must sum to 1"),
        ({"train_end": "2024-01-15"}, "split.val_end=..."),
    ],
)
def test_a_walk_that_cannot_be_is_refused(split, says):
    shares = {"kind": "walk_forward", "train": 0.4, "val": 0.3, "test": 0.3}
    with pytest.raises(ConfigError, match=says):
        checked(Config(split=SplitConfig(**(shares | split))))


def test_a_refit_on_validation_beside_a_walk_is_refused():
    config = Config(split=SplitConfig(kind="walk_forward"))
    config.model.refit = "train_val"
    with pytest.raises(ConfigError, match="last refit is the model"):
        checked(config)


def test_rewriting_the_future_changes_no_row(result, folder):
    known = 2450  # inside a block
    future = np.arange(known, N_BARS)
    other = walked(written(changed(MARKET, future), folder / "future.csv"))
    assert_same_before(result, other, known)
    last = [r.regimes["p_state_0"].iloc[-1] for r in (result, other)]
    assert last[0] != last[1]


def test_a_shorter_file_gives_the_same_rows(result, folder):
    known = 2450
    assert_same_before(result, walked(written(MARKET.iloc[:known], folder / "short.csv")), known)


def test_a_rolling_fit_forgets_and_an_expanding_one_does_not(folder, result):
    """A cold fit sees its window alone; a warm start hands the optimum before it on."""
    newest = {}
    for window in (1200, None):
        cold = {"window": window, "warm": False}
        first = result.walk.refits[-1].fold.end - 1200
        past = np.arange(100, first - 40)  # 40 bars: more than any lookback of v1
        path = written(changed(MARKET, past), folder / "past.csv")
        newest[window] = [walked(p, **cold) for p in (folder / "bars.csv", path)]
    one, other = newest[1200]
    for x, y in zip(*(params_of(r.walk.refits[-1]) for r in (one, other)), strict=True):
        np.testing.assert_array_equal(x, y)
    blocks = [r.regimes[r.regimes["refit"] == 3] for r in (one, other)]
    pd.testing.assert_frame_equal(*blocks, check_exact=True)
    scales = [r.walk.refits[-1].scaler.scale_ for r in newest[None]]
    assert (scales[0] != scales[1]).all()


def test_rows_before_a_rolling_window_change_nothing_that_a_fold_holds(rolling, folder):
    past = np.arange(0, rolling.walk.refits[1].fold.first - 40)
    config = rolling.config
    other = replace(
        config,
        data=replace(config.data, path=str(written(changed(MARKET, past), folder / "before.csv"))),
    )
    fold = rolling.walk.refits[1].fold
    one, two = (prepare(c).cut(fold) for c in (config, other))
    np.testing.assert_array_equal(one.X, two.X)
    np.testing.assert_array_equal(one.source.log_return, two.source.log_return)
    np.testing.assert_array_equal(one.row_of_bar, two.row_of_bar)


def test_the_first_block_is_that_of_a_single_fit_on_the_same_train(result, folder):
    once = walked(folder / "bars.csv", kind="dates")
    block = result.regimes[result.regimes["refit"] == 0].drop(columns="refit")
    same = once.regimes.set_index("available_at").loc[block["available_at"]].reset_index()
    pd.testing.assert_frame_equal(block, same[block.columns], check_exact=True)
    bars = slice(FIRST - 1, FIRST + EVERY - 1)
    names = ["model_score", "static_score", "ewma_score"]
    pd.testing.assert_frame_equal(
        result.assessment.scores[names][bars],
        once.assessment.scores[names][bars],
        check_exact=True,
    )


def test_the_last_block_is_the_detectors_own_answer(result):
    answer = result.detector.filter(result.prepared.source.bars)
    block = result.regimes[result.regimes["refit"] == len(result.walk.refits) - 1]
    answer = answer.tail(len(block)).reset_index(drop=True)
    block = block[list(answer.columns)].reset_index(drop=True)
    pd.testing.assert_frame_equal(answer, block, check_exact=True)
    assert result.detector.meta["train_end"] == iso(STAMPS[2699])


def test_every_bar_after_train_is_out_of_sample_and_no_other(result):
    regimes = result.regimes
    assert list(regimes["available_at"]) == list(STAMPS[FIRST:])
    assert list(regimes["split"].unique()) == ["val", "test"]
    np.testing.assert_array_equal(regimes["refit"], (np.arange(N_BARS - FIRST)) // EVERY)
    assert [refit.fold.end for refit in result.walk.refits] == [1500, 1900, 2300, 2700]
    probs = regimes.filter(like="p_state_").to_numpy()
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-12)
    assert "state_smoothed" not in regimes  # hindsight has no place among them


def test_metrics_are_means_over_the_walk(result):
    scores = result.assessment.scores
    for part in ("val", "test"):
        rows = scores[scores["split"] == part].dropna()
        gain = (rows["model_score"] - rows["static_score"]).mean()
        assert result.metrics[f"return_gain_{part}"] == pytest.approx(gain, rel=1e-12)
    assert (scores["split"] == "train").sum() == FIRST - 1
    assert result.metrics["n_refits"] == 4
    assert result.metrics["n_rows_train"] == result.walk.fitted.train.sum()
    assert 0.9 < result.metrics["label_agreement"] <= 1.0
    assert all(np.isfinite(value) for value in result.metrics.values())


def test_the_choice_is_the_best_out_of_sample_and_reads_no_test(folder, result):
    one = walked(folder / "bars.csv", grid=(2, 3))
    table = one.selection.set_index("n_states")
    assert one.n_states == table["return_gain_val"].idxmax()
    test = np.arange(2200, N_BARS)
    other = walked(written(changed(MARKET, test), folder / "test.csv"), grid=(2, 3))
    for name in ("return_score_val", "return_gain_val", "ewma_gain_val"):
        np.testing.assert_array_equal(one.selection[name], other.selection[name])
    assert one.n_states == other.n_states
    assert one.metrics["log_lik_val"] == other.metrics["log_lik_val"]


def test_a_fit_that_fails_is_refused_and_the_model_before_goes_on(folder, result, monkeypatch):
    fit, calls = walk_module.fit_candidate, []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise FitError("no start came to an end")
        return fit(*args, **kwargs)

    monkeypatch.setattr(walk_module, "fit_candidate", failing)
    other = walked(folder / "bars.csv")
    first, second, third, _ = other.walk.refits
    assert third.refused == ["no start came to an end"]
    assert third.candidate is second.candidate
    assert not first.refused
    assert other.metrics["n_refits_refused"] == 1
    assert any("1 of 4 fits were refused" in warning for warning in other.warnings)
    assert len(other.regimes) == len(result.regimes)


def test_a_degenerate_first_fit_makes_way_for_the_next(folder):
    other = walked(folder / "bars.csv", grid=(12,))
    assert other.walk.refits[0].candidate.faults
    assert other.faults == other.walk.refits[-1].candidate.faults


@pytest.mark.parametrize("kind", ["diag", "full", "tied", "spherical"])
def test_a_warm_start_is_the_same_model_in_other_units(kind):
    rng = np.random.default_rng(3)
    raw = rng.normal([1.0, -2.0], [3.0, 3.0], size=(200, 2))
    before, after = StandardScaler().fit(raw[:100]), StandardScaler().fit(raw)
    if kind == "spherical":  # units that stretch all features alike
        before.scale_, after.scale_ = np.full(2, 2.0), np.full(2, 3.0)
    full = np.array([[[1.0, 0.2], [0.2, 0.5]], [[2.0, -0.1], [-0.1, 1.0]]])
    covars = {
        "full": full,
        "tied": full[0],
        "diag": np.array([[1.0, 0.5], [2.0, 1.0]]),
        "spherical": np.array([1.0, 2.0]),
    }
    chain = np.array([[0.9, 0.1], [0.0, 1.0]])
    params = GaussianParams(
        np.array([1.0, 0.0]), chain, rng.normal(size=(2, 2)), covars[kind], kind
    )
    start = carried(params, before, after)
    old, new = ((raw - s.mean_) / s.scale_ for s in (before, after))
    units = np.log(before.scale_ / after.scale_).sum()
    np.testing.assert_allclose(log_density(params, old), log_density(start, new) + units)
    assert (start.transmat > 0).all()
    np.testing.assert_array_equal(start.startprob, [0.5, 0.5])


def test_a_walk_without_returns_is_chosen_by_likelihood(folder, result):
    table = result.prepared.table
    frame = table.frame.drop(columns="close_logret_current_1H")
    frame.insert(0, "timestamp", table.timestamp.to_numpy())
    frame.to_csv(folder / "features.csv", index=False)
    config = replace(
        result.config,
        data=replace(result.config.data, kind="features", path=str(folder / "features.csv")),
        features=replace(result.config.features, name="columns"),
        model=replace(result.config.model, state_grid=[2, 3]),
    )
    other = run(prepare(checked(config)))
    assert other.assessment.scores is None
    assert not [name for name in other.metrics if "gain" in name]
    table = other.selection.set_index("n_states")
    assert other.n_states == table["log_lik_val"].idxmax()


def test_coarser_rows_are_scored_on_every_bar_after_train(result):
    config = replace(
        result.config, timeframe=replace(result.config.timeframe, name="4H", timeframes=["4H"])
    )
    other = run(prepare(checked(config)))
    scored = np.flatnonzero(other.assessment.scores["model_score"].notna())
    np.testing.assert_array_equal(scored, np.arange(FIRST - 1, N_BARS - 1))
    assert other.detector.recipe.grid == "4H"


def test_walks_and_single_fits_are_different_spaces(result, rolling, folder):
    once = replace(result.config, split=replace(result.config.split, kind="dates"))
    spaces = {
        result.prepared.observation_space,
        rolling.prepared.observation_space,
        prepare(once).observation_space,
    }
    assert len(spaces) == 3


def test_artifacts_hold_the_fits_and_their_drift(result, tmp_path):
    write_artifacts(result, tmp_path)
    refits = pd.read_csv(tmp_path / "refits.csv")
    assert list(refits["refit"]) == [0, 1, 2, 3]
    assert refits["label_agreement"].notna().sum() == 3
    gains = ["return_gain", "ewma_gain", "range_ewma_gain"]
    assert np.isfinite(refits[["return_score", *gains]]).all(axis=None)
    assert "added_gain_val" not in result.metrics  # every refit would have its own
    drift = pd.read_csv(tmp_path / "drift.csv")
    assert len(drift) == 4 * 2
    summary = result.assessment.summary
    last = drift[drift["refit"] == 3].filter(like="mean_").to_numpy()
    np.testing.assert_allclose(last, summary.means)
    names = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert {"drift", "price", "probabilities", "dwell_times", "criteria"} <= names
    regimes = pd.read_csv(tmp_path / "regimes.csv")
    assert len(regimes) == N_BARS - FIRST
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert len(scores) == N_BARS
    result.detector.save(tmp_path / "detector.json")
    assert Detector.load(tmp_path).n_states == 2
