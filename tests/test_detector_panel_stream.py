"""`PanelStream`: the streams of many symbols in one process."""

from dataclasses import replace

import pytest

import hmm_exp
from hmm_exp.errors import DataError, ModelError
from hmm_exp.features.recipe import Recipe
from tests.live_detector import SHORT, gappy_bars, live_detector, part, records

SYMBOLS = {"BTC": "1h", "ETH/USDT": "15min", "ä~2F.x": "1h"}


@pytest.fixture(scope="module")
def detectors():
    return {
        symbol: live_detector(
            Recipe.of_set("v1", ["1H"], **SHORT), step=step, seed=place, n_states=place + 2
        )
        for place, (symbol, step) in enumerate(SYMBOLS.items())
    }


@pytest.fixture(scope="module")
def bars():
    return {
        symbol: gappy_bars(500, step=step, lost=0.0, seed=len(symbol))
        for symbol, step in SYMBOLS.items()
    }


def updated(streams, bars, rows: slice) -> dict:
    """Regimes by symbol when the symbols' bars come in turn."""
    feeds = {symbol: records(part(own, rows)) for symbol, own in bars.items()}
    found: dict = {symbol: [] for symbol in feeds}
    for together in zip(*feeds.values(), strict=True):
        for symbol, bar in zip(feeds, together, strict=True):
            found[symbol].append(streams.update(symbol, bar))
    return found


@pytest.fixture(scope="module")
def expected(detectors, bars):
    """What a stream of each symbol alone answers to its bars."""
    answers = {}
    for symbol, own in bars.items():
        stream = detectors[symbol].stream()
        answers[symbol] = [stream.update(bar) for bar in records(own)]
    return answers


def test_each_symbol_gets_the_answers_of_its_own_stream(detectors, bars, expected):
    streams = hmm_exp.PanelStream.of(detectors)
    assert list(streams) == list(SYMBOLS)
    assert updated(streams, bars, slice(None)) == expected
    assert streams.latest == {symbol: stream.latest for symbol, stream in streams.items()}
    assert streams.latest["BTC"].probs == expected["BTC"][-1].probs


def test_later_bars_and_those_of_other_symbols_change_nothing(detectors, bars, expected):
    other = {
        symbol: replace(
            own, frame=own.frame.assign(**{"high": own.frame["high"] * (1.5 if place else 1)})
        )
        for place, (symbol, own) in enumerate(bars.items())
    }
    changed = updated(hmm_exp.PanelStream.of(detectors), other, slice(300))
    assert changed["BTC"] == expected["BTC"][:300]
    assert changed["ETH/USDT"] != expected["ETH/USDT"][:300]


@pytest.mark.parametrize("form", ["bars", "frame"])
def test_a_history_warms_one_symbol(detectors, bars, expected, form):
    streams = hmm_exp.PanelStream.of(detectors)
    for symbol, own in bars.items():
        history = part(own, slice(400))
        rows = streams.extend(symbol, history if form == "bars" else history.frame)
        assert tuple(rows) == streams[symbol].model.columns
    found = updated(streams, bars, slice(400, None))
    assert found == {symbol: own[400:] for symbol, own in expected.items()}


def test_saved_streams_go_on_where_they_were(detectors, bars, expected, tmp_path):
    streams = hmm_exp.PanelStream.of(detectors)
    updated(streams, bars, slice(300))
    streams.save(tmp_path / "states")
    again = hmm_exp.PanelStream.load(tmp_path / "states")
    assert set(again) == set(SYMBOLS)
    found = updated(again, bars, slice(300, None))
    assert found == {symbol: own[300:] for symbol, own in expected.items()}


def test_only_streams_that_took_bars_are_saved_again(detectors, bars, tmp_path):
    streams = hmm_exp.PanelStream.of(detectors)
    updated(streams, bars, slice(100))
    streams.save(tmp_path)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    streams.update("BTC", records(bars["BTC"])[100])
    streams.save(tmp_path)
    after = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["BTC.json"]
    streams.save(tmp_path / "elsewhere")
    assert len(list((tmp_path / "elsewhere").iterdir())) == len(SYMBOLS)


def test_a_bad_bar_of_one_symbol_leaves_all_as_they_were(detectors, bars):
    streams = hmm_exp.PanelStream.of(detectors)
    updated(streams, bars, slice(200))
    before = streams.latest
    bar = records(bars["BTC"])[200]
    with pytest.raises(DataError, match="close"):
        streams.update("BTC", bar | {"close": -1.0})
    assert streams.latest == before


@pytest.mark.parametrize("take", ["update", "extend"])
def test_a_symbol_without_a_model_is_one_line(detectors, bars, take):
    streams = hmm_exp.PanelStream.of(detectors)
    what = records(bars["BTC"])[0] if take == "update" else bars["BTC"]
    with pytest.raises(DataError, match=r"no model of symbol BTD \(did you mean BTC\?\)"):
        getattr(streams, take)("BTD", what)


def test_detectors_in_place_of_streams_are_refused_at_once(detectors):
    with pytest.raises(TypeError, match=r"PanelStream\.of"):
        hmm_exp.PanelStream(detectors)


def test_a_folder_without_streams_is_one_line(tmp_path):
    with pytest.raises(ModelError, match="no saved stream in"):
        hmm_exp.PanelStream.load(tmp_path)


def test_two_lines_show_what_it_holds(detectors):
    shown = repr(hmm_exp.PanelStream.of(detectors))
    assert shown == "PanelStream of 3 symbols: BTC, ETH/USDT, ä~2F.x\n0 have a regime"
