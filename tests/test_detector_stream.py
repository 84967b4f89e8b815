"""The stream: bit for bit the batch filter at every bar, whatever comes; saved, it goes on."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.detector import Stream
from hmm_exp.detector.detector import Detector
from hmm_exp.errors import ConfigError, DataError, HistoryError, ModelError
from hmm_exp.features.recipe import Recipe
from tests.live_detector import SHORT, gappy_bars, live_detector, part, records

HOURS = [["1H"], ["4H"], ["1D"], ["1H", "4H", "12H"], ["12H", "4H"]]
OTHER_BASES = [
    ("1min", ["1min", "5min"], 1.0),
    ("5min", ["5min", "15min", "1H"], 6.0),
    ("15min", ["30min", "1H"], 12.0),
    ("30min", ["30min", "4H"], 24.0),
    ("1D", ["1D"], 24.0 * 10),
]
both_gaps = pytest.mark.parametrize("gaps", ["split", "bridge"])


def probabilities(answer):
    return answer.filter(like="p_state_").to_numpy()


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame):
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def fed(stream, bars) -> pd.DataFrame:
    """Every regime that a stream gives for bars one by one, as `filter` shows them."""
    regimes = [regime for bar in records(bars) for regime in stream.update_all(bar)]
    return pd.DataFrame([regime.to_dict() for regime in regimes]).drop(columns="probs")


def assert_streams_as_it_filters(detector, bars, n_history):
    stream = detector.stream(part(bars, slice(n_history)), missing="gap")
    ours = fed(stream, part(bars, slice(n_history, None)))
    theirs = detector.filter(bars)
    later = (
        theirs["available_at"] > detector.filter(part(bars, slice(n_history)))["available_at"].max()
    )
    assert len(ours) > 50
    assert_same(ours, theirs[later].reset_index(drop=True))


@both_gaps
@pytest.mark.parametrize("features", ["returns", "v1", "v2", "v1v2", "range"])
@pytest.mark.parametrize("timeframes", HOURS, ids="+".join)
def test_equals_the_batch_filter_at_every_bar(timeframes, features, gaps):
    detector = live_detector(Recipe.of_set(features, timeframes, **SHORT), gaps=gaps)
    n_bars = 2600 if timeframes == ["1D"] else 1200
    assert_streams_as_it_filters(detector, gappy_bars(n_bars, gaps=gaps), 400)


@pytest.mark.parametrize(("step", "timeframes", "vwap_hours"), OTHER_BASES, ids=lambda x: str(x))
def test_equals_the_batch_filter_on_other_base_bars(step, timeframes, vwap_hours):
    recipe = Recipe.of_set("v1v2", timeframes, window=5, vwap_hours=vwap_hours)
    detector = live_detector(recipe, step=step, stamp="close")
    assert_streams_as_it_filters(detector, gappy_bars(900, step=step, stamp="close"), 300)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "spherical"])
def test_equals_the_batch_filter_for_every_covariance(covariance_type):
    recipe = Recipe.of_set("v1", ["1H", "4H"], **SHORT)
    detector = live_detector(recipe, covariance_type=covariance_type)
    assert_streams_as_it_filters(detector, gappy_bars(800), 300)


def test_bars_without_a_range_are_missing_observations():
    bars = gappy_bars(900)
    quiet = np.random.default_rng(1).random(len(bars)) < 0.2
    for price in ("open", "high", "low"):
        bars.frame.loc[quiet, price] = bars.frame.loc[quiet, "close"]
    detector = live_detector(Recipe.of_set("range", ["1H"]))
    assert_streams_as_it_filters(detector, bars, 300)
    regimes, probs = detector.filter(bars), probabilities(detector.filter(bars))
    passed = regimes["available_at"].diff() == pd.Timedelta(hours=1)
    is_quiet = np.isin(regimes["available_at"], bars.frame.index[quiet])
    rows = np.flatnonzero(is_quiet & passed)
    assert len(rows) > 50
    np.testing.assert_allclose(probs[rows], probs[rows - 1] @ detector.params.transmat, atol=1e-12)


@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_equals_the_batch_filter_for_student_t_states_also_when_stored(covariance_type):
    recipe = Recipe.of_set("v1", ["1H", "4H"], **SHORT)
    detector = live_detector(recipe, covariance_type=covariance_type, heavy_tailed=True)
    bars = gappy_bars(800)
    assert_streams_as_it_filters(detector, bars, 300)
    again = Detector.from_dict(json.loads(json.dumps(detector.to_dict())))
    pd.testing.assert_frame_equal(again.filter(bars), detector.filter(bars), check_exact=True)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_states=st.integers(1, 5),
    lost=st.sampled_from([0.0, 0.02, 0.3]),
    flat=st.sampled_from([0.0, 0.2]),
    timeframes=st.sampled_from(HOURS[:2] + HOURS[3:]),
    start=st.integers(0, 300),
)
def test_equals_the_batch_filter_from_any_start_with_gaps_and_missing_rows(
    seed, n_states, lost, flat, timeframes, start
):
    bars = gappy_bars(1000, lost=lost, seed=seed)
    silent = np.random.default_rng(seed).random(len(bars)) < flat
    bars.frame.loc[silent, "volume"] = 0.0
    recipe = Recipe.of_set("v1v2", timeframes, window=3, vwap_hours=24.0)
    detector = live_detector(recipe, n_states=n_states, seed=seed)
    bars = part(bars, slice(start, None))
    stream, cut = detector.stream(), len(bars) // 2
    ours = pd.concat(
        [stream.extend(part(bars, slice(cut))), stream.extend(part(bars, slice(cut, None)))]
    )
    assert_same(ours.reset_index(drop=True), detector.filter(bars))


def test_running_sums_do_not_drift_over_many_windows():
    recipe = Recipe.of_set("v2", ["1H"], window=5, vwap_hours=24.0)
    detector, bars = live_detector(recipe), gappy_bars(6000, lost=0.0)
    whole = detector.stream()
    whole.extend(bars)
    late = detector.filter(part(bars, slice(5500, None)))
    assert np.abs(probabilities(late)[-1] - whole.latest.probs).max() < 1e-12


def test_the_latest_regime_is_known_right_after_the_history():
    detector, bars = live_detector(Recipe.of_set("v1", ["1H"], **SHORT)), gappy_bars(300)
    stream = detector.stream(bars)
    last = detector.filter(bars).iloc[-1]
    assert stream.latest.to_dict()["p_state_1"] == last["p_state_1"]
    assert stream.latest.label == last["label"]
    assert stream.latest.timestamp == last["timestamp"]
    assert stream.time == bars.frame.index[-1]


def test_a_coarse_row_comes_only_when_its_bar_closes():
    detector, bars = live_detector(Recipe.of_set("v1", ["4H"], **SHORT)), gappy_bars(300, lost=0)
    stream = detector.stream(part(bars, slice(200)))
    for bar in records(part(bars, slice(200, 240))):
        regime = stream.update(bar)
        closes = (bar["timestamp"] + pd.Timedelta("1h")).hour % 4 == 0
        assert (regime is not None) == closes


def test_a_gap_that_closes_two_coarse_bars_gives_two_rows():
    detector, bars = live_detector(Recipe.of_set("v1", ["4H"], **SHORT)), gappy_bars(300, lost=0)
    hours = bars.frame.index.hour.to_numpy()
    last = int(np.flatnonzero(hours[:250] % 4 == 2)[-1])
    stream = detector.stream(part(bars, slice(last + 1)), missing="gap")
    late = records(part(bars, slice(last + 6, last + 7)))[0]  # its bin ends with it
    regimes = stream.update_all(late)
    assert [regime.available_at.hour % 4 for regime in regimes] == [0, 0]
    assert regimes[1].available_at - regimes[0].available_at == pd.Timedelta("4h")


def test_no_regime_before_the_history_is_long_enough():
    detector, bars = live_detector(Recipe.of_set("v1", ["1H"], **SHORT)), gappy_bars(200, lost=0)
    with pytest.raises(HistoryError, match=f"at least {detector.min_history}"):
        detector.stream(part(bars, slice(detector.min_history - 1)))
    stream = detector.stream()
    regimes = [stream.update(bar) for bar in records(bars)]
    assert [regime is None for regime in regimes] == [
        n < detector.min_history for n in range(1, len(bars) + 1)
    ]
    assert regimes[-1].probs == tuple(probabilities(detector.filter(bars))[-1])


@pytest.fixture
def quiet():
    """A stream with a history, and the bars that come next."""
    detector = live_detector(Recipe.of_set("v1", ["1H", "4H"], **SHORT))
    bars = gappy_bars(400, lost=0.0)
    return detector.stream(part(bars, slice(300))), records(part(bars, slice(299, None)))


BAD_BARS = [
    ({"close": float("nan")}, "missing or infinite"),
    ({"high": float("inf")}, "missing or infinite"),
    ({"low": 0.0}, "zero or negative price"),
    ({"low": 1e9}, "high below low"),
    ({"open": 1e-9}, "outside low..high"),
    ({"volume": -1.0}, "negative volume"),
    ({"close": "abc"}, "text instead of a number, first close=abc"),
    ({"close": None}, "missing or infinite number, first close=None"),
    ({"timestamp": "10:00"}, "no column of times: 'timestamp' begins with '10:00'"),
    ({"timestamp": None}, "no column of times: 'timestamp' begins with 'None'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_BARS, ids=[m for _, m in BAD_BARS])
def test_a_bar_that_cannot_be_is_refused_and_changes_nothing(quiet, tmp_path, change, message):
    stream, (_, bar, *_) = quiet
    stream.save(tmp_path / "before.json")
    with pytest.raises(DataError, match=message):
        stream.update(bar | change)
    stream.save(tmp_path / "after.json")
    assert (tmp_path / "after.json").read_bytes() == (tmp_path / "before.json").read_bytes()


@pytest.mark.parametrize(
    ("place", "shift", "message"),
    [
        (0, "0h", "was taken already"),
        (0, "-1h", "out of order"),
        (3, "0h", "2 bars are missing before the bar of .* missing='gap'"),
        (1, "20min", "off the grid"),
    ],
)
def test_a_bar_in_the_wrong_place_is_refused_and_changes_nothing(
    quiet, tmp_path, place, shift, message
):
    stream, bars = quiet
    bar = bars[place] | {"timestamp": bars[place]["timestamp"] + pd.Timedelta(shift)}
    stream.save(tmp_path / "before.json")
    with pytest.raises(DataError, match=message):
        stream.update(bar)
    stream.save(tmp_path / "after.json")
    assert (tmp_path / "after.json").read_bytes() == (tmp_path / "before.json").read_bytes()
    assert stream.update(bars[1]) is not None


def test_a_bar_without_a_field_says_what_to_send(quiet):
    stream, (_, bar, *_) = quiet
    del bar["volume"]
    send = r"no column named volume; .*; send timestamp with open, high, low, close, volume"
    with pytest.raises(DataError, match=send):
        stream.update(bar)


def test_sessions_may_pause_for_any_time():
    recipe = Recipe.of_set("v1", ["1D"], window=5, vwap_hours=240.0)
    detector = live_detector(recipe, step="1D", gaps="bridge")
    bars = gappy_bars(300, step="1D", gaps="bridge", lost=0.3)
    stream = detector.stream(part(bars, slice(100)))  # missing="error" does not concern sessions
    ours = fed(stream, part(bars, slice(100, None)))
    assert_same(ours, detector.filter(bars).iloc[-len(ours) :].reset_index(drop=True))


@pytest.mark.parametrize(
    "form",
    [
        lambda time: time.isoformat(),
        lambda time: time.tz_localize(None).isoformat(sep=" "),
        lambda time: time.to_pydatetime(),
        lambda time: time.to_pydatetime().replace(tzinfo=None),
        lambda time: time.to_datetime64(),
        lambda time: int(time.timestamp()),
        lambda time: time.timestamp() * 1000,
        lambda time: str(int(time.timestamp())),
        lambda time: time.tz_convert("Asia/Tokyo"),
        lambda time: time.strftime("%d.%m.%Y %H:%M"),
    ],
)
def test_times_may_have_any_form(quiet, form):
    stream, (_, bar, *_) = quiet
    regime = stream.update(bar | {"timestamp": form(bar["timestamp"])})
    assert regime.timestamp == bar["timestamp"]


def test_a_row_of_a_frame_is_a_bar(quiet):
    stream, (_, bar, *_) = quiet
    assert stream.update(pd.Series(bar)).timestamp == bar["timestamp"]


@both_gaps
def test_saved_in_the_middle_it_goes_on_with_the_same_bits(tmp_path, gaps):
    detector = live_detector(Recipe.of_set("v1v2", ["1H", "4H", "12H"], **SHORT), gaps=gaps)
    bars = gappy_bars(600, gaps=gaps)
    stream = detector.stream(part(bars, slice(300)), missing="gap")
    for bar in records(part(bars, slice(300, len(bars)))):
        stream.save(tmp_path / "stream.json")
        restarted = Stream.load(tmp_path / "stream.json")
        assert restarted.missing == "gap"
        assert stream.latest == restarted.latest
        assert stream.update_all(bar) == restarted.update_all(bar)
        stream = restarted
    assert stream.latest.probs == tuple(probabilities(detector.filter(bars))[-1])
    assert [path.name for path in tmp_path.iterdir()] == ["stream.json"]


def test_a_saved_stream_is_plain_json_of_a_size_that_does_not_grow(quiet, tmp_path):
    stream, (_, *bars) = quiet
    sizes = set()
    for bar in bars:
        stream.update(bar)
        stream.save(tmp_path / "stream.json")
        stored = json.loads((tmp_path / "stream.json").read_text())
        sizes.add((len(stored["clock"]), len(stored["memory"])))
    assert len(sizes) == 1


DAMAGE = [
    ("{", "is a damaged saved stream: Expecting"),
    ("[]", "no JSON object"),
    ('{"format": 99}', "format 99: this version reads 1 and 2"),
    ('{"format": 1}', "model is missing"),
]


@pytest.mark.parametrize(("content", "message"), DAMAGE)
def test_a_damaged_file_is_refused(tmp_path, content, message):
    (tmp_path / "stream.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        Stream.load(tmp_path / "stream.json")


def test_a_missing_file_and_an_unknown_option_are_refused(quiet, tmp_path):
    with pytest.raises(ModelError, match="no saved stream at"):
        Stream.load(tmp_path / "stream.json")
    with pytest.raises(ConfigError, match="choose error or gap"):
        Stream(quiet[0].model, missing="skip")


def test_timeframes_must_be_made_of_whole_bars():
    detector = live_detector(Recipe.of_set("v1", ["30min"], **SHORT), step="1h")
    with pytest.raises(ConfigError, match="30min is no whole multiple"):
        detector.stream()


def test_many_bars_must_follow_and_be_of_the_same_length(quiet):
    stream, _ = quiet
    with pytest.raises(DataError, match="do not come after"):
        stream.extend(gappy_bars(200, lost=0.0))
    with pytest.raises(DataError, match="the model was trained on"):
        stream.extend(gappy_bars(200, step="30min", lost=0.0))


@pytest.mark.parametrize("timeframes", [["1H"], ["4H"], ["1H", "4H"]], ids="+".join)
@pytest.mark.parametrize(
    "lost", [slice(None), slice(301, 302), slice(305, None)], ids=["all", "one", "new"]
)
def test_a_stream_of_bars_without_volume_resumes_where_it_stopped(timeframes, lost, tmp_path):
    detector = live_detector(Recipe.of_set("range", timeframes, **SHORT))
    bars = gappy_bars(340, lost=0.0)
    bars.frame.iloc[lost, bars.frame.columns.get_loc("volume")] = np.nan
    whole, first = (detector.stream(part(bars, slice(300)), missing="gap") for _ in range(2))
    expected = fed(whole, part(bars, slice(300, None)))
    found = fed(first, part(bars, slice(300, 310)))
    first.save(tmp_path / "stream.json")
    resumed = Stream.load(tmp_path / "stream.json")
    found = [found, fed(resumed, part(bars, slice(310, None)))]
    assert_same(pd.concat(found, ignore_index=True), expected)
