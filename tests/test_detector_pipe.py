"""Lines of a pipe: chosen columns and zones are read as in training, no line ends the process."""

import io
import json
import os
import random
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from hmm_exp.detector.pipe import (
    BarLines,
    HeaderError,
    RegimeLines,
    follow,
    resumed,
    rewind,
    times_in,
)
from hmm_exp.errors import ConfigError, DataError, ModelError
from hmm_exp.features.recipe import Recipe
from hmm_exp.market.stamps import read_stamp
from tests.live_detector import SHORT, gappy_bars, live_detector, part, records

RECIPE = Recipe.of_set("v1", ["1H", "4H"], **SHORT)
N_HISTORY = 300
HEADER = b"timestamp,open,high,low,close,volume\n"


@pytest.fixture(scope="module")
def bars():
    return gappy_bars(400, lost=0.0)


@pytest.fixture(scope="module")
def detector():
    return live_detector(RECIPE)


@pytest.fixture
def stream(detector, bars):
    return detector.stream(part(bars, slice(N_HISTORY)), missing="gap")


@pytest.fixture(scope="module")
def news(bars):
    """The bars after the history as lines of CSV, without their header."""
    text = part(bars, slice(N_HISTORY, None)).frame.to_csv(index=False)
    return text.encode().splitlines(keepends=True)[1:]


def fed(stream, content: bytes, drop=True):
    """Regimes that come out, and the refusals; a read gives at most 1,000 bytes, as of a pipe."""
    regimes, refusals = [], []

    def refuse(error):
        if not drop:
            raise error
        refusals.append(str(error))

    class Pipe(io.BytesIO):
        def read1(self, size):
            return super().read1(min(size, 1000))

    follow(stream, Pipe(content), regimes.extend, lambda: None, refuse)
    return regimes, refusals


def test_the_state_is_saved_when_input_pauses_and_not_while_more_of_it_waits(
    stream, news, monkeypatch
):
    monkeypatch.setattr("hmm_exp.detector.pipe._READ", 100)  # a line or two
    monkeypatch.setattr("hmm_exp.detector.pipe._PAUSES_EVERY", 1e9)
    reader, writer = os.pipe()
    pauses, regimes = [], []
    with os.fdopen(reader, "rb", 0) as source, os.fdopen(writer, "wb", 0) as sink:

        def pause():
            pauses.append(len(regimes))
            if len(pauses) == 2:  # all that waited was taken
                sink.write(b"".join(news[50:60]))
                sink.close()

        sink.write(HEADER + b"".join(news[:50]))
        follow(stream, source, regimes.extend, pause, lambda error: None)
    assert pauses == [0, 50, 60]


# --- any line

NO_BARS = {
    "carriage return inside": b"2021-03-13 17:00:00,1,\r2,1,1,5",
    "zeros": b"2021-03-13 17:00:00,1,2\0,1,1,5",
    "no UTF-8": b"2021-03-13 17:00:00,1,2,\xff\xfe,1,5",
    "long number": b"2021-03-13 17:00:00,1," + b"9" * 5000 + b",1,1,5",
    "long number for a time": b"9" * 5000 + b",1,2,1,1,5",
    "long field": b"2021-03-13 17:00:00,1,2,1,1," + b"x" * 200_000,
    "very long line": b"y" * 10_000_000,
    "open quotes": b'"2021-03-13 17:00:00,1,2,1,1,5',
    "few fields": b"2021-03-13 17:00:00,1,2",
    "many fields": b"," * 100_000,
    "underscore": b"2021-03-13 17:00:00,1,2,1,1,5_000",
    "digits of another script": "2021-03-13 17:00:00,1,2,1,1,\u0665".encode(),
    "NaN": b"2021-03-13 17:00:00,1,nan,1,1,5",
    "infinite": b"2021-03-13 17:00:00,1,inf,1,1,5",
    "huge epoch": b"99999999999999999999999999,1,2,1,1,5",
    "year 9999": b"9999-12-31 00:00:00,1,2,1,1,5",
    "year 1": b"0001-01-01 00:00:00,1,2,1,1,5",
    "year 1600": b"1600-01-01 00:00:00,1,2,1,1,5",
    "no date": b"2021-02-31 00:00:00,1,2,1,1,5",
    "JSON list": b"[1, 2, 3]",
    "JSON number": b"17",
    "JSON text": b'"timestamp"',
    "half an object": b'{"timestamp": ',
    "deep object": b'{"timestamp": ' + b"[" * 100_000,
    "deep whole object": b'{"timestamp": ' + b"[" * 900 + b"]" * 900 + b"}",
    "object of a long number": b'{"timestamp": ' + b"9" * 5000 + b"}",
    "name twice": b'{"timestamp": 1, "timestamp": 2}',
    "no object of a bar": b'{"a": 1}',
    "empty object": b"{}",
    "many columns": json.dumps({f"volume {i}": 1 for i in range(5000)}).encode(),
    "other columns": b"close,open,low",
    "header without volume": b"time;open;high;low;close",
}
OF_JSON = {
    "true": {"close": True},
    "list": {"close": [1]},
    "null": {"close": None},
    "text": {"close": "much"},
    "NaN": {"close": float("nan")},
    "400 digits": {"volume": 10**400},
    "time is a list": {"timestamp": [2021]},
    "time is true": {"timestamp": True},
    "time is an object": {"timestamp": {}},
    "time is NaN": {"timestamp": float("nan")},
    "time is infinite": {"timestamp": float("inf")},
    "time of 400 digits": {"timestamp": 10**400},
    "time before all": {"timestamp": -(10**18)},
    "time without digits": {"timestamp": "soon"},
}


def assert_only_that_is_left_out(stream, detector, bars, content):
    regimes, refusals = fed(stream, content)
    expected = detector.filter(bars).iloc[N_HISTORY - len(bars) :]
    assert len(refusals) == 1
    assert len(refusals[0]) < 2000
    assert [regime.probs[1] for regime in regimes] == expected["p_state_1"].tolist()


@pytest.mark.parametrize("name", [name for name in NO_BARS if "header" not in name])
def test_a_line_that_is_no_bar_is_left_out_and_all_others_count(stream, detector, bars, news, name):
    lines = [HEADER, *news[:50], NO_BARS[name] + b"\n", *news[50:]]
    assert_only_that_is_left_out(stream, detector, bars, b"".join(lines))


@pytest.mark.parametrize("name", OF_JSON)
def test_an_object_that_is_no_bar_is_left_out_and_all_others_count(stream, detector, bars, name):
    objects = records(part(bars, slice(N_HISTORY, None)))
    objects.insert(50, objects[50] | OF_JSON[name])
    lines = [json.dumps(bar, default=str) + "\n" for bar in objects]
    assert_only_that_is_left_out(stream, detector, bars, "".join(lines).encode())


@pytest.mark.parametrize("name", ["few fields", "deep object", "NaN", "carriage return inside"])
def test_without_drop_it_ends_with_the_line_and_keeps_what_was_before(stream, bars, news, name):
    content = b"".join([HEADER, *news[:50], NO_BARS[name] + b"\n", *news[50:]])
    with pytest.raises(DataError):
        fed(stream, content, drop=False)
    assert stream.time == bars.frame.index[N_HISTORY + 49]


def test_a_header_in_the_middle_names_the_columns_from_there_on(stream, detector, bars, news):
    frame = part(bars, slice(N_HISTORY, None)).frame
    columns = ["close", "volume", "low", "high", "open", "timestamp"]
    other = frame[columns].iloc[50:].to_csv(index=False, sep=";").encode()
    regimes, refusals = fed(stream, b"".join([HEADER, *news[:50], other]))
    assert refusals == []
    expected = detector.filter(bars)["p_state_1"].tolist()[-len(regimes) :]
    assert [regime.probs[1] for regime in regimes] == expected


def test_lines_under_a_header_that_cannot_be_used_are_left_out_until_the_next(stream, news):
    bad = b"timestamp,close,open,low,high\n"
    lines = [HEADER, *news[:10], bad, *news[10:20], HEADER, *news[20:]]
    regimes, refusals = fed(stream, b"".join(lines))
    assert len(refusals) == 11
    assert "no column named volume" in refusals[0]
    assert len(regimes) == len(news) - 10


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b"2021-03-13 17:00:00,1,2,1,1,5\n", "names no columns: send a header"),
        (b"what\n", "names no columns"),
        (b"a\rb\n", "names no columns"),
        (b"timestamp,open,high,low,close\n", "no column named volume"),
        (b"when,open,high,low,close,volume\n", "no column of times"),
        (b"time,open,high,low,close,close,volume\n", "2 columns are named close"),
    ],
)
def test_a_first_line_without_the_columns_is_refused_always(stream, news, first, message):
    with pytest.raises(HeaderError, match=message):
        fed(stream, first + b"".join(news))


def test_a_line_among_objects_that_is_none_is_left_out(stream, bars):
    objects = [json.dumps(bar, default=str) for bar in records(part(bars, slice(300, 310)))]
    regimes, refusals = fed(stream, "\n".join([*objects[:5], "what", *objects[5:], ""]).encode())
    assert len(regimes) == 10
    assert refusals == ["'what' is no JSON object"]


def test_the_end_of_a_line_that_was_cut_is_left_out_too(stream, news):
    regimes, refusals = fed(stream, b"".join([HEADER, *news])[:-3])
    assert len(regimes) == len(news) - 1
    assert "has no end" in refusals[0]


def test_a_line_of_any_length_takes_bounded_memory(stream, news):
    lines = [HEADER, *news[:5], b"z" * 3_000_000 + b"\n", *news[5:]]
    regimes, refusals = fed(stream, b"".join(lines))
    assert len(regimes) == len(news)
    assert "more than 1,048,576 bytes" in refusals[0]
    assert len(refusals[0]) < 200


def mutated(line: bytes, chance: random.Random) -> bytes:
    """A line of a feed after an accident; it has an end."""
    raw = bytearray(line.rstrip(b"\n"))
    kind = chance.randrange(6)
    if kind == 0:
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
    elif kind == 1:
        raw = raw[: chance.randrange(len(raw))]
    elif kind == 2:
        at = chance.randrange(len(raw))
        raw[at:at] = chance.choice((b"\r", b"\0", b'"', b",", b"{", b"9" * 5000, b"\xff", b"e999"))
    elif kind == 3:
        raw = bytearray(chance.choice(list(NO_BARS.values()))[:5000])
    else:
        fields = raw.split(b",")
        strange = (
            b"",
            b"-1",
            b"nan",
            b"1e400",
            b"1e308",
            b"0",
            b"\x1b[31m",
            b"1_0",
            b"0x10",
            b"9" * 30,
        )
        fields[chance.randrange(len(fields))] = chance.choice(strange)
        raw = bytearray(b",".join(fields))
    return bytes(raw) + b"\n"


def test_an_empty_object_after_one_that_lacks_a_field_is_left_out(stream, bars):
    (bar, later) = records(part(bars, slice(N_HISTORY, N_HISTORY + 2)))
    lines = [json.dumps(line, default=str) for line in (bar, {"close": 1}, {}, later)]
    regimes, refusals = fed(stream, "\n".join([*lines, ""]).encode())
    assert [len(regimes), len(refusals)] == [2, 2]


@pytest.mark.parametrize("seed", range(10))
def test_no_line_ends_a_pipe_that_drops(detector, bars, seed):
    """Whatever comes, the stream goes on, and every answer is a distribution."""
    chance = random.Random(seed)
    if seed % 2:
        good = [
            json.dumps(bar, default=str).encode() + b"\n"
            for bar in records(part(bars, slice(N_HISTORY, None)))
        ]
        head = b""
    else:
        text = part(bars, slice(N_HISTORY, None)).frame.to_csv(index=False).encode()
        head, *good = text.splitlines(keepends=True)
    lines = [head, good[0]]  # what the first line must be is another test's
    for line in good[1:]:
        lines += [mutated(line, chance), line] if chance.random() < 0.7 else [line]
    stream = detector.stream(part(bars, slice(N_HISTORY)), missing="gap")
    regimes, refusals = fed(stream, b"".join(lines))
    assert len(refusals) > 20
    assert regimes
    assert all(abs(sum(regime.probs) - 1) < 1e-9 for regime in regimes)


# --- chosen columns and zones


def chosen(detector, **options):
    return replace(detector, reading=replace(detector.reading, **options))


def test_a_pipe_reads_the_columns_that_training_chose(detector, bars):
    """The volume of the training stands under another name, next to a plain volume."""
    frame = part(bars, slice(N_HISTORY, None)).frame
    ours = frame.assign(tradecount=frame["volume"], volume=1.0, when=frame["timestamp"])
    ours["timestamp"] = frame["timestamp"] + pd.Timedelta("7h")
    model = chosen(detector, volume_column="tradecount", timestamp_column="when")
    expected = detector.filter(bars)["p_state_1"].tolist()[N_HISTORY - len(bars) :]
    for content in (
        ours.to_csv(index=False),
        ours.rename(columns={"tradecount": "TradeCount"}).to_csv(index=False),
        "".join(json.dumps(bar, default=str) + "\n" for bar in ours.to_dict("records")),
    ):
        stream = model.stream(part(bars, slice(N_HISTORY)))
        regimes, refusals = fed(stream, content.encode())
        assert refusals == []
        assert [regime.probs[1] for regime in regimes] == expected
    stream = model.stream(part(bars, slice(N_HISTORY)))
    assert [stream.update(bar).probs[1] for bar in ours.to_dict("records")] == expected


@pytest.mark.parametrize("kind", ["volume", "timestamp"])
def test_a_chosen_column_that_is_not_there_is_never_replaced_by_another(detector, bars, kind):
    stream = chosen(detector, **{f"{kind}_column": "mine"}).stream()
    (bar, *_) = records(bars)
    with pytest.raises(DataError, match=f"data.{kind}_column=mine: no column of that name"):
        stream.update(bar)
    lines = BarLines(stream.model.reading, "live")
    with pytest.raises(HeaderError, match=f"data.{kind}_column=mine: no column of that name"):
        lines.bar(HEADER.decode())
    with pytest.raises(DataError, match=f"data.{kind}_column=mine"):
        BarLines(stream.model.reading, "live").bar(json.dumps(bar, default=str))


@pytest.mark.parametrize(
    "form",
    [
        lambda time: time.isoformat(sep=" "),
        lambda time: time.isoformat() + ".000",
        lambda time: time,
        lambda time: time.to_pydatetime(),
        lambda time: time.to_datetime64(),
    ],
)
@pytest.mark.parametrize("zone", ["US/Eastern", "Asia/Kolkata", "UTC"])
@pytest.mark.parametrize("date", ["2021-01-05 09:30", "2021-07-05 09:30", "2021-11-07 00:59"])
def test_a_time_without_a_zone_is_in_that_of_the_training(form, zone, date):
    local = pd.Timestamp(date)
    assert read_stamp(form(local), zone) == local.tz_localize(zone).value


def test_a_time_with_a_zone_keeps_it():
    time = pd.Timestamp("2021-07-05 09:30", tz="Asia/Tokyo")
    for form in (time, time.to_pydatetime(), time.isoformat(), time.timestamp(), str(time)):
        assert read_stamp(form, "US/Eastern") == time.value


@pytest.mark.parametrize("text", ["2021-11-07 01:30", "2021-03-14 02:30"])
def test_a_time_that_a_clock_shows_twice_or_never_is_refused(text):
    for time in (text, datetime.fromisoformat(text), pd.Timestamp(text)):
        with pytest.raises(DataError, match=r"comes twice in US/Eastern|cannot be read"):
            read_stamp(time, "US/Eastern")


def test_a_pipe_in_local_times_gives_what_one_in_utc_does(detector, bars):
    frame = part(bars, slice(N_HISTORY, None)).frame
    local = frame.assign(
        timestamp=frame["timestamp"].dt.tz_convert("Asia/Tokyo").dt.tz_localize(None)
    )
    stream = chosen(detector, timezone="Asia/Tokyo").stream(part(bars, slice(N_HISTORY)))
    regimes, refusals = fed(stream, local.to_csv(index=False).encode())
    assert refusals == []
    assert [regime.timestamp for regime in regimes] == list(frame["timestamp"])


NO_TIMES = (None, True, [], {}, b"2021", "", " ", "10:00", "9" * 100, 10**30, -(10**30), np.nan,
            np.inf, pd.NaT, np.datetime64("NaT"), "NaT", datetime(1, 1, 1), 1e300)  # fmt: skip


@pytest.mark.parametrize("value", NO_TIMES, ids=repr)
@pytest.mark.parametrize("zone", ["UTC", "US/Eastern"])
def test_what_is_no_time_is_refused_in_one_short_line(value, zone):
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_stamp(value, zone)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("bar", [None, 5, "bar", [1, 2], {}, {"timestamp": "2021-01-01"}])
def test_what_is_no_bar_is_refused(stream, bar):
    with pytest.raises(DataError, match=r"a bar is a mapping|no column named|no rows or"):
        stream.update(bar)


# --- going on


def test_a_pause_comes_before_the_first_line_so_that_a_kill_loses_nothing(
    stream,
):
    calls = []

    class Pipe(io.BytesIO):
        def read1(self, size):
            calls.append("read")
            return b""

    follow(stream, Pipe(), lambda regimes: None, lambda: calls.append("pause"), calls.append)
    assert calls == ["pause", "read", "pause"]


def test_a_state_goes_on_with_other_bad_rows_but_not_with_other_columns(detector, bars, tmp_path):
    state = tmp_path / "stream.json"
    detector.stream(bars).save(state)
    drops = chosen(detector, bad_rows="drop").stream()
    assert resumed(state, drops).time == bars.frame.index[-1]
    for option, value in (("volume_column", "trades"), ("timezone", "US/Eastern")):
        with pytest.raises(ModelError, match=f"saved with data.{option}=.*, not {value}"):
            resumed(state, chosen(detector, **{option: value}).stream())
    with pytest.raises(ModelError, match="saved with another model"):
        resumed(state, live_detector(RECIPE, seed=1).stream())


@pytest.mark.parametrize("line", ["some text", "1,now,2", "2021", "{}", '{"available_at": 1}', "{"])
def test_an_output_that_holds_something_else_is_left_as_it_is(stream, tmp_path, line):
    path = tmp_path / "regimes.csv"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match="which is no regime: move it away"):
        rewind(path, stream.latest)
    assert path.read_text() == line + "\n"


# --- columns


def test_a_date_and_a_clock_in_a_pipe_are_joined(detector, bars):
    stream = detector.stream(part(bars, slice(N_HISTORY)))
    frame = part(bars, slice(N_HISTORY, None)).frame
    when = frame["timestamp"].dt
    split = frame.drop(columns="timestamp").assign(
        **{"<DATE>": when.strftime("%Y.%m.%d"), "<TIME>": when.strftime("%H:%M:%S")}
    )
    regimes, refusals = fed(stream, split.to_csv(index=False, sep="\t").encode(), drop=False)
    assert refusals == []
    assert [regime.timestamp for regime in regimes] == list(frame["timestamp"])


def test_a_second_instrument_in_a_pipe_is_refused(stream, bars):
    frame = part(bars, slice(N_HISTORY, None)).frame.assign(symbol="ABC")
    frame.iloc[3:5, -1] = "XYZ"
    regimes, refusals = fed(stream, frame.to_csv(index=False).encode())
    assert len(regimes) == len(frame) - 2
    assert all("another symbol in 'symbol': 'XYZ' after 'ABC'" in line for line in refusals)


def test_columns_that_no_feature_uses_may_be_absent_or_bad_in_a_stream(bars):
    detector = live_detector(Recipe.of_set("returns", ["1H"], **SHORT))
    expected = detector.filter(bars)
    stream = detector.stream(part(bars, slice(N_HISTORY)))
    frame = part(bars, slice(N_HISTORY, None)).frame
    regimes = [
        stream.update({"timestamp": row.timestamp, "close": row.close, "open": -1.0, "high": "x"})
        for row in frame.itertuples()
    ]
    probs = expected.filter(like="p_state_").to_numpy()[-len(regimes) :]
    np.testing.assert_array_equal([regime.probs for regime in regimes], probs)
    with pytest.raises(DataError, match="no column named close"):
        stream.update({"timestamp": "2030-01-01 00:00", "open": 1.0})
    with pytest.raises(DataError, match="zero or negative price"):
        stream.update({"timestamp": "2030-01-01 00:00", "close": -1.0})


def test_rows_go_on_in_the_form_of_an_earlier_version_and_else_in_iso(detector, bars, tmp_path):
    regimes = detector.filter(bars).iloc[:-50]
    regime = detector.stream(bars).latest
    texts = {"old": "%Y-%m-%d %H:%M:%S", "new": "%Y-%m-%dT%H:%M:%SZ"}
    for name, form in texts.items():
        path = tmp_path / f"{name}.csv"
        regimes.to_csv(path, index=False, date_format=form)
        with path.open("a") as file:
            RegimeLines(file, detector.columns, False, True, times_in(path)).write([regime])
        times = pd.read_csv(path, parse_dates=["available_at"])["available_at"]
        assert list(pd.to_datetime(times, utc=True))[-1] == regime.available_at
        assert rewind(path, detector.stream(part(bars, slice(-60))).latest)
        assert len(pd.read_csv(path)) == len(detector.filter(part(bars, slice(-60))))
    assert times_in(tmp_path / "none.csv")(regime.available_at) == "2021-03-17T21:00:00Z"
