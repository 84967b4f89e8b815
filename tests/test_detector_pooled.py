"""A detector of a panel: a detector for each symbol, tables in and out, its file, no future."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hmm_exp
from hmm_exp.detector.detector import Detector
from hmm_exp.detector.pooled import PooledDetector, read_detector
from hmm_exp.errors import DataError, HistoryError, ModelError
from hmm_exp.experiment.prepare import prepare
from hmm_exp.stored.document import digest_of
from tests.pooled import SYMBOLS, settings, small_pool
from tests.small_detector import small_detector


@pytest.fixture(scope="module")
def pool() -> PooledDetector:
    return small_pool().detector


@pytest.fixture(scope="module")
def bars() -> dict[str, pd.DataFrame]:
    """Bars of every symbol as a user holds them."""
    found = {}
    for symbol in SYMBOLS:
        frame = prepare(settings(symbol)).source.bars.frame
        found[symbol] = frame.reset_index(drop=True)
    return found


def long_table(bars) -> pd.DataFrame:
    return pd.concat([frame.assign(symbol=symbol) for symbol, frame in bars.items()])


def test_it_says_what_it_is_in_two_lines(pool):
    first, second = repr(pool).splitlines()
    assert first.startswith("PooledDetector pool: 2 states (calm, turbulent) of close_logret_")
    assert second.startswith("4 symbols (BTC, ETH, SOL, ...), trained until 2021-")
    assert "bars of history; decides by hysteresis" in second


def test_a_symbols_detector_is_an_ordinary_one_with_its_own_scaler(pool, bars):
    detectors = [pool.of(symbol) for symbol in SYMBOLS]
    assert all(type(detector) is Detector for detector in detectors)
    assert [detector.name for detector in detectors] == list(SYMBOLS)
    assert len({detector.scaler_scale.tobytes() for detector in detectors}) == len(SYMBOLS)
    assert len({id(detector.params) for detector in detectors}) == 1
    prepared = prepare(settings("SOL"))
    np.testing.assert_array_equal(pool.of("SOL").scaler_mean, prepared.scaler.mean_)
    assert pool.of("SOL").train_end == prepared.split.train_end
    assert pool.of("SOL").expectations
    assert pool.of("SOL").meta["fingerprint"] == small_pool().fits.pool.fingerprint


def test_a_symbols_stream_and_file_are_those_of_an_ordinary_detector(pool, bars, tmp_path):
    detector, frame = pool.of("ETH"), bars["ETH"]
    n = detector.min_history
    stream = detector.stream(frame[:n])
    streamed = [stream.update(row) for row in frame[n : n + 20].to_dict("records")]
    filtered = detector.filter(frame[: n + 20])["p_state_1"].to_numpy()[-20:]
    np.testing.assert_allclose([one.probs[1] for one in streamed], filtered, atol=1e-12)
    detector.save(tmp_path / "detector.json")
    assert Detector.load(tmp_path / "detector.json").to_dict() == detector.to_dict()


@pytest.mark.parametrize(
    "form",
    [
        lambda bars: bars,
        long_table,
        lambda bars: long_table(bars).rename(columns={"symbol": "Symbol"}),
        lambda bars: long_table(bars).astype({"symbol": "category"}),
        lambda bars: long_table(bars).to_dict("list"),
        lambda bars: long_table(bars).to_dict("records"),
        lambda bars: long_table(bars).sort_values("timestamp", kind="stable"),
    ],
    ids=["mapping", "table", "any case", "category", "columns", "records", "by time"],
)
def test_a_panel_in_any_form_gives_the_answers_of_its_symbols(pool, bars, form):
    answer = pool.filter(form(bars))
    assert tuple(answer.columns) == pool.columns
    assert answer["symbol"].unique().tolist() == list(SYMBOLS)
    for symbol, rows in answer.groupby("symbol"):
        own = pool.of(symbol).filter(bars[symbol])
        rest = rows.drop(columns="symbol").reset_index(drop=True)
        pd.testing.assert_frame_equal(rest, own, check_dtype=False)


def test_a_panel_may_hold_some_symbols_and_times_as_its_index(pool, bars):
    table = long_table({"SOL": bars["SOL"], "BTC": bars["BTC"]}).set_index("timestamp")
    answer = pool.filter(table)
    assert answer["symbol"].unique().tolist() == ["SOL", "BTC"]
    assert isinstance(answer.index, pd.DatetimeIndex)
    own = pool.of("BTC").filter(bars["BTC"])
    np.testing.assert_array_equal(answer[answer["symbol"] == "BTC"]["p_state_0"], own["p_state_0"])


def test_the_newest_row_of_every_symbol_says_since_when_its_regime_holds(pool, bars):
    latest = pool.latest(bars).set_index("symbol")
    assert latest.index.tolist() == list(SYMBOLS)
    for symbol in SYMBOLS:
        own = pool.of(symbol).filter(bars[symbol])
        assert latest.loc[symbol, "available_at"] == own["available_at"].iloc[-1]
        assert latest.loc[symbol, "regime"] == own["regime"].iloc[-1]
        visit = own["regime"].ne(own["regime"].shift()).cumsum()
        begun = own["available_at"][visit == visit.iloc[-1]].iloc[0]
        assert latest.loc[symbol, "regime_since"] == begun


def test_later_bars_and_other_symbols_change_no_bit(pool, bars):
    """Rewrite the future of one symbol, and everything of another."""
    before = pool.filter(bars)
    cut = 500
    future = {symbol: frame.copy() for symbol, frame in bars.items()}
    prices = ["open", "high", "low", "close"]
    future["BTC"].loc[cut:, prices] *= 3.0
    future["BTC"].loc[cut:, "volume"] += 1e6
    future["ETH"][prices] *= np.linspace(1.0, 2.0, len(future["ETH"]))[:, None]
    future["ETH"]["high"] *= 2.0
    after = pool.filter(future)
    instant = bars["BTC"]["timestamp"][cut]
    for symbol in ("BTC", "SOL", "DOGE"):
        old, new = (answer[answer["symbol"] == symbol] for answer in (before, after))
        known = (old["timestamp"] < instant).to_numpy() | (symbol != "BTC")
        pd.testing.assert_frame_equal(old[known], new[known], check_exact=True)
    assert not before.equals(after)


@pytest.mark.parametrize(
    ("symbol", "line"),
    [
        ("BTCC", "symbol 'BTCC' is not in the pool of 4 trained symbols (did you mean BTC?)"),
        ("sol", "symbol 'sol' is not in the pool of 4 trained symbols (did you mean SOL?)"),
        ("QQQQQQ", "symbol 'QQQQQQ' is not in the pool of 4 trained symbols"),
    ],
)
def test_a_symbol_that_was_not_trained_is_named_with_the_nearest(pool, bars, symbol, line):
    for ask in (
        lambda: pool.of(symbol),
        lambda: pool.filter({symbol: bars["BTC"]}),
        lambda: pool.latest(bars["BTC"].assign(symbol=symbol)),
    ):
        with pytest.raises(DataError) as caught:
            ask()
        assert str(caught.value) == line


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (
            lambda t: t.assign(symbol=[None, *t["symbol"][1:]]),
            "1 row without a symbol, first row 1",
        ),
        (lambda t: t.assign(symbol=" "), "rows without a symbol, first row 1"),
        (lambda t: t.assign(Symbol="BTC"), "2 columns named symbol, one is needed"),
        (lambda t: t.drop(columns="symbol"), "0 columns named symbol, one is needed: timestamp"),
        (lambda t: t.drop(columns="close"), "BTC: no column named close"),
        (lambda t: t[:0], "no symbol and no bars"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(pool, bars, spoil, line):
    with pytest.raises(DataError) as caught:
        pool.filter(spoil(long_table(bars).reset_index(drop=True)))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_about_one_symbol_names_it_and_keeps_its_type(pool, bars):
    with pytest.raises(HistoryError, match=r"^SOL: 10 bars"):
        pool.filter(bars | {"SOL": bars["SOL"][:10]})


def test_a_pool_comes_back_from_its_file_with_every_bit(pool, bars, tmp_path):
    path = tmp_path / "detector.json"
    pool.save(path)
    for found in (hmm_exp.load_detector(path), hmm_exp.load_detector(tmp_path)):
        assert isinstance(found, PooledDetector)
        assert found.to_dict() == pool.to_dict()
        pd.testing.assert_frame_equal(found.filter(bars), pool.filter(bars), check_exact=True)
        assert len({id(found.of(symbol).params) for symbol in SYMBOLS}) == 1


def test_its_file_holds_the_common_model_once(pool, tmp_path):
    pool.save(tmp_path / "detector.json")
    content = json.loads((tmp_path / "detector.json").read_text())
    assert content["kind"] == "pool"
    assert set(content["symbols"]) == set(SYMBOLS)
    assert {"params", "recipe", "labels", "decision"} <= set(content["shared"])
    assert not {"params", "recipe", "labels"} & set(content["symbols"]["BTC"])


def test_a_command_that_takes_one_detector_refuses_a_pool_in_one_line(pool, tmp_path):
    pool.save(tmp_path / "detector.json")
    with pytest.raises(ModelError) as caught:
        Detector.load(tmp_path / "detector.json")
    assert "holds one model of 4 symbols" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: c.pop("shared"), "shared is missing"),
        (lambda c: c.update(symbols={}), "a pool without symbols"),
        (lambda c: c.update(symbols=[]), "symbols is []: must be a JSON object"),
        (lambda c: c.update(more=1), "more is unknown"),
        (lambda c: c["shared"].pop("params"), "shared.params is missing"),
        (lambda c: c["shared"].update(min_history=5), "shared.min_history is unknown"),
        (lambda c: c["symbols"]["SOL"].pop("scaler_scale"), "SOL: scaler_scale is missing"),
        (
            lambda c: c["symbols"]["SOL"].update(labels=["a", "b"]),
            "symbols.SOL.labels: it is shared",
        ),
        (lambda c: c["symbols"].update(SOL=7), "symbols.SOL is 7: must be a JSON object"),
        (lambda c: c["symbols"]["SOL"].update(min_history=0), "SOL: min_history is 0: must be"),
    ],
)
def test_a_damaged_file_is_refused_by_place_and_rule(pool, tmp_path, change, fault):
    content = json.loads(json.dumps(pool.to_dict()))
    change(content)
    path = tmp_path / "detector.json"
    path.write_text(json.dumps(content | {"digest": digest_of(content)}))
    with pytest.raises(ModelError) as caught:
        read_detector(path)
    assert fault in str(caught.value)
    assert "is a damaged detector" in str(caught.value)


def test_a_changed_number_is_found_by_the_digest(pool, tmp_path):
    path = tmp_path / "detector.json"
    pool.save(path)
    content = json.loads(path.read_text())
    content["symbols"]["SOL"]["scaler_mean"][0] += 1e-9
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="its content is not what its digest was made of"):
        read_detector(path)


def test_detectors_of_different_models_are_no_pool():
    one, other = small_detector("BTC"), small_detector("ETH", seed=1)
    with pytest.raises(ModelError, match="ETH has another model than BTC"):
        PooledDetector({"BTC": one, "ETH": other})
    same = replace(small_detector("ETH"), scaler_scale=2.0 * one.scaler_scale)
    assert PooledDetector({"BTC": one, "ETH": same}).symbols == ("BTC", "ETH")
