"""A table of formats as exchanges, brokers, terminals and libraries write them.

Every row makes up a file of one format from the same market and tells what must come of it: the
right bars, or one line that names the option. No row is a copy of a real file.
"""

import io
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import DataError
from hmm_exp.market.load import bar_chunks, read_bars
from hmm_exp.market.options import ReadOptions

N_BARS = 60
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NEW_YORK = ZoneInfo("America/New_York")


@dataclass(frozen=True)
class Bar:
    """One made-up bar: its opening time in UTC, and five numbers."""

    time: datetime
    o: float
    h: float
    l: float  # noqa: E741
    c: float
    v: float

    @property
    def epoch(self) -> int:
        return int(self.time.timestamp())


def market(start: datetime = datetime(2024, 1, 1, tzinfo=UTC), step: timedelta = HOUR) -> list[Bar]:
    """A random walk of bars whose prices and volumes are exact in two decimals."""
    random = np.random.default_rng(3)
    close = np.round(100 + random.normal(0, 1, N_BARS).cumsum(), 2)
    opens = np.append(100.0, close[:-1])
    high = np.round(np.maximum(opens, close) + random.uniform(0.01, 1, N_BARS), 2)
    low = np.round(np.minimum(opens, close) - random.uniform(0.01, 1, N_BARS), 2)
    volume = np.round(random.uniform(10, 20, N_BARS), 2)
    numbers = zip(opens, high, low, close, volume, strict=True)
    return [Bar(start + i * step, *map(float, row)) for i, row in enumerate(numbers)]


HOURS, DAYS = market(), market(step=DAY)
SESSION = market(datetime(2024, 1, 2, 14, 30, tzinfo=UTC))  # 09:30 in New York


@dataclass(frozen=True)
class Format:
    """A file of a format, and what must come of it.

    Attributes
    ----------
    lines
        The file without its last line end.
    bars
        What it holds, or a pattern of the line that refuses it.
    options
        What a user must add; `bar_stamp` is "open" unless given.
    warning
        A pattern of the one warning that must come with it.
    """

    lines: list[str]
    bars: list[Bar] | str
    options: dict = field(default_factory=dict)
    warning: str = ""


def rows(form, bars=HOURS, header=None, newest_first=False, preamble=()):
    """Lines of a file: each bar by `form`, under a header if it has one."""
    lines = [form(bar) for bar in bars]
    lines = lines[::-1] if newest_first else lines
    return [*preamble, *([header] if header else []), *lines]


def ohlcv(bar):
    return f"{bar.o},{bar.h},{bar.l},{bar.c},{bar.v}"


def ohlcv_with(mark):
    return lambda bar: ohlcv(bar).replace(",", mark)


def klines(unit):
    """Twelve columns as Binance writes them, epochs in `unit` a second."""

    def form(bar):
        begin, end = bar.epoch * unit, (bar.epoch + 3600) * unit - 1
        return f"{begin},{ohlcv(bar)},{end},{bar.v * bar.c:.4f},17,{bar.v / 2},{bar.v * 50},0"

    return form


KLINES = ("open_time,open,high,low,close,volume,close_time,quote_volume,count,"
          "taker_buy_volume,taker_buy_quote_volume,ignore")  # fmt: skip


def iso(bar, tz=UTC, form="%Y-%m-%d %H:%M:%S"):
    return bar.time.astimezone(tz).strftime(form)


def mt5(bar):
    when = iso(bar, form="%Y.%m.%d\t%H:%M:%S")
    return "\t".join(map(str, (when, bar.o, bar.h, bar.l, bar.c, round(bar.v * 100), 0, 3)))


MT5 = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"
YFINANCE = ["Price,Close,High,Low,Open,Volume", "Ticker,XYZ,XYZ,XYZ,XYZ,XYZ", "Date,,,,,"]


def yahoo(bar):
    return f"{iso(bar, form='%Y-%m-%d')},{bar.c},{bar.h},{bar.l},{bar.o},{bar.v}"


def minus(bars, **change):
    """The bars with fields computed anew, such as a volume that a file counts otherwise."""
    return [Bar(**{**bar.__dict__, **{k: f(bar) for k, f in change.items()}}) for bar in bars]


FORMATS = {
    "binance klines, ms": Format(rows(klines(1000), header=KLINES), HOURS),
    "binance klines, us": Format(rows(klines(1_000_000), header=KLINES), HOURS),
    "binance klines without header, ms": Format(rows(klines(1000)), HOURS),
    "binance klines without header, us": Format(rows(klines(1_000_000)), HOURS),
    "tradingview, epochs": Format(
        rows(lambda b: f"{b.epoch},{ohlcv(b)},{b.v + 1}",
             header="time,open,high,low,close,Volume,Volume MA"), HOURS),
    "tradingview, iso with offset": Format(
        rows(lambda b: f"{iso(b, timezone(HOUR), '%Y-%m-%dT%H:%M:%S%z')},{ohlcv(b)}",
             header="time,open,high,low,close,Volume"), HOURS),
    "metatrader 4 without header": Format(
        rows(lambda b: f"{iso(b, form='%Y.%m.%d')},{iso(b, form='%H:%M')},{ohlcv(b)}"), HOURS),
    "metatrader 5, traded volume of zero": Format(
        rows(mt5, header=MT5), minus(HOURS, v=lambda b: 0.0),
        warning=r"volume '<VOL>' is 0 on every bar, '<TICKVOL>' is not: data.volume_column="),
    "metatrader 5, ticks by option": Format(
        rows(mt5, header=MT5), minus(HOURS, v=lambda b: round(b.v * 100)),
        {"volume_column": "<TICKVOL>"}),
    "metatrader 5 with a second <DATE>": Format(
        rows(lambda b: mt5(b).replace("\t", f"\t{iso(b, form='%Y.%m.%d')}\t", 1),
             header=MT5.replace("\t", "\t<DATE>\t", 1)),
        minus(HOURS, v=lambda b: 0.0), warning="<TICKVOL>"),
    "cryptodatadownload": Format(
        rows(lambda b: f"{b.epoch * 1000},{iso(b)},ABC/USDT,{ohlcv(b)},{b.v * b.c:.2f},9",
             header="unix,date,symbol,open,high,low,close,Volume ABC,Volume USDT,tradecount",
             newest_first=True, preamble=["https://www.example.com"]), HOURS),
    "cryptodatadownload, hours as AM and PM": Format(
        rows(lambda b: f"{iso(b, form='%Y-%m-%d %I-%p')},ABCUSD,{ohlcv(b)},{b.v * b.c:.2f}",
             header="Date,Symbol,Open,High,Low,Close,Volume ABC,Volume USD",
             newest_first=True, preamble=["https://www.example.com"]), HOURS),
    "kraken without header": Format(rows(lambda b: f"{b.epoch},{ohlcv(b)},12"), HOURS),
    "kraken api without header": Format(
        rows(lambda b: f"{b.epoch},{b.o},{b.h},{b.l},{b.c},{(b.h + b.l) / 2},{b.v},12"), HOURS),
    "coinbase": Format(
        rows(lambda b: f"{b.epoch},{b.l},{b.h},{b.o},{b.c},{b.v}",
             header="time,low,high,open,close,volume", newest_first=True), HOURS),
    "coinbase api without header": Format(
        rows(lambda b: f"{b.epoch},{b.l},{b.h},{b.o},{b.c},{b.v}", newest_first=True), HOURS),
    "bitfinex api without header": Format(
        rows(lambda b: f"{b.epoch * 1000},{b.o},{b.c},{b.h},{b.l},{b.v}"), HOURS),
    "ccxt lists without header": Format(rows(lambda b: f"{b.epoch * 1000},{ohlcv(b)}"), HOURS),
    "okx": Format(
        rows(lambda b: f"ABC-USDT,{ohlcv(b)},{b.v},{b.v * 100},{b.epoch * 1000},1",
             header="instrument_name,open,high,low,close,vol,vol_ccy,vol_quote,open_time,confirm"),
        HOURS),
    "kucoin": Format(
        rows(lambda b: f"{b.epoch},{b.o},{b.c},{b.h},{b.l},{b.v},{b.v * 100}",
             header="time,open,close,high,low,volume,turnover"), HOURS),
    "dukascopy, gmt": Format(
        rows(lambda b: f"{iso(b, form='%d.%m.%Y %H:%M:%S.000')},{ohlcv(b)}",
             header="Gmt time,Open,High,Low,Close,Volume"), HOURS),
    "dukascopy, local time": Format(
        rows(lambda b: f"{iso(b, timezone(2 * HOUR), '%d.%m.%Y %H:%M:%S.000 GMT+0200')},{ohlcv(b)}",
             header="Local time,Open,High,Low,Close,Volume"), HOURS),
    "stooq, days": Format(
        rows(lambda b: f"{iso(b, form='%Y-%m-%d')},{ohlcv(b)}", DAYS,
             header="Date,Open,High,Low,Close,Volume"), DAYS),
    "stooq, ascii": Format(
        rows(lambda b: f"ABC,60,{iso(b, form='%Y%m%d')},{iso(b, form='%H%M%S')},{ohlcv(b)},0",
             header="<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>"),
        HOURS),
    "metastock": Format(
        rows(lambda b: f"ABC,I,{iso(b, form='%Y%m%d')},{iso(b, form='%H%M')},{ohlcv(b)}",
             header="<TICKER>,<PER>,<DTYYYYMMDD>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>"),
        HOURS),
    "yahoo": Format(
        rows(lambda b: f"{iso(b, form='%Y-%m-%d')},{b.o},{b.h},{b.l},{b.c},{b.c / 2},{b.v}", DAYS,
             header="Date,Open,High,Low,Close,Adj Close,Volume"), DAYS),
    "yfinance, three header lines": Format([*YFINANCE, *rows(yahoo, DAYS)], DAYS),
    "yfinance, two header lines": Format([*YFINANCE[:2], *rows(yahoo, DAYS)], DAYS),
    "yfinance, ticker above": Format(
        [YFINANCE[1], YFINANCE[0], "Datetime,,,,,",
         *rows(lambda b: yahoo(b).replace(iso(b, form="%Y-%m-%d"), iso(b) + "+00:00"))], HOURS),
    "yfinance, two tickers": Format(
        ["Price,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume",
         "Ticker,ABC,XYZ,ABC,XYZ,ABC,XYZ,ABC,XYZ,ABC,XYZ", "Date" + "," * 10,
         "2024-01-02" + ",1" * 10],
        r"2 symbols in the header: ABC, XYZ"),
    "interactive brokers, zone in the text": Format(
        rows(lambda b: f"{iso(b, NEW_YORK, '%Y%m%d %H:%M:%S')} US/Eastern,{ohlcv(b)},100.0,40",
             SESSION, header="date,open,high,low,close,volume,average,barCount"), SESSION),
    "interactive brokers, zone by option": Format(
        rows(lambda b: f"{iso(b, NEW_YORK, '%Y%m%d  %H:%M:%S')},{ohlcv(b)},100.0,40",
             SESSION, header="date,open,high,low,close,volume,average,barCount"), SESSION,
        {"timezone": "US/Eastern"}),
    "polygon, flat files": Format(
        rows(lambda b: f"ABC,{b.v},{b.o},{b.c},{b.h},{b.l},{b.epoch * 10**9},5",
             header="ticker,volume,open,close,high,low,window_start,transactions"), HOURS),
    "polygon, aggregates": Format(
        rows(lambda b: f"{b.v},{b.c},{b.o},{b.c},{b.h},{b.l},{b.epoch * 1000},5",
             header="v,vw,o,c,h,l,t,n"), HOURS),
    "databento": Format(
        rows(lambda b: f"{iso(b, form='%Y-%m-%dT%H:%M:%S.000000000Z')},34,1,77,{ohlcv(b)},ABC",
             header="ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol"),
        HOURS),
    "databento, nanoseconds": Format(
        rows(lambda b: f"{b.epoch * 10**9},34,1,77,{ohlcv(b)},ABC",
             header="ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol"),
        HOURS),
    "alpha vantage": Format(
        rows(lambda b: f"{iso(b, NEW_YORK)},{ohlcv(b)}", SESSION, newest_first=True,
             header="timestamp,open,high,low,close,volume"), SESSION, {"timezone": "US/Eastern"}),
    "alpha vantage, numbered names": Format(
        rows(lambda b: f"{iso(b, form='%Y-%m-%d')},{ohlcv(b)}", DAYS,
             header="date,1. open,2. high,3. low,4. close,5. volume"), DAYS),
    "histdata without header": Format(
        rows(lambda b: f"{iso(b, timezone(-5 * HOUR), '%Y%m%d %H%M%S')};{ohlcv_with(';')(b)}"),
        HOURS, {"timezone": "EST"}),
    "coinmarketcap": Format(
        rows(lambda b: f'"{iso(b, form="%Y-%m-%dT00:00:00.000Z")}";'
             f'"{iso(b, form="%Y-%m-%dT23:59:59.999Z")}";"2781";{ohlcv_with(";")(b)};1;'
             f'"{iso(b, form="%Y-%m-%dT23:59:59.999Z")}"', DAYS, newest_first=True,
             header="timeOpen;timeClose;name;open;high;low;close;volume;marketCap;timestamp"),
        DAYS),
    "coinapi": Format(
        rows(lambda b: f"{iso(b, form='%Y-%m-%dT%H:00:00.0000000Z')},"
             f"{iso(b, form='%Y-%m-%dT%H:59:59.0000000Z')},{iso(b, form='%Y-%m-%dT%H:00:07.1Z')},"
             f"{iso(b, form='%Y-%m-%dT%H:59:51.3Z')},{ohlcv(b)},31",
             header="time_period_start,time_period_end,time_open,time_close,price_open,price_high,"
             "price_low,price_close,volume_traded,trades_count"), HOURS),
    "sierra chart": Format(
        rows(lambda b: f"{b.time.year}/{b.time.month}/{b.time.day}, "
             f"{iso(b, form='%H:%M:%S.000000')}, {ohlcv(b)}, 7",
             header="Date, Time, Open, High, Low, Last, Volume, # of Trades"), HOURS),
    "bloomberg": Format(
        rows(lambda b: f"{iso(b, form='%m/%d/%Y')},{ohlcv(b)}", DAYS,
             header="Dates,PX_OPEN,PX_HIGH,PX_LOW,PX_LAST,PX_VOLUME"), DAYS),
    "kaggle bitcoin": Format(
        rows(lambda b: f"{b.epoch},{ohlcv(b)},{b.v * b.c:.2f},{b.c}",
             header="Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price"),
        HOURS),
    "pandas with its index": Format(
        rows(lambda b: f"{iso(b)},{ohlcv(b)}", header=",open,high,low,close,volume"), HOURS),
    "pandas with row numbers and a date": Format(
        [",Date,open,high,low,close,volume",
         *(f"{i},{iso(b)},{ohlcv(b)}" for i, b in enumerate(HOURS))], HOURS),
    "excel, days as numbers": Format(
        rows(lambda b: f"{25569 + b.epoch / 86400:.8f},{ohlcv(b)}",
             header="Date,Open,High,Low,Close,Volume"), HOURS),
    "excel, short years": Format(
        rows(lambda b: f"{b.time.month}/{b.time.day}/{iso(b, form='%y %H:%M')},{ohlcv(b)}",
             market(datetime(2024, 1, 30, tzinfo=UTC)), header="Date,Open,High,Low,Close,Volume"),
        market(datetime(2024, 1, 30, tzinfo=UTC))),
    "closing times with 24:00": Format(
        rows(lambda b: (f"{iso(b, form='%Y-%m-%d')} {b.time.hour + 1:02d}:00,{ohlcv(b)}"),
             header="time,open,high,low,close,volume"),
        minus(HOURS, time=lambda b: b.time), {"bar_stamp": "close"}),
    "european excel, decimal commas": Format(
        rows(lambda b: f"{iso(b, form='%d.%m.%Y %H:%M')};" + ohlcv_with(";")(b).replace(".", ","),
             header="Datum;Open;High;Low;Close;Volume"),
        r"no column of times; there are Datum, .*; set data.timestamp_column"),
    "investing.com": Format(
        rows(lambda b: f'"{iso(b, form="%m/%d/%Y")}","{b.c}","{b.o}","{b.h}","{b.l}","{b.v}K","1%"',
             DAYS, header='"Date","Price","Open","High","Low","Vol.","Change %"'),
        r"60 rows with text instead of a number, first Vol\.=.*K at 2024-01-01"),
    "lean minutes without dates": Format(
        rows(lambda b: f"{(b.epoch % 86400) * 1000},{ohlcv(b)}"), r"no column named"),
    "two symbols under each other": Format(
        [*rows(lambda b: f"ABC,{iso(b)},{ohlcv(b)}", header="sym,time,open,high,low,close,volume"),
         *rows(lambda b: f"XYZ,{iso(b)},{ohlcv(b)}")],
        r"2 symbols in column 'sym': ABC \(60 rows\), XYZ \(60 rows\)"),
    "two intervals": Format(
        [*rows(lambda b: f"1h,{iso(b)},{ohlcv(b)}",
               header="interval,time,open,high,low,close,volume"),
         *rows(lambda b: f"1d,{iso(b)},{ohlcv(b)}", DAYS)], r"2 intervals in column 'interval'"),
    "two markets told by an unknown column": Format(
        [*rows(lambda b: f"left,{iso(b)},{ohlcv(b)}",
               header="side,time,open,high,low,close,volume"),
         *rows(lambda b: f"right,{iso(b)},{b.o},{b.h},{b.l},{b.c},1")],
        r"2 values in column 'side': left \(60 rows\), right \(60 rows\)"),
}  # fmt: skip


@pytest.fixture(params=FORMATS, ids=str)
def written(request, tmp_path):
    """A format with its file."""
    path = tmp_path / "bars.csv"
    path.write_text("\n".join(FORMATS[request.param].lines) + "\n")
    return (
        FORMATS[request.param],
        path,
        ReadOptions(**{"bar_stamp": "open"} | FORMATS[request.param].options),
    )


def test_a_format_is_read_rightly_or_refused_in_one_line(written):
    form, path, options = written
    if isinstance(form.bars, str):
        with pytest.raises(DataError, match=form.bars) as caught:
            read_bars(path, options)
        assert "\n" not in str(caught.value)
        return
    bars = read_bars(path, options)
    assert_holds(bars, form.bars, "1D" if form.bars[1].time - form.bars[0].time == DAY else "1H")
    assert len(bars.report["warnings"]) == bool(form.warning), bars.report["warnings"]
    assert all(re.search(form.warning, line) for line in bars.report["warnings"])


def test_a_format_reads_alike_in_pieces(written):
    form, path, options = written
    if isinstance(form.bars, str):
        return
    whole = read_bars(path, options)
    pieces = [bars for bars, _ in bar_chunks(path, options, whole.step, block=1500)]
    pd.testing.assert_frame_equal(pd.concat([piece.frame for piece in pieces]), whole.frame)


def test_closing_times_are_read_from_the_column_of_closing_times(tmp_path):
    path = tmp_path / "bars.csv"
    path.write_text("\n".join(FORMATS["binance klines without header, ms"].lines))
    closing = read_bars(path, bar_stamp="close")
    assert closing.frame.index[0] == pd.Timestamp("2024-01-01 00:59:59.999", tz="UTC")
    np.testing.assert_array_equal(closing.ohlcv, read_bars(path, bar_stamp="open").ohlcv)


def test_a_frame_of_yfinance_in_memory_is_read(tmp_path):
    text = "\n".join(FORMATS["yfinance, three header lines"].lines)
    frame = pd.read_csv(io.StringIO(text), header=[0, 1], index_col=0, parse_dates=True)
    frame.to_parquet(tmp_path / "bars.parquet")
    assert_holds(read_bars(tmp_path / "bars.parquet", bar_stamp="open"), DAYS, "1D")


def assert_holds(bars, expected, step):
    assert bars.report["step"] == step
    length = pd.Timedelta(bars.step)
    np.testing.assert_array_equal(
        bars.frame.index, pd.DatetimeIndex([bar.time for bar in expected]).as_unit("ns") + length
    )
    numbers = [[bar.o, bar.h, bar.l, bar.c, bar.v] for bar in expected]
    np.testing.assert_array_equal(bars.ohlcv, np.array(numbers))
