"""Files in, bars or features out."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.load import instrument_name, read_bars, read_features

HEADER = ["time", "open", "high", "low", "close", "volume"]
ROWS = [
    [1672531200, 10.0, 12.0, 9.0, 11.0, 5.0],
    [1672534800, 11.0, 13.0, 10.0, 12.0, 0.0],
    [1672538400, 12.0, 12.0, 12.0, 12.0, 7.5],
]


def text_of(rows=ROWS, header=HEADER, delimiter=",", preamble=""):
    lines = [delimiter.join(map(str, line)) for line in [header, *rows]]
    return preamble + "\n".join(lines) + "\n"


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="bars.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def assert_holds_rows(bars):
    np.testing.assert_array_equal(bars.ohlcv, np.array(ROWS)[:, 1:])
    np.testing.assert_array_equal(bars.time, (np.array(ROWS)[:, 0] + 3600) * 10**9)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", ":", "   "])
def test_any_delimiter_is_found(write, delimiter):
    assert_holds_rows(read_bars(write(text_of(delimiter=delimiter)), bar_stamp="open"))


@pytest.mark.parametrize(
    "content",
    [
        text_of(preamble="https://exchange.example\nexported, by hand\n"),
        text_of().replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + text_of().encode(),
        text_of().encode("utf-16"),
        gzip.compress(text_of().encode()),
        text_of().rstrip("\n"),
        text_of(header=["<TIME>", '"Open"', "HIGH", "Low ", " Close", "Vol"]),
    ],
    ids=["preamble", "crlf", "bom", "utf-16", "gzip", "no last newline", "odd names"],
)
def test_forms_of_text_read_alike(write, content):
    assert_holds_rows(read_bars(write(content), bar_stamp="open"))


@pytest.mark.parametrize("index", ["time", None])
def test_parquet_reads_with_the_time_as_column_or_index(tmp_path, index):
    frame = pd.DataFrame(ROWS, columns=HEADER)
    frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
    (frame.set_index(index) if index else frame).to_parquet(tmp_path / "bars.parquet")
    assert_holds_rows(read_bars(tmp_path / "bars.parquet", bar_stamp="open"))


def test_a_gzip_keeps_the_name_of_the_instrument():
    assert instrument_name("data/btc_1h.csv.gz") == "btc_1h"
    assert instrument_name("data/BTCUSDT.P, 60.csv") == "BTCUSDT.P, 60"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            "<html>\n<p>gone</p>\n",
            r"bars.csv is a web page: a table is CSV, gzip of CSV, or Parquet",
        ),
        ("", r"bars.csv is empty; set data.path"),
        (b"\x1f\x8b broken", r"bars.csv is a damaged gzip file"),
        (b"PAR1 broken", r"bars.csv is a damaged Parquet file"),
        ("time,open,high,low,volume\n1,2,3,4,5\n", r"no column named close; there are time, open"),
        ("day,open,high,low,close,volume\n", r"no column of times.* set data.timestamp_column"),
        ("time,open,high,low,close\n", r"no column named volume.* set data.volume_column"),
        (text_of()[:-9], r"1 row with more or fewer fields than the header, first .* in line 4"),
        (text_of(rows=ROWS[:1]), r"too few rows: 1, at least 2 needed"),
        (text_of(rows=[]), r"too few rows: 0, at least 2 needed"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(write, content, line):
    with pytest.raises(DataError, match=line) as caught:
        read_bars(write(content), bar_stamp="open")
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_option(tmp_path):
    with pytest.raises(DataError, match=r"no such file: .*none.csv; set data.path"):
        read_bars(tmp_path / "none.csv", bar_stamp="open")
    with pytest.raises(DataError, match=r"is a folder; set data.path"):
        read_bars(tmp_path, bar_stamp="open")


def test_rows_with_other_numbers_of_fields_are_dropped_and_counted(write):
    path = write(text_of() + "1672542000,12\n")
    bars = read_bars(path, bar_stamp="open", bad_rows="drop")
    assert_holds_rows(bars)
    assert bars.report["rows_read"] == 4
    assert bars.report["dropped"] == {"other number of fields": 1}


def test_the_bitcoin_file_loads_without_a_gap(shared_data):
    bars = read_bars(shared_data / "BINANCE_BTCUSDT.P, 60.csv", bar_stamp="open")
    assert len(bars) == 28_727
    assert bars.step == pd.Timedelta(hours=1)
    assert bars.report["gaps"]["count"] == 0
    assert bars.frame.index[0] == pd.Timestamp("2023-01-01 01:00", tz="UTC")
    np.testing.assert_array_equal(bars.ohlcv[0], [16537.5, 16540.9, 16504, 16527, 5381.399])


def test_the_ether_classic_file_loads_in_spite_of_its_form(shared_data):
    bars = read_bars(shared_data / "Binance_ETCBTC_1h.csv", bar_stamp="open")
    report = json.loads(json.dumps(bars.report))
    assert (report["preamble_lines"], report["rows_used"]) == (1, 27_783)
    assert report["columns"]["volume"] == "Volume ETC"
    assert {"epochs in s and ms", "newest first: order reversed"} <= set(report["normalised"])
    assert report["gaps"]["missing_bars"] == 879
    assert report["gaps"]["longest"].startswith("19 days")
    np.testing.assert_array_equal(bars.ohlcv[-1, :4], [0.0002089, 0.0002095, 0.0002086, 0.0002093])


def test_the_dax_file_loads_with_bridge_and_drop_alone(shared_data):
    path = shared_data / "dax.csv"
    with pytest.raises(DataError, match=r"166 rows with a missing .*first Open=nan at 1988-04-01"):
        read_bars(path, bar_stamp="close", gaps="bridge")
    bars = read_bars(path, bar_stamp="close", gaps="bridge", bad_rows="drop")
    assert len(bars) == 9012 - 166
    assert list(bars.report["dropped"].values()) == [166]
    assert bars.report["step"] == "1D"


def test_features_are_available_one_step_of_the_finest_timeframe_after_an_open_stamp(write):
    path = write("timestamp,a_4H,b_1H,kind\n2024-01-01 01:00,,2,x\n2024-01-01 00:00,1,3,y\n")
    frame, report = read_features(path, bar_stamp="open")
    assert list(frame.columns) == ["timestamp", "a_4H", "b_1H"]
    assert list(frame.index.strftime("%H:%M")) == ["01:00", "02:00"]
    assert np.isnan(frame["a_4H"].iloc[1])
    assert report["columns_left_out"] == ["kind"]
    closed, _ = read_features(path, bar_stamp="close")
    assert list(closed.index) == list(closed["timestamp"])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            "time,a_1H\n2024-01-01,x\n2024-01-02,1\n",
            "1 row with text instead .*a_1H=x at 2024-01-01",
        ),
        (
            "time,a_1H\n2024-01-01,inf\n2024-01-02,1\n",
            "1 row with an infinite value, first a_1H=inf",
        ),
        ("time,kind\n2024-01-01,x\n2024-01-02,y\n", "no numeric column but the time 'time'"),
        ("time,a_1H,a_1H\n2024-01-01,1,2\n", "columns named more than once that differ: a_1H"),
        ("time,a_1H\n2024-01-01,1\n2024-01-01,2\n", "1 conflicting duplicate timestamp"),
    ],
)
def test_bad_features_are_one_clear_line(write, content, line):
    with pytest.raises(DataError, match=line):
        read_features(write(content), bar_stamp="open")


def test_golden_features_read_as_they_stand(shared_data):
    frame, report = read_features(shared_data / "golden_features.csv", bar_stamp="close")
    assert frame.shape == (20, 37)
    assert report["step"] == "1H"


def test_an_unknown_choice_names_the_option(write):
    with pytest.raises(ConfigError, match=r"data.bar_stamp is 'end': choose open or close"):
        read_bars(write(text_of()), bar_stamp="end")
    with pytest.raises(ConfigError, match=r"data.bad_rows is 'skip': choose error or drop"):
        read_bars(write(text_of()), bar_stamp="open", bad_rows="skip")


@pytest.mark.parametrize("seed", range(20))
def test_a_file_that_is_no_table_is_one_line(tmp_path, seed):
    path = tmp_path / "bars.csv"
    path.write_bytes(np.random.default_rng(seed).bytes(50 + 40 * seed))
    with pytest.raises(DataError) as error:
        read_bars(path, bar_stamp="open")
    assert "\n" not in str(error.value)


def test_lines_that_end_in_carriage_returns_alone_are_one_line_of_complaint(tmp_path):
    path = tmp_path / "bars.csv"
    path.write_bytes(text_of().replace("\n", "\r").encode())
    with pytest.raises(DataError, match=r"no column|header"):
        read_bars(path, bar_stamp="open")


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
def test_where_no_row_fits_the_header_none_is_to_be_left_out(write, bad_rows):
    path = write(text_of([[*row, 1] for row in ROWS]))
    with pytest.raises(DataError, match=r"^no row has as many fields as the header, 6: line 2 is"):
        read_bars(path, bar_stamp="open", bad_rows=bad_rows)
