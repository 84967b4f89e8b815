"""Written times have one form and read back as they were."""

import io
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest

from hmm_exp.market.iso import iso, iso_texts, write_rows
from hmm_exp.market.stamps import read_stamp


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (pd.Timestamp("2024-03-31 03:00", tz="Europe/Berlin"), "2024-03-31T01:00:00Z"),
        (pd.Timestamp("2024-01-01 05:00:00.5", tz="UTC"), "2024-01-01T05:00:00.500000Z"),
        (datetime(2024, 1, 1, 5, tzinfo=timezone(timedelta(hours=2))), "2024-01-01T03:00:00Z"),
        (0, "1970-01-01T00:00:00Z"),
        (np.int64(1_700_000_000_000_000_001), "2023-11-14T22:13:20.000000001Z"),
    ],
)
def test_a_time_is_written_in_utc_with_a_fraction_only_if_it_has_one(time, text):
    assert iso(time) == text
    assert read_stamp(text) == (pd.Timestamp(time).value)


@pytest.mark.parametrize("zone", ["UTC", "US/Eastern"])
@pytest.mark.parametrize("late", ["0s", "1ns"])
def test_a_column_is_written_as_its_times_are_and_pandas_reads_it_back(zone, late):
    times = pd.date_range("2024-10-27", periods=40, freq="h", tz="UTC", unit="ns").tz_convert(zone)
    column = pd.Series(times + pd.Timedelta(late))
    column[7] = pd.NaT
    texts = iso_texts(column)
    assert texts[7].as_py() is None
    if late == "0s":
        assert [text for text in texts.to_pylist() if text] == [iso(t) for t in column.dropna()]
    file = io.BytesIO()
    pyarrow.csv.write_csv(pa.table({"at": texts}), file)
    file.seek(0)
    back = pd.read_csv(file, parse_dates=["at"], skip_blank_lines=False)["at"]
    assert (back.dropna().array == column.dropna().array).all()


@pytest.mark.parametrize("texts", [["calm", None], ["high, calm", 'a "b"'], ["two\nlines", "x"]])
def test_texts_are_quoted_only_where_one_needs_it(texts):
    table = pa.table({"at": iso_texts(pd.date_range("2024", periods=2, tz="UTC")), "text": texts})
    file = io.BytesIO()
    write_rows(table, file, header=True)
    content = file.getvalue().decode()
    assert ('"2024' in content) == (texts[0] != "calm")
    back = pd.read_csv(io.StringIO(content), parse_dates=["at"], keep_default_na=False)
    assert list(back["text"]) == [text or "" for text in texts]
    assert back["at"][1] == pd.Timestamp("2024-01-02", tz="UTC")


@pytest.mark.parametrize("names", [["at", "close"], ["at", "range, pct"], ["at", 'the "close"']])
def test_names_of_columns_are_quoted_only_where_they_need_it(names):
    file = io.BytesIO()
    write_rows(pa.table([[1, 2], [0.5, 1.5]], names), file, header=True)
    content = file.getvalue().decode()
    assert ('"' in content) == (names[1] != "close")
    assert list(pd.read_csv(io.StringIO(content))) == names
