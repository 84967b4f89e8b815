"""Files that are no table are named for what they are; damaged ones are one line."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import threading
import zipfile
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest

from benchmarks.hostile_files import case_of, outcome
from hmm_exp.errors import DataError
from hmm_exp.market.load import read_bars
from hmm_exp.market.synthetic import make_market

FRAME = make_market(50).frame.reset_index(drop=True)
TEXT = FRAME.to_csv(index=False).encode()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("bars.csv", TEXT)
    return buffer.getvalue()


def feather():
    buffer = io.BytesIO()
    FRAME.to_feather(buffer)
    return buffer.getvalue()


KINDS = {
    "a zip archive": zipped,
    "a bzip2 file": lambda: bz2.compress(TEXT),
    "an xz file": lambda: lzma.compress(TEXT),
    "a JSON file": lambda: json.dumps({"open": [1, 2]}).encode(),
    "a JSON file ": lambda: b"\n [[1704067200, 1, 2, 0.5, 1.5, 7]]",
    "a Feather": feather,
    "a pickle": lambda: pickle.dumps(FRAME),
    "a web page": lambda: b"\r\n<!DOCTYPE html><html></html>",
    "a SQLite database": lambda: b"SQLite format 3\x00" + bytes(100),
    "a NumPy file": lambda: b"\x93NUMPY" + bytes(100),
    "an lz4 file": lambda: b"\x04\x22\x4d\x18" + TEXT,
    "a Stata file": lambda: b"<stata_dta><header><release>118" + TEXT,
    "a pointer of Git LFS": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
    "a web page ": lambda: b"<table border='1'>\n<thead>\n</table>",
    "a binary file": lambda: b"\xff\xff\xff\xff\x00\x00" + TEXT,
    "a binary file, or text of another encoding": lambda: TEXT.decode().encode("utf-16-le"),
    "a binary file, or text of another encoding ": lambda: TEXT.decode().encode("utf-32"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_file_is_named(tmp_path, kind):
    path = tmp_path / "bars.csv"  # whatever its name
    path.write_bytes(KINDS[kind]())
    with pytest.raises(
        DataError, match=rf"is {kind.strip()}.*a table is CSV, gzip of CSV, or Parq"
    ):
        read_bars(path, bar_stamp="open")
    (tmp_path / "bars.csv.gz").write_bytes(gzip.compress(KINDS[kind]()))
    with pytest.raises(DataError, match=rf"is {kind.strip()}"):
        read_bars(tmp_path / "bars.csv.gz", bar_stamp="open")


@pytest.mark.parametrize("seed", range(15))
def test_a_damaged_gzip_or_parquet_is_one_line_or_what_it_was(tmp_path, seed):
    random = np.random.default_rng(seed)
    FRAME.to_parquet(tmp_path / "whole")
    for content, name in (
        (gzip.compress(TEXT), "a.csv.gz"),
        ((tmp_path / "whole").read_bytes(), "b"),
    ):
        damaged = bytearray(content)
        for place in random.integers(0, len(damaged), 3):
            damaged[place] ^= 1 << random.integers(8)
        (tmp_path / name).write_bytes(
            damaged[: random.integers(len(damaged) // 2, len(damaged) + 1)]
        )
        with suppress(DataError):
            assert len(read_bars(tmp_path / name, bar_stamp="open")) <= len(FRAME)


def test_a_pipe_is_read_where_somebody_writes_and_refused_where_not(tmp_path, monkeypatch):
    monkeypatch.setattr("hmm_exp.market.files._WRITER_WITHIN", 0.2)
    pipe = tmp_path / "bars.csv"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="is a pipe into which nothing is written"):
        read_bars(pipe, bar_stamp="open")
    writer = threading.Thread(target=pipe.write_bytes, args=(TEXT,))
    monkeypatch.setattr("hmm_exp.market.files._WRITER_WITHIN", 30)
    writer.start()
    assert len(read_bars(pipe, bar_stamp="open")) == len(FRAME)
    writer.join()


def test_dates_beyond_the_span_are_bad_rows(tmp_path):
    path = tmp_path / "bars.csv"
    late = FRAME.assign(timestamp=FRAME["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S"))
    late.loc[[3, 9], "timestamp"] = ["2300-01-01 00:00:00", "1500-01-01 00:00:00"]
    late.to_csv(path, index=False)
    with pytest.raises(DataError, match="2 unreadable timestamps, first '2300-01-01 00:00:00' in"):
        read_bars(path, bar_stamp="open")
    bars = read_bars(path, bar_stamp="open", bad_rows="drop")
    assert bars.report["dropped"] == {"unreadable timestamp": 2}


def test_hostile_files_are_read_rightly_or_refused_in_one_line():
    ends = [outcome(case_of(seed=11, number=number)) for number in range(250)]
    refused = [end for end in ends if end.startswith("refused: ")]
    assert {*ends} - {*refused} == {"right"}
    assert len(refused) > 50
    assert all(len(end) <= 300 + len("refused: ") and end.isprintable() for end in refused)


def test_a_value_of_a_megabyte_makes_a_short_line(tmp_path):
    path = tmp_path / "bars.csv"
    FRAME.astype({"open": object}).assign(open=["x" * 10**6] + [1.0] * 49).to_csv(path, index=False)
    with pytest.raises(DataError) as caught:
        read_bars(path, bar_stamp="open")
    assert len(str(caught.value)) < 300


def test_a_frame_of_a_number_beyond_all_digits_is_one_line():
    from hmm_exp.market.clean import bars_from_frame
    from hmm_exp.market.options import ReadOptions

    huge = FRAME.astype({"open": object, "timestamp": object})
    huge.loc[2, "open"] = 10**5000
    with pytest.raises(DataError, match="1 row with text instead of a number"):
        bars_from_frame(huge, ReadOptions("open"))
    huge.loc[3, "timestamp"] = 10**5000
    with pytest.raises(DataError, match="1 unreadable timestamp"):
        bars_from_frame(pd.DataFrame(huge), ReadOptions("open"))
