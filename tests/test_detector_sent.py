"""One rule reads bars wherever they come in, and the answer has the index of the table."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D

from hmm_exp.detector import Detector
from hmm_exp.errors import DataError
from hmm_exp.features.build import build_features
from hmm_exp.features.recipe import Recipe
from hmm_exp.serving.answering import RegimeModel, RequestError
from tests.live_detector import BAR, SHORT, gappy_bars, live_detector, part, records

N_HISTORY = 150
FORMS = {
    "as it is": lambda f: f,
    "upper case": lambda f: f.rename(columns=str.upper),
    "variants": lambda f: f.rename(
        columns=dict(zip(BAR, ("Open Time", "o", "H", "low_price", "Last", "Vol"), strict=True))
    ),
    "another order, more columns": lambda f: f[BAR[::-1]].assign(symbol="X", note=None, trades=3),
    "index": lambda f: f.set_index("timestamp"),
    "nameless index": lambda f: f.set_index("timestamp").rename_axis(None),
    "naive index": lambda f: f[BAR[1:]].set_axis(f["timestamp"].dt.tz_localize(None).rename("t")),
    "index of text": lambda f: f.assign(time=f["timestamp"].astype(str)).set_index("time")[BAR[1:]],
    "epochs": lambda f: f.assign(timestamp=f["timestamp"].astype("int64") // 10**6),
}  # fmt: skip
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return live_detector(Recipe.of_set("v1", ["1H", "4H"], **SHORT))


@pytest.fixture(scope="module")
def bars():
    return gappy_bars(220, lost=0.0)


@pytest.fixture(scope="module")
def frame(bars) -> pd.DataFrame:
    return bars.frame[BAR].reset_index(drop=True)


@forms
def test_every_form_of_a_table_gets_one_answer_from_filter_predict_and_the_stream(
    detector, bars, frame, form
):
    expected = detector.filter(bars)
    sent = form(frame)
    for answer in (detector.filter(sent), RegimeModel(detector).predict(sent)):
        pd.testing.assert_frame_equal(answer.reset_index(drop=True), expected, check_exact=True)
    rows = detector.stream(part(bars, slice(N_HISTORY)))
    tables = detector.stream(sent.iloc[:N_HISTORY])
    for place in range(N_HISTORY, len(sent)):
        assert rows.update(sent.iloc[place]) == tables.update(sent.iloc[[place]])
    assert rows.latest.probs == tuple(expected.filter(like="p_state_").iloc[-1])


@pytest.mark.parametrize("form", ["upper case", "variants", "another order, more columns"])
def test_a_request_may_have_any_form_of_names(detector, bars, frame, form):
    sent = FORMS[form](frame)
    model, expected = RegimeModel(detector), detector.filter(bars)
    sent = sent.assign(
        **{name: sent[name].astype(str) for name in sent.select_dtypes("datetimetz")}
    )
    bodies = [
        (json.dumps({"dataframe_records": sent.to_dict("records")}), "application/json"),
        (json.dumps({"inputs": sent.to_dict("list")}), "application/json"),
        (sent.to_csv(index=False), "text/csv"),
    ]
    for body, kind in bodies:
        answer = pd.DataFrame(json.loads(model.answer(body.encode(), kind))["predictions"])
        np.testing.assert_array_equal(answer["p_state_1"], expected["p_state_1"])
        assert answer["timestamp"].iloc[-1] == "2021-03-10T08:00:00Z"


def test_times_may_be_the_index_of_a_split_request(detector, bars, frame):
    text = frame.set_index("timestamp").to_json(orient="split", date_format="iso")
    body = json.dumps({"dataframe_split": json.loads(text)}).encode()
    answer = json.loads(RegimeModel(detector).answer(body, "application/json"))["predictions"]
    assert len(answer) == len(detector.filter(bars))


@pytest.mark.parametrize("keys", [BAR, ["T", "O", "H", "L", "C", "V"]])
def test_a_dict_of_other_names_is_read_as_the_one_before_it(detector, bars, keys):
    stream = detector.stream(part(bars, slice(N_HISTORY)))
    plain = detector.stream(part(bars, slice(N_HISTORY)))
    for bar in records(part(bars, slice(N_HISTORY, None))):
        other = {key: str(bar[name]) for key, name in zip(keys, BAR, strict=True)}
        assert stream.update(other) == plain.update(bar)


SPOILS = {
    "no close": lambda f: f.drop(columns="close"),
    "no time": lambda f: f.drop(columns="timestamp"),
    "text": lambda f: f.assign(high="dear"),
    "negative": lambda f: f.assign(volume=-2.0),
    "zero": lambda f: f.assign(LOW=0.0).drop(columns="low"),
    "crossed": lambda f: f.assign(low=1e9),
    "true": lambda f: f.assign(close=True),
    "no time of day": lambda f: f.assign(timestamp="12:30"),
    "two closes": lambda f: f.assign(Close=f["close"] + 1),
    "two volumes": lambda f: f.rename(columns={"volume": "Volume A"}).assign(**{"Volume B": 1.0}),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_bad_bar_gets_one_line_wherever_it_comes_in(detector, frame, spoil):
    stream, sent = detector.stream(), spoil(frame.iloc[[7]])
    lines = []
    for ask in (detector.filter, stream.update, lambda f: stream.update(f.iloc[0].to_dict())):
        with pytest.raises(DataError) as caught:
            ask(sent)
        lines.append(str(caught.value))
    assert len(set(lines)) == 1
    with pytest.raises(RequestError) as refused:
        RegimeModel(detector).predict(sent)
    assert refused.value.message[:30] == lines[0].replace("data.", "")[:30]
    assert stream.n_bars == 0


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", None])
@pytest.mark.parametrize("ask", ["filter", "smooth", "decode"])
def test_the_index_of_the_answer_is_as_the_caller_writes_times(detector, frame, zone, ask):
    stamps = pd.DatetimeIndex(frame["timestamp"], name="when").as_unit("ms").tz_convert(zone)
    sent = frame.set_index(stamps)[BAR[1:]].rename_axis("time")
    answer = getattr(detector, ask)(sent)
    expected = sent.index[-len(answer) :]
    pd.testing.assert_index_equal(answer.index, expected)
    assert sent.join(answer["state"])["state"].notna().sum() == len(answer)


def test_naive_times_of_a_zone_stay_clock_times(frame):
    detector = live_detector(Recipe.of_set("v1", ["4H"], **SHORT))
    reading = replace(detector.reading, timezone="Asia/Tokyo")
    local = frame["timestamp"].dt.tz_convert("Asia/Tokyo").dt.tz_localize(None)
    answer = replace(detector, reading=reading).filter(frame.set_index(local)[BAR[1:]])
    assert answer.index.tz is None
    assert set(answer.index) <= set(local)
    assert (
        answer["timestamp"].dt.tz_convert("Asia/Tokyo").dt.tz_localize(None) == answer.index
    ).all()


def test_other_tables_get_an_answer_with_row_numbers(detector, bars, frame):
    close_time = frame["timestamp"] + pd.Timedelta("1h")
    for sent in (bars, frame, frame.set_index(close_time.rename("close_time"))):
        assert isinstance(detector.filter(sent).index, pd.RangeIndex)
    by_close = detector.filter(bars.frame)
    assert list(by_close.index) == list(by_close["available_at"])


def test_ready_features_keep_the_index_too(detector, bars):
    table = build_features(bars, detector.recipe)
    rows = table.frame.set_index(pd.DatetimeIndex(table.timestamp, name="Time"))
    answer = detector.filter(rows)
    assert list(answer.index) == list(answer["timestamp"]) == list(rows.index)
    model = RegimeModel(detector)
    pd.testing.assert_frame_equal(model.predict(rows), answer)


@forms
def test_later_bars_change_no_earlier_row_of_an_answer(detector, frame, form):
    cut = 180
    future = frame.copy()
    future.loc[cut:, BAR[1:5]] *= 3.0
    future.loc[cut:, "volume"] += 1e6
    before, after = (detector.filter(form(f)) for f in (frame, future))
    known = (before["available_at"] <= frame["timestamp"][cut]).to_numpy()
    assert known.sum() > 100
    pd.testing.assert_frame_equal(before[known], after[known], check_exact=True)


def test_what_is_no_table_is_one_line(detector):
    for sent in (None, 5, "bars.csv", {"open": [1, 2], "close": [1]}, [5]):
        with pytest.raises(DataError, match=r"a table of bars is expected|no column") as caught:
            detector.filter(sent)
        assert "\n" not in str(caught.value)


def test_a_repr_is_two_short_lines(detector, bars):
    wide = live_detector(Recipe.of_set("v1v2", ["1H", "4H", "12H", "1D"]))
    stream = detector.stream(bars)
    shown = (detector, wide, stream, detector.stream(), bars, detector.observe(bars))
    for lines in (repr(value).splitlines() for value in shown):
        assert len(lines) == 2
        assert max(map(len, lines)) < 180
    assert repr(detector) == (
        "Detector live 1H: 3 states (vol-1, vol-2, vol-3) of close_logret_current_1H, "
        "close_logret_current_4H, log_volume_delta_current_1H and 3 more\n"
        "trained until 2021-03-25T00:00:00Z; needs 32 bars of history; decides by hysteresis "
        "(enter 0.7, leave 0.2)"
    )
    assert "the last closed at 2021-03-10T09:00:00Z" in repr(stream)
    assert repr(part(bars, slice(0))).startswith("Bars live: 0 of 1H")


def test_plot_draws_the_price_by_regime_above_the_probabilities(detector, bars, frame):
    figure = detector.plot(frame.set_index("timestamp"))
    labels = [text.get_text() for text in figure.texts]
    assert {"close (quote currency)", "probability", "time (UTC)"} <= set(labels)
    lines = [artist for artist in figure.artists if isinstance(artist, Line2D)]
    lines = [line for line in lines if np.nanmax(line.get_ydata()) > 1]  # the key's are in shares
    (areas,) = [artist for artist in figure.artists if isinstance(artist, PolyCollection)]
    price = np.concatenate([line.get_xydata() for line in lines])
    shares = np.concatenate([path.vertices for path in areas.get_paths()])
    assert np.nanmin(price[:, 1]) > shares[:, 1].max()
    ends = np.nanmin(price[:, 0]), np.nanmax(price[:, 0])
    np.testing.assert_allclose(ends, (shares[:, 0].min(), shares[:, 0].max()), atol=5)  # pixels
    colors = {line.get_color() for line in lines}
    assert len(colors) >= len(set(detector.filter(bars)["regime"]))
    assert len(areas.get_paths()) == detector.n_states


def test_plot_refuses_what_has_no_price(detector, bars):
    features = build_features(bars, detector.recipe)
    rows = features.frame.assign(timestamp=features.timestamp).reset_index(drop=True)
    with pytest.raises(DataError, match="no column named high, low, close"):
        detector.plot(rows)
