"""Closed candles are paged without loss, and kept in files that are whole at any time."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.candles import CandleFile, Page, Series, candles
from hmm_exp.market.load import read_bars

HOUR = 3_600_000
BEGIN = 1_577_836_800_000
BTC = Series("binance", "BTC/USDT", "1h")


def candle(i: int, price: float = 100.0) -> list[float]:
    return [BEGIN + i * HOUR, price, price + 1, price - 1, price + 0.1, 2.5 + i]


def opens(pages: list[Page]) -> list[int]:
    return [(int(row[0]) - BEGIN) // HOUR for page in pages for row in page.rows]


@given(
    exists=st.sets(st.integers(0, 2000), max_size=400),
    size=st.integers(100, 300),
    windowed=st.booleans(),
    late=st.integers(0, 40),
    until=st.integers(0, 2000),
)
def test_every_closed_candle_comes_once_whether_an_exchange_counts_candles_or_time(
    exists, size, windowed, late, until
):
    """Pages hold the next candles, or those of the next hours, which may be none."""

    def fetch(since: int) -> list[list[float]]:
        after = [i for i in sorted(exists) if BEGIN + i * HOUR >= since - late * HOUR]
        if windowed:
            return [candle(i) for i in after if BEGIN + i * HOUR < since + size * HOUR]
        return [candle(i) for i in after[: size + late]][::-1]

    pages = list(candles(fetch, BEGIN, HOUR, BEGIN + until * HOUR))
    assert opens(pages) == sorted(i for i in exists if i + 1 <= until)


def test_an_open_candle_and_later_ones_are_left_out_to_the_millisecond():
    def fetch(since: int) -> list[list[float]]:
        return [row for row in map(candle, range(5)) if row[0] >= since]

    for until, closed in ((3 * HOUR - 1, 2), (3 * HOUR, 3), (3 * HOUR + 1, 3)):
        assert opens(list(candles(fetch, BEGIN, HOUR, BEGIN + until))) == list(range(closed))


def test_candles_from_after_a_time_do_not_change_those_before():
    """The future is rewritten, and no value before it changes."""

    def fetch_of(future: float):
        def fetch(since: int) -> list[list[float]]:
            rows = [candle(i, 100.0 if i < 150 else future) for i in range(300)]
            return [row for row in rows if row[0] >= since][:100]

        return fetch

    until = BEGIN + 150 * HOUR
    one, other = (list(candles(fetch_of(x), BEGIN, HOUR, until)) for x in (100.0, 9e9))
    assert one == other
    assert len(opens(one)) == 150


def test_repeated_candles_are_counted_and_the_first_one_counts():
    delivered = [[candle(0), candle(1), candle(1, 500.0)], [candle(1), candle(2)], []]
    pages = list(candles(lambda since: delivered.pop(0), BEGIN, HOUR, BEGIN + 4 * HOUR))
    assert opens(pages) == [0, 1, 2]
    assert [row[1] for page in pages for row in page.rows] == [100.0] * 3
    assert sum(page.repeated for page in pages) == 2


@pytest.mark.parametrize("name", ["b.parquet", "b.csv"])
def test_a_file_that_was_extended_is_the_file_that_was_written_at_once(name, tmp_path):
    rows = [candle(i, 100 / (i + 3)) for i in range(50)]
    rows[7][5] = None  # some exchanges leave the volume out
    whole = CandleFile.open(tmp_path / name, BTC)
    whole.append(Page(rows))
    for part in (rows[:1], rows[1:30], rows[30:]):
        file = CandleFile.open(tmp_path / f"parts_{name}", BTC)
        file.append(Page(part))
        file.save()
    assert (tmp_path / name).read_bytes() == (tmp_path / f"parts_{name}").read_bytes()
    again = CandleFile.open(tmp_path / name, BTC).frame
    pd.testing.assert_frame_equal(again, whole.frame, check_exact=True)
    assert np.isnan(again.volume[7])
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"parts_{name}"]


@pytest.mark.parametrize("name", ["b.parquet", "b.csv"])
def test_a_file_is_read_as_bars_that_are_stamped_by_the_open(name, tmp_path):
    file = CandleFile.open(tmp_path / name, BTC)
    file.append(Page([candle(i) for i in range(30) if i != 12]))
    bars = read_bars(tmp_path / name, bar_stamp="open")
    assert bars.frame.index[0] == pd.Timestamp("2020-01-01 01:00", tz="UTC")
    assert (len(bars), bars.report["gaps"]["missing_bars"]) == (29, 1)
    assert bars.report["columns"]["volume"] == "volume"
    assert bars.report["warnings"] == []


@pytest.mark.parametrize("name", ["b.parquet", "b.csv"])
@pytest.mark.parametrize(
    "other",
    [
        Series("kraken", "BTC/USDT", "1h"),
        Series("binance", "ETH/USDT", "1h"),
        Series("binance", "BTC/USDT", "1d"),
    ],
    ids=str,
)
def test_a_file_of_another_series_is_never_extended(name, other, tmp_path):
    CandleFile.open(tmp_path / name, BTC).append(Page([candle(0)]))
    with pytest.raises(ConfigError, match=f"holds {BTC}, not {other}: choose another file"):
        CandleFile.open(tmp_path / name, other)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.csv", "timestamp,open,high,low,close,volume\n2020-01-01,1,2,1,2,3\n"),
        ("b.csv", "a,b\n1,2\n"),
        ("b.csv", ""),
        ("b.csv", "PAR1"),
        ("b.parquet", "PAR1"),
        ("b.parquet", ""),
    ],
)
def test_a_file_that_no_download_wrote_is_refused_and_stays(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises((ConfigError, DataError), match=r"b\.\w+ (holds no candles|is a damaged)"):
        CandleFile.open(path, BTC)
    assert path.read_text() == content


def test_a_parquet_file_of_bars_from_elsewhere_is_refused(tmp_path):
    frame = pd.DataFrame(
        [candle(0)], columns=["timestamp", "open", "high", "low", "close", "volume"]
    )
    frame.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match="holds no candles of a download"):
        CandleFile.open(tmp_path / "b.parquet", BTC)


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in \.parquet or \.csv"):
        CandleFile.open(tmp_path / "b.xlsx", BTC)


def test_the_words_count_gaps_and_name_the_longest(tmp_path):
    file = CandleFile.open(tmp_path / "b.csv", BTC)
    file.append(Page([candle(i) for i in range(40) if i not in (3, 10, 11, 12)], repeated=2))
    assert file.in_words(HOUR) == (
        "2020-01-01T00:00:00Z to 2020-01-02T15:00:00Z; 2 gaps with 4 missing candles, the longest "
        "after 2020-01-01T09:00:00Z (3 missing); 2 repeated candles dropped"
    )
