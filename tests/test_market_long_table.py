"""Rows of one symbol in a long table, direct and from its copy cut by symbol."""

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hmm_exp.errors import DataError
from hmm_exp.market import long_table
from hmm_exp.market.blocks import text_blocks
from hmm_exp.market.columns import is_bars_header
from hmm_exp.market.load import read_bars
from hmm_exp.market.long_table import LongTable
from hmm_exp.market.symbol_files import SymbolFiles, SymbolRows
from hmm_exp.market.synthetic import make_market

BARS = make_market(400, 2, 5).frame.reset_index(drop=True)
SYMBOLS = np.array(["A", "B", "C"])[np.random.default_rng(3).integers(0, 3, len(BARS))]
LONG = BARS.rename(columns={"timestamp": "time"}).assign(symbol=SYMBOLS)
EPOCHS = LONG["time"].astype("int64")

TEXTS = {  # each with the lines of symbol A alone
    "ISO dates": LONG.to_csv(index=False),
    "epochs of several units": LONG.assign(
        time=np.where(LONG.index < 200, EPOCHS // 10**9, EPOCHS // 10**6)
    ).to_csv(index=False),
    "semicolons, quotes, blanks": LONG.assign(symbol=" " + LONG["symbol"], note='a;"b"').to_csv(
        index=False, sep=";"
    ),
    "tabs and missing values": LONG.assign(
        extra=np.where(LONG.index % 2, np.nan, 1.0), empty=np.nan
    ).to_csv(index=False, sep="\t", na_rep="null"),
    "newest first": LONG[::-1].to_csv(index=False),
    "date and clock": LONG.assign(
        date=LONG["time"].dt.strftime("%Y%m%d"), time=LONG["time"].dt.strftime("%H%M%S")
    ).to_csv(index=False),
    "two columns of one name": LONG.assign(close2=LONG["close"])
    .to_csv(index=False)
    .replace("close2", "close", 1),
    "blanks between fields": LONG.assign(time=EPOCHS // 10**9).to_csv(index=False, sep=" "),
    "byte order mark": "\ufeff" + LONG.to_csv(index=False),
    "carriage returns": LONG.to_csv(index=False, lineterminator="\r\n"),
}


def alone(text: str) -> str:
    """The header and the lines of symbol A."""
    lines = text.splitlines(keepends=True)
    own = [line for line in lines[1:] if any(s in line.rstrip() for s in (",A", "A;", "\tA", " A"))]
    return "".join([lines[0], *own])


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("form", TEXTS)
def test_a_symbol_of_a_text_is_read_as_a_file_of_its_lines(form, is_cut, tmp_path, monkeypatch):
    path = tmp_path / "A.csv"
    path.write_text(alone(TEXTS[form]))
    expected = read_bars(path, bar_stamp="open")
    (tmp_path / "long.csv").write_text(TEXTS[form])
    rows = SymbolRows("A", cache=tmp_path / "cache" if is_cut else None)
    bars = read_bars(tmp_path / "long.csv", bar_stamp="open", symbol=rows)
    assert len(bars) == (SYMBOLS == "A").sum()
    pd.testing.assert_frame_equal(bars.frame, expected.frame)
    same = set(expected.report) - {"file"}
    assert {key: bars.report[key] for key in same} == {key: expected.report[key] for key in same}
    assert set(bars.report) - set(expected.report) == {"symbol"}


@pytest.mark.parametrize("is_cut", [False, True])
def test_rows_of_another_length_belong_to_the_symbol_they_name_and_keep_their_line(
    is_cut, tmp_path, monkeypatch
):
    lines = LONG.to_csv(index=False).splitlines()
    lines[350] = f"{lines[350]},1"  # line 351 of the file
    symbol = SYMBOLS[349]
    other = next(name for name in "ABC" if name != symbol)
    path = tmp_path / "long.csv"
    path.write_text("\n".join(lines))
    monkeypatch.setattr(text_blocks, "__defaults__", (8192,))  # several blocks
    cache = tmp_path / "cache" if is_cut else None
    rows = SymbolRows(symbol, cache=cache)
    with pytest.raises(DataError, match=r"1 row with more or fewer fields .* in line 351; data.b"):
        read_bars(path, bar_stamp="open", symbol=rows)
    dropped = read_bars(path, bar_stamp="open", bad_rows="drop", symbol=rows)
    assert dropped.report["dropped"] == {"other number of fields": 1}
    intact = read_bars(path, bar_stamp="open", symbol=SymbolRows(other, cache=cache))
    assert len(intact) == (other == SYMBOLS).sum()


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.int64()],
    ids=str,
)
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_symbol_of_parquet_is_found_in_a_column_of_any_type(kind, is_cut, tmp_path, monkeypatch):
    if is_cut:
        monkeypatch.setattr(long_table, "_MOST_ROWS", 10)
        monkeypatch.setattr(long_table, "_SLICE", 150)  # several parts
    codes = {"A": "10001", "B": "10002", "C": "9"} if kind == pa.int64() else {}
    names = [codes.get(symbol, symbol) for symbol in SYMBOLS]
    column = pa.array([int(name) if codes else name for name in names]).cast(kind)
    path = tmp_path / "long.parquet"
    LONG.drop(columns="symbol").to_parquet(path)
    table = pq.read_table(path)
    pq.write_table(table.append_column("symbol", column), path, row_group_size=90)
    long = LongTable(str(path), "symbol")
    assert long.counts() == {name: names.count(name) for name in set(names)}
    for name in set(names):
        found = long.rows(name, tmp_path / "cache" if is_cut else None).frame
        expected = LONG[np.array(names) == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(found[expected.columns[:-1]], expected.iloc[:, :-1])
    assert not len(long.rows("none").frame)


@pytest.mark.parametrize("index", [["time"], ["symbol"], ["symbol", "time"], ["time", "symbol"]])
def test_a_symbol_is_found_whichever_columns_are_the_index_of_pandas(index, tmp_path):
    path = tmp_path / "long.parquet"
    LONG.set_index(index).sort_index(kind="stable").to_parquet(path)
    bars = read_bars(path, bar_stamp="open", symbol="B")
    own = LONG[LONG["symbol"] == "B"]
    assert bars.frame["timestamp"].tolist() == own["time"].tolist()
    assert bars.frame["close"].tolist() == own["close"].tolist()
    with pytest.raises(DataError, match="3 symbols in column 'symbol'"):
        read_bars(path, bar_stamp="open")


def test_a_cut_is_made_once_and_again_when_the_file_changes(tmp_path):
    path, cache = tmp_path / "long.csv", tmp_path / "cache"
    LONG.to_csv(path, index=False)
    LongTable(str(path), "symbol").rows("A", cache)
    (folder,) = cache.glob("symbols-*[0-9a-f]")
    made = {part: part.stat().st_mtime_ns for part in folder.iterdir()}
    LongTable(str(path), "symbol").rows("B", cache)
    assert {part: part.stat().st_mtime_ns for part in folder.iterdir()} == made
    LONG.assign(symbol="A").to_csv(path, index=False)
    assert len(LongTable(str(path), "symbol").rows("A", cache).frame) == len(LONG)


def test_a_cut_that_was_interrupted_is_made_again(tmp_path, monkeypatch):
    path, cache = tmp_path / "long.csv", tmp_path / "cache"
    LONG.to_csv(path, index=False)
    long = LongTable(str(path), "symbol")
    monkeypatch.setattr(text_blocks, "__defaults__", (4096,))
    whole = pq.write_table

    def stopped(table, part, **options):
        whole(table, part, **options)
        if part.name.startswith("000003"):
            raise KeyboardInterrupt

    monkeypatch.setattr(long_table.pq, "write_table", stopped)
    with pytest.raises(KeyboardInterrupt):
        long.rows("A", cache)
    monkeypatch.setattr(long_table.pq, "write_table", whole)
    pd.testing.assert_frame_equal(long.rows("A", cache).frame, long.rows("A").frame)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("symbols", "line"),
    [
        ([None] * 400, r"400 of 400 rows have no symbol in 'symbol'"),
        (["A"] * 390 + [None] * 10, r"10 of 400 rows have no symbol in 'symbol': fill it in"),
        (["A"] * 390 + ["  "] * 10, r"10 of 400 rows have no symbol"),
    ],
)
def test_rows_without_a_symbol_are_refused_with_their_number(ending, symbols, line, tmp_path):
    path = tmp_path / f"long{ending}"
    table = LONG.assign(symbol=pd.Series(symbols, dtype="string"))
    table.to_csv(path, index=False) if ending == ".csv" else table.to_parquet(path)
    with pytest.raises(DataError, match=line):
        SymbolFiles.of(str(path)).symbols()


def test_a_ragged_row_whose_symbol_no_other_row_has_counts_as_one_without(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text(f"{LONG.to_csv(index=False)}1,2\n")
    with pytest.raises(DataError, match="1 of 401 rows have no symbol"):
        SymbolFiles.of(str(path)).symbols()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "long.csv is empty"),
        (b"time,open,high,low,close,volume,symbol\n", "long.csv has no rows"),
        (b"PAR1 and no more", r"long.csv is a damaged Parquet file"),
        (gzip.compress(LONG.to_csv().encode())[:3000], r"long.csv is a damaged gzip file"),
        (b"\x80\x04 a pickle", r"long.csv is a pickle"),
    ],
    ids=["empty", "header alone", "Parquet", "gzip", "pickle"],
)
def test_a_long_table_that_cannot_be_read_is_refused_by_name(content, line, tmp_path):
    (tmp_path / "long.csv").write_bytes(content)
    with pytest.raises(DataError, match=line):
        SymbolFiles.of(str(tmp_path / "long.csv"), "symbol").symbols()


def test_a_symbol_that_is_not_there_is_refused_with_the_nearest(tmp_path):
    LONG.assign(symbol=LONG["symbol"] + "USDT").to_csv(tmp_path / "long.csv", index=False)
    for symbol, near in (("AUSD", "AUSDT"), ("busdt", "BUSDT")):
        with pytest.raises(DataError, match=rf"data.symbol={symbol}: no row .* mean {near}\?"):
            SymbolRows(symbol).of(tmp_path / "long.csv")
    LONG.drop(columns="symbol").to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(DataError, match=r"no column of .*one.csv names symbols"):
        read_bars(tmp_path / "one.csv", bar_stamp="open", symbol="A")


def test_statistics_of_row_groups_of_one_symbol_are_enough(tmp_path, monkeypatch):
    """Rows are counted without any page of the file; only its footer is left intact."""
    path = tmp_path / "long.parquet"
    LONG.sort_values("symbol", kind="stable").to_parquet(path, row_group_size=50)
    names = sorted(SYMBOLS)
    pure = [i for i in range(0, len(names), 50) if len({*names[i : i + 50]}) == 1]
    with pq.ParquetFile(path) as file:
        chunks = [file.metadata.row_group(i // 50).column(6) for i in pure]
        assert all(chunk.path_in_schema == "symbol" for chunk in chunks)
    content = bytearray(path.read_bytes())
    for chunk in chunks:
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(content)
    assert pure
    assert LongTable(str(path), "symbol").counts() == {name: names.count(name) for name in "ABC"}


def test_the_lines_of_a_text_are_counted_across_blocks(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("made by nobody\n" + LONG.to_csv(index=False))
    lines = path.read_text().splitlines()
    blocks = list(text_blocks(path, is_bars_header, 3000))
    assert len(blocks) > 5
    for header, rows, _ in blocks:
        assert rows.decode().splitlines()[0] == lines[header.rows_from]
