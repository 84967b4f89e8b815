"""The watch over a model: quiet markets pass, moved ones alarm, nothing looks ahead."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.commands.monitor import ALARM, main
from hmm_exp.config import checked
from hmm_exp.detector.detector import Detector
from hmm_exp.errors import DataError, ModelError
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.judge.volatility_baselines import VOLATILITY, BarSeries
from hmm_exp.market.synthetic import make_market
from hmm_exp.monitor.expectations import expectations_of
from hmm_exp.monitor.monitor import monitor_bars

N_BARS = 8000
PRICES = ["open", "high", "low", "close"]


def fitted(small_config, **features):
    """A run on a market that is long enough for its regimes to come back."""
    config = replace(small_config, data=replace(small_config.data, n_bars=N_BARS))
    return run(prepare(checked(replace(config, **features))))


@pytest.fixture(scope="module")
def result():
    from tests.conftest import small_config

    return fitted(small_config.__wrapped__())


@pytest.fixture(scope="module")
def detector(result):
    return result.detector


@pytest.fixture(scope="module")
def quiet():
    """Another market of the same law, of which all is after the training by date."""
    return later(make_market(n_bars=2500, seed=5))


@pytest.fixture(scope="module")
def moved(quiet):
    """The same with moves three times as large in its second half."""
    log = np.log(quiet.frame[PRICES].to_numpy())
    before = np.append(log[0, 0], log[:-1, 3])
    moves = log - before[:, None]
    moves[1250:] *= 3
    close = log[0, 0] + np.cumsum(moves[:, 3])
    frame = quiet.frame.copy()
    prices = np.exp(moves + np.append(log[0, 0], close[:-1])[:, None])
    frame.loc[frame.index[1250:], PRICES] = prices[1250:]
    return replace(quiet, frame=frame)


def later(bars):
    years = pd.Timedelta(days=3653)
    frame = bars.frame.set_index(bars.frame.index + years)
    return replace(bars, frame=frame.assign(timestamp=frame["timestamp"] + years), states=None)


@pytest.fixture(scope="module")
def folder(detector, quiet, moved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitor")
    detector.save(folder / "detector.json")
    quiet.frame.to_csv(folder / "quiet.csv", index=False)
    moved.frame.to_csv(folder / "moved.csv", index=False)
    return folder


def test_a_run_promises_what_it_showed_out_of_sample(result, detector):
    expected = expectations_of(detector)
    metrics = result.metrics
    shown = metrics["log_lik_val"] + metrics["log_lik_test"]
    n_rows = (result.prepared.part > 0).sum()
    assert expected.held_out
    assert expected.n_rows == n_rows
    assert expected.log_lik.mean == pytest.approx(shown / n_rows, rel=1e-6)
    scores = result.assessment.scores
    later = scores["available_at"] > pd.Timestamp(detector.meta["train_end"])
    assert expected.score.mean == pytest.approx(scores["model_score"][later].mean(), rel=1e-6)
    assert expected.shares.sum() == pytest.approx(1)


def test_what_is_promised_of_a_bar_depends_on_its_regime(detector):
    """A calm bar is likelier than a turbulent one, and that is no news."""
    by_state = expectations_of(detector).score.by_state
    assert (np.diff(by_state) < 0).all()


def test_the_promise_survives_a_file(detector, tmp_path):
    detector.save(tmp_path / "detector.json")
    loaded = Detector.load(tmp_path)
    assert loaded.expectations == detector.expectations
    assert expectations_of(loaded).to_dict() == detector.expectations


def test_a_model_of_an_earlier_version_loads_and_has_no_baseline(detector, quiet):
    older = replace(detector, expectations={})
    assert older.filter(quiet).equals(detector.filter(quiet))
    with pytest.raises(ModelError, match=r"no monitoring baseline.*train it again"):
        monitor_bars(older, quiet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_lik": None}, "promise.log_lik is None: must be a JSON object"),
        ({"first": "yesterday"}, "promise.first is 'yesterday': must be an ISO time"),
        ({"first": "2021-01-01"}, "with a zone"),
        ({"last": "1900-01-01T00:00:00+00:00"}, "must not be before promise.first"),
        ({"n_rows": 1}, "promise.n_rows is 1: must be a whole number, at least 100"),
        ({"held_out": "yes"}, "promise.held_out is 'yes': must be true or false"),
        ({"shares": [0.9, 0.9]}, "promise.shares"),
        ({"share_charts": []}, "one for each of several states"),
        ({"surprise": 1}, "promise.surprise is unknown"),
        ({"volatility": {"best": {}}}, "promise.volatility.best is unknown"),
        ({"volatility": {"ewma": {"of_range": True}}}, "promise.volatility.ewma.ewma is missing"),
    ],
)
def test_a_damaged_promise_names_the_field_and_the_rule(detector, change, message):
    assert expectations_of(detector).to_dict() == detector.expectations
    with pytest.raises(ModelError, match=message):
        expectations_of(replace(detector, expectations=detector.expectations | change))


@pytest.mark.parametrize("name", ["log_lik", "yardstick", "score", "shares"])
def test_a_torn_promise_names_what_it_lacks(detector, name):
    torn = {part: value for part, value in detector.expectations.items() if part != name}
    with pytest.raises(ModelError, match=f"promise.{name} is missing"):
        expectations_of(replace(detector, expectations=torn))


@pytest.mark.parametrize("name", ["mean", "spread", "allowance", "threshold"])
@pytest.mark.parametrize("value", [None, "1", True, 1e400])
def test_a_damaged_chart_is_refused(detector, name, value):
    log_lik = detector.expectations["log_lik"]
    bad = log_lik | {"chart": log_lik["chart"] | {name: value}}
    with pytest.raises(ModelError, match=f"promise.log_lik.chart.{name} is .*: must be a number"):
        expectations_of(replace(detector, expectations=detector.expectations | {"log_lik": bad}))


def test_a_quiet_market_is_as_promised(detector, quiet):
    watched = monitor_bars(detector, quiet)
    assert watched.alarms == []
    assert {finding.name for finding in watched.findings} == {
        "log-likelihood",
        "next-bar score",
        *(f"time in {label}" for label in detector.labels),
    }


def test_gains_over_every_baseline_are_those_of_the_formulas(detector, quiet):
    watched, expected = monitor_bars(detector, quiet), expectations_of(detector)
    assert set(watched.gains) == {"static", *VOLATILITY}
    time, close = quiet.frame.index, quiet.frame["close"].to_numpy()
    next_return = np.append(np.diff(np.log(close)), np.nan)
    hour = time.hour.to_numpy()
    log_range = np.log(quiet.frame["high"] / quiet.frame["low"]).to_numpy()
    series = BarSeries(next_return, log_range, hour, np.append(hour[1:], 0))
    judged = time[:-1][time[1:].isin(watched.bars.index)]
    assert len(judged) == len(watched.bars) > 2000
    for name, baseline in expected.volatility.items():
        own = baseline.log_score(series)[time.isin(judged)]
        gain = watched.bars["score"].to_numpy() - own
        np.testing.assert_array_equal(watched.bars[f"{name}_gain"], gain)
        assert watched.gains[name] == pytest.approx(gain.mean(), rel=1e-12)


def test_a_promise_of_an_earlier_version_has_the_static_gain_alone(detector, quiet):
    kept = {name: part for name, part in detector.expectations.items() if name != "volatility"}
    watched = monitor_bars(replace(detector, expectations=kept), quiet)
    assert set(watched.gains) == {"static"}
    assert watched.findings == monitor_bars(detector, quiet).findings


def test_without_highs_and_lows_the_ranges_have_no_gain(detector, quiet):
    frame = quiet.frame.assign(high=np.nan)
    assert replace(quiet, frame=frame).log_range is None
    crossed = quiet.frame.assign(high=quiet.frame["low"] / 2)
    assert replace(quiet, frame=crossed).log_range is None
    np.testing.assert_allclose(
        quiet.log_range, np.log(quiet.frame["high"]) - np.log(quiet.frame["low"]), atol=1e-12
    )


def test_a_moved_market_is_an_alarm_after_it_moved(detector, moved):
    watched = monitor_bars(detector, moved)
    first = watched.alarms[0]
    assert first.alarm_at > moved.frame.index[1250]
    assert first.drift_since <= first.alarm_at
    assert first.highest > 1


def test_the_watch_ignores_the_future(detector, quiet, moved):
    """Both markets are one up to the middle: so is all that is said of it, bit for bit."""
    end = quiet.frame.index[1249]
    ours, theirs = monitor_bars(detector, quiet), monitor_bars(detector, moved)
    cut = monitor_bars(detector, replace(quiet, frame=quiet.frame.iloc[:1250]))
    for frames in ((ours.rows, theirs.rows, cut.rows), (ours.bars, theirs.bars, cut.bars)):
        known = [frame[frame.index <= end] for frame in frames]
        assert len(known[0]) > 1000
        pd.testing.assert_frame_equal(known[0], known[1], check_exact=True)
        pd.testing.assert_frame_equal(known[0], known[2], check_exact=True)


def test_bars_of_the_training_are_not_judged(result, detector):
    watched = monitor_bars(detector, result.prepared.source.bars)
    end = pd.Timestamp(detector.meta["train_end"])
    assert watched.rows.index[0] == end + detector.step
    assert watched.bars.index[0] == end + detector.step


def test_since_judges_less(detector, quiet):
    since = quiet.frame.index[2000]
    watched = monitor_bars(detector, quiet, since)
    assert len(watched.rows) == len(watched.bars) == 499
    assert watched.rows.index[0] > since
    with pytest.raises(DataError, match=r"no row to judge after .* the end of --since"):
        monitor_bars(detector, quiet, quiet.frame.index[-1])


def test_bars_that_the_filter_settles_on_are_not_judged(detector, quiet):
    watched = monitor_bars(detector, quiet)
    assert watched.rows.index[0] == quiet.frame.index[detector.min_history]


def test_coarser_rows_are_watched_beside_their_bars(small_config, quiet):
    from hmm_exp.config import TimeframeConfig

    coarse = fitted(small_config, timeframe=TimeframeConfig(name="4H", timeframes=["4H"])).detector
    watched = monitor_bars(coarse, quiet)
    assert len(watched.bars) == pytest.approx(4 * len(watched.rows), abs=4)


def test_one_state_has_no_shares_to_promise(small_config, quiet):
    one = replace(small_config, model=replace(small_config.model, n_states=1))
    watched = monitor_bars(fitted(one).detector, quiet)
    assert [finding.name for finding in watched.findings] == ["log-likelihood", "next-bar score"]


def test_a_quiet_market_exits_with_0(folder, capsys):
    output, figure = folder / "quiet.json", folder / "quiet.png"
    words = ["--model", str(folder), "--bars", str(folder / "quiet.csv")]
    assert main([*words, "--output", str(output), "--figure", str(figure)]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("\nas expected\n")
    assert max(map(len, shown.splitlines())) <= 114
    found = json.loads(output.read_text())
    assert found["alarm"] is False
    assert len(found["findings"]) == 5
    assert figure.read_bytes()[:4] == b"\x89PNG"


def test_an_alarm_exits_with_1(folder):
    output = folder / "moved.json"
    command = [sys.executable, "-m", "hmm_exp.monitor", "--model", str(folder)]
    command += ["--bars", str(folder / "moved.csv"), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == ALARM, done.stderr
    assert done.stdout.splitlines()[-1].startswith("ALARM at 2031-")
    found = json.loads(output.read_text())
    assert found["alarm"] is True
    assert found["alarm_at"] in [finding["alarm_at"] for finding in found["findings"]]


def test_bad_input_is_one_line(folder, capsys):
    words = ["--model", str(folder), "--bars", str(folder / "quiet.csv")]
    assert main([*words, "--since", "soon"]) == 2
    assert (
        capsys.readouterr().err
        == "error: --since soon is not a date such as 2024-06-01 or 2024-06-01 12:00\n"
    )
    assert main([*words[:3], "nowhere.csv"]) == 2
    assert main([*words, "--since", "2100-01-01"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "hmm-monitor --bars new.csv --output" in capsys.readouterr().out
