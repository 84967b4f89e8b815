"""Files of several symbols: which ones belong to a path, and what names their symbols."""

import pandas as pd
import pytest

from hmm_exp.config import DataConfig
from hmm_exp.errors import DataError
from hmm_exp.market.panel import symbols_of
from hmm_exp.market.symbol_files import SymbolFiles, SymbolRows, files_of
from hmm_exp.market.synthetic import make_market

BARS = make_market(60, 2, 1).frame.reset_index(drop=True).rename(columns={"timestamp": "time"})


def write(folder, *names: str, frame: pd.DataFrame = BARS) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(folder / name, index=False)


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("lake", ["lake/a.csv", "lake/b.CSV", "lake/more/c.csv"]),
        ("lake/*.csv", ["lake/_d.csv", "lake/a.csv"]),
        ("lake/**/*.csv", ["lake/_d.csv", "lake/_tmp/e.csv", "lake/a.csv", "lake/more/c.csv"]),
        ("./lake//m*", ["lake/more/c.csv"]),
        ("lake/[1].csv", ["lake/[1].csv"]),
        ("lake/a.csv", ["lake/a.csv"]),
    ],
)
def test_a_folder_gives_its_tables_and_a_pattern_what_it_matches(
    path, files, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lake", "a.csv", "b.CSV", "more/c.csv", "_d.csv", "_tmp/e.csv", ".f.csv")
    (tmp_path / "lake" / "more" / "notes.md").touch()
    if "[1]" in path:
        write(tmp_path, path)
    assert files_of(path) == files


def test_links_are_followed_and_a_circle_of_them_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "elsewhere/0.csv", "lake/symbol=A/0.csv")
    (tmp_path / "lake" / "symbol=B").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lake" / "symbol=C").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lake" / "symbol=A" / "up").symlink_to(tmp_path / "lake")
    assert SymbolFiles.of("lake").symbols() == ["A", "B", "C"]


def test_a_folder_without_tables_names_the_endings_that_are_read(tmp_path):
    (tmp_path / "notes.md").touch()
    with pytest.raises(DataError, match=r"files that end in \.csv, .* are read; set data\.path"):
        files_of(str(tmp_path))


def test_a_folder_is_read_alone_only_if_the_pattern_takes_all_of_it(tmp_path, monkeypatch):
    """A pattern of hourly files never reads the daily ones in the symbol's folder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, *(f"lake/symbol={s}/{step}.csv" for s in ("A", "B") for step in ("1h", "1d")))
    hourly = SymbolFiles.of("lake/*/1h.csv")
    assert hourly.paths() == {"A": "lake/*/1h.csv", "B": "lake/*/1h.csv"}
    assert len(SymbolRows("A", "symbol").of(hourly.paths()["A"]).frame) == len(BARS)
    assert SymbolFiles.of("lake").paths() == {"A": "lake/symbol=A", "B": "lake/symbol=B"}
    assert len(SymbolRows("A", "symbol").of("lake/symbol=A").frame) == 2 * len(BARS)


def test_the_value_of_a_folder_is_decoded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "lake/symbol=BTC%2FUSDT/0.csv", "lake/symbol=A B/0.csv")
    lake = SymbolFiles.of("lake")
    assert lake.symbols() == ["A B", "BTC/USDT"]
    assert len(lake.rows("BTC/USDT").frame) == len(BARS)


@pytest.mark.parametrize(
    ("names", "path", "column", "line"),
    [
        (
            ["lake/x.csv", "lake/symbol=A/0.csv"],
            "lake",
            None,
            "lake/x.csv is in no folder symbol=...",
        ),
        (
            ["lake/symbol=/0.csv", "lake/symbol=A/0.csv"],
            "lake",
            None,
            "1 of 2 files have no symbol",
        ),
        (["l/symbol=__HIVE_DEFAULT_PARTITION__/0.csv"], "l", None, "1 of 1 files have no symbol"),
        (
            ["lake/symbol=A/0.csv"],
            "lake",
            "coin",
            "lake/symbol=A/0.csv: data.symbol_column=coin: no",
        ),
    ],
)
def test_folders_that_name_some_files_only_are_refused(
    names, path, column, line, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, *names)
    with pytest.raises(DataError, match=line):
        SymbolFiles.of(path, column).symbols()


def test_a_key_or_column_of_an_exchange_names_no_symbol_by_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "lake/exchange=binance/A.csv", "lake/exchange=binance/B.csv")
    data = DataConfig(kind="panel", path="lake")
    assert [one.symbol for one in symbols_of(data)] == ["A", "B"]
    write(tmp_path, "C.csv", frame=BARS.assign(exchange="kraken"))
    assert [one.symbol for one in symbols_of(DataConfig(kind="panel", path="C.csv"))] == ["C"]


def test_several_files_are_one_symbol_each_although_a_column_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for symbol in "AB":
        write(tmp_path, f"{symbol}_2024.csv", frame=BARS.assign(symbol=symbol))
    data = DataConfig(kind="panel", path="*.csv")
    assert [(one.symbol, one.column) for one in symbols_of(data)] == [
        ("A_2024", None),
        ("B_2024", None),
    ]
    by_column = DataConfig(kind="panel", path="*.csv", symbol_column="symbol")
    assert [(one.symbol, one.path) for one in symbols_of(by_column)] == [
        ("A", "*.csv"),
        ("B", "*.csv"),
    ]


def test_the_rows_of_a_symbol_in_several_long_tables_are_put_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = BARS[:40].assign(symbol="A"), BARS[40:].assign(symbol="A")
    write(tmp_path, "2023.csv", frame=pd.concat([first, BARS.assign(symbol="B")]))
    second.to_parquet("2024.parquet")
    table = SymbolRows("A", "symbol").of("202*")
    assert len(table.frame) == len(BARS)
    assert table.about["files"] == 2
    assert len(SymbolRows("B", "symbol").of("202*").frame) == len(BARS)
