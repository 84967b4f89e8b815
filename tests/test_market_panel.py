"""Symbols of a panel: from files, from a long table, from folders."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exp.config import RULES, DataConfig
from hmm_exp.errors import ConfigError, DataError
from hmm_exp.experiment.source import read_source
from hmm_exp.market.load import read_bars
from hmm_exp.market.panel import PanelSymbol, registry_part, symbol_named, symbols_of
from hmm_exp.market.synthetic import make_market

N_BARS = {"BTC": 120, "ETH": 150, "ETHW": 90}


def table(symbol: str) -> pd.DataFrame:
    """Bars of a symbol as a file holds them; each has its own length and prices."""
    market = make_market(N_BARS[symbol], 2, len(symbol)).frame
    return market.reset_index(drop=True).rename(columns={"timestamp": "time"})


def panel(path, **settings) -> DataConfig:
    return DataConfig(kind="panel", path=str(path), bar_stamp="open", **settings)


def write_lake(layout: str, folder) -> tuple[str, dict]:
    """Write the same three symbols; gives the path and the settings that read them."""
    parts = [table(symbol).assign(symbol=symbol) for symbol in N_BARS]
    by_time = pd.concat(parts).sort_values("time", kind="stable")
    if layout == "Parquet files":
        for part in parts:
            part.drop(columns="symbol").to_parquet(folder / f"{part.symbol[0]}.parquet")
        return "*.parquet", {}
    if layout == "CSV files below a folder":
        for part in parts:
            (folder / "lake" / part.symbol[0]).mkdir(parents=True)
            part.to_csv(folder / "lake" / part.symbol[0] / f"{part.symbol[0]}_1h.csv", index=False)
        (folder / "lake" / "_SUCCESS.csv").touch()
        (folder / "lake" / "README.md").touch()
        return "lake", {"symbol_pattern": "(.*)_1h"}
    if layout == "long CSV in order of time":
        by_time.to_csv(folder / "long.csv", index=False)
        return "long.csv", {}
    if layout == "long CSV with a preamble, gzipped":
        text = "made by nobody\n" + by_time.to_csv(index=False, sep=";")
        pd.io.common.get_handle(
            folder / "long.csv.gz", "wb", compression="gzip", is_text=False
        ).handle.write(text.encode())
        return "long.csv.gz", {}
    if layout == "long Parquet in order of symbols":
        pd.concat(parts).to_parquet(folder / "long.parquet", row_group_size=100)
        return "long.parquet", {}
    if layout == "long Parquet with categories":
        by_time.astype({"symbol": "category"}).rename(columns={"symbol": "Coin"}).to_parquet(
            folder / "long.parquet", row_group_size=70
        )
        return "long.parquet", {"symbol_column": "coin"}
    for part in parts:
        for number, piece in enumerate((part[:60], part[60:])):
            keys = [f"symbol={part.symbol[0]}", f"year={number}"]
            keys = keys[::-1] if layout == "folders, the symbol second, CSV" else keys
            place = folder.joinpath("lake", *keys)
            place.mkdir(parents=True)
            if "CSV" in layout:
                piece.drop(columns="symbol").to_csv(place / "0.csv", index=False)
            else:
                piece.drop(columns="symbol").to_parquet(place / "0.parquet", index=False)
    return ("lake/**/*.csv" if "CSV" in layout else "lake"), {}


LAYOUTS = [
    "Parquet files",
    "CSV files below a folder",
    "long CSV in order of time",
    "long CSV with a preamble, gzipped",
    "long Parquet in order of symbols",
    "long Parquet with categories",
    "folders, the symbol first, Parquet",
    "folders, the symbol second, CSV",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_symbol_of_any_layout_has_the_bars_of_its_own_file(layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, settings = write_lake(layout, tmp_path)
    data = panel(path, **settings)
    found = symbols_of(data)
    assert [one.symbol for one in found] == ["BTC", "ETH", "ETHW"]
    for one in found:
        table(one.symbol).to_parquet(tmp_path / "alone.pq")
        alone = read_bars("alone.pq", bar_stamp="open", name=one.symbol)
        bars = read_bars(one.path, bar_stamp="open", name=one.symbol, symbol=one.rows)
        np.testing.assert_array_equal(bars.time, alone.time)
        np.testing.assert_allclose(bars.ohlcv, alone.ohlcv, rtol=1e-15)
        source = read_source(one.settings(data), tmp_path / "cache")
        np.testing.assert_array_equal(source.bars.ohlcv, bars.ohlcv)
        assert source.name == bars.name == one.symbol
        assert source.report["rows_read"] == N_BARS[one.symbol]


def test_a_symbols_rows_end_where_another_ones_begin_whatever_comes_later(tmp_path):
    """Bars of BTC are the same when all other rows, and those after a time, are others."""
    now = pd.concat([table("BTC").assign(symbol="BTC"), table("ETH").assign(symbol="ETH")])
    later = now.copy()
    changed = (later["symbol"] == "ETH") | (later["time"] > later["time"].iloc[80])
    later.loc[changed, ["open", "high", "low", "close"]] *= 3.0
    bars = []
    for number, rows in enumerate((now, later)):
        rows.sort_values("time").to_csv(tmp_path / f"{number}.csv", index=False)
        (one,) = symbols_of(panel(tmp_path / f"{number}.csv", symbols=["BTC"]))
        bars.append(read_bars(one.path, bar_stamp="open", symbol=one.rows))
    assert (bars[0].ohlcv[:81] == bars[1].ohlcv[:81]).all()
    assert (bars[0].ohlcv[81:, :4] != bars[1].ohlcv[81:, :4]).all()


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """A folder with a file of each symbol, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    for symbol in N_BARS:
        table(symbol).to_csv(f"{symbol}.csv", index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, ["BTC", "ETH", "ETHW"]),
        ({"symbols": ["ETHW", "BTC"]}, ["BTC", "ETHW"]),
        ({"include": ["ETH*"]}, ["ETH", "ETHW"]),
        ({"include": ["ETH*"], "exclude": ["*W"]}, ["ETH"]),
        ({"exclude": ["?TC"]}, ["ETH", "ETHW"]),
        ({"symbol_pattern": r"^(.{2})[A-Z]\.csv"}, ["BT", "ET"]),
    ],
)
def test_symbols_are_chosen_by_name_and_by_pattern(lake, settings, left):
    if "symbol_pattern" in settings:
        (lake / "ETHW.csv").unlink()
    assert [one.symbol for one in symbols_of(panel("*.csv", **settings))] == left


@pytest.mark.parametrize(
    ("path", "settings", "line"),
    [
        ("*.parquet", {}, r"no file matches \*.parquet; set data.path"),
        ("none", {}, r"no file matches none; set data.path"),
        ("*.csv", {"symbols": ["ETHQW"]}, r"no such symbol \(did you mean ETHW\?\) among the 3"),
        (
            "*.csv",
            {"symbols": ["btc"]},
            r"data.symbols=.btc.: no such symbol \(did you mean BTC\?\)",
        ),
        ("*.csv", {"include": ["X*"]}, r"data.include pattern 'X\*' matches no symbol"),
        ("*.csv", {"exclude": ["BTX"]}, r"pattern 'BTX' matches no symbol \(did you mean BTC\?\)"),
        ("*.csv", {"exclude": ["*"]}, "leave no symbol"),
        ("*.csv", {"symbol_pattern": "(.*)_1h"}, r"symbol_pattern=\(.*\)_1h: finds no symbol in B"),
        ("*.csv", {"symbol_pattern": r"(X?)B?\w+\.csv"}, "finds no symbol in BTC.csv"),
        ("*.csv", {"symbol_pattern": "^(ETH|B)"}, "2 files of symbol ETH: ETH.csv and ETHW.csv"),
        ("*.csv", {"symbol_column": "coin"}, "BTC.csv: data.symbol_column=coin: no column of"),
    ],
)
def test_what_names_no_symbol_or_two_is_refused_by_one_line(lake, path, settings, line):
    with pytest.raises((ConfigError, DataError), match=line) as error:
        symbols_of(panel(path, **settings))
    assert "\n" not in str(error.value)


def test_two_files_of_one_stem_are_refused(lake):
    (lake / "more").mkdir()
    (lake / "BTC.csv").rename(lake / "more" / "ETH.csv.gz")
    with pytest.raises(DataError, match=r"2 files of symbol ETH: ETH.csv and more/ETH.csv.gz"):
        symbols_of(panel("."))


def test_a_pattern_with_a_slash_is_searched_in_the_path(lake):
    for symbol in N_BARS:
        (lake / symbol).mkdir()
        (lake / f"{symbol}.csv").rename(lake / symbol / "1h.csv")
    found = symbols_of(panel("*/1h.csv", symbol_pattern="([A-Z]+)/1h"))
    assert [(one.symbol, one.path) for one in found][:2] == [
        ("BTC", "BTC/1h.csv"),
        ("ETH", "ETH/1h.csv"),
    ]


def test_a_broken_file_is_listed_unread_and_only_its_own_bars_are_refused(lake):
    (lake / "ETH.csv").write_bytes(b"PAR1 and no more")
    (lake / "ETHW.csv").write_text("time,open\n")
    found = symbols_of(panel("*.csv"))
    assert [one.symbol for one in found] == ["BTC", "ETH", "ETHW"]
    assert len(read_bars(found[0].path, bar_stamp="open", symbol=found[0].rows)) == N_BARS["BTC"]
    with pytest.raises(DataError, match=r"ETH.csv is a damaged Parquet file"):
        read_bars(found[1].path, bar_stamp="open", symbol=found[1].rows)
    with pytest.raises(DataError, match="no column named high"):
        read_source(found[2].settings(panel("*.csv")))


def test_a_symbol_with_control_characters_is_refused(lake):
    (lake / "ETH.csv").rename(lake / "E\nH.csv")
    with pytest.raises(DataError, match=r"symbol 'E\\nH' holds control characters"):
        symbols_of(panel("*.csv"))


def test_the_settings_of_a_symbol_are_those_of_bars_and_keep_how_they_are_read():
    data = panel("long.csv", symbols=["BTC"], exclude=["X"], gaps="bridge", timezone="US/Eastern")
    own = PanelSymbol("BTC", "long.csv", "coin").settings(data)
    assert own == DataConfig(
        kind="bars",
        path="long.csv",
        name="BTC",
        bar_stamp="open",
        gaps="bridge",
        timezone="US/Eastern",
        symbol="BTC",
        symbol_column="coin",
    )
    assert PanelSymbol("BTC", "BTC.csv").settings(data) == replace(
        own, path="BTC.csv", symbol=None, symbol_column=None
    )


@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=8, unique=True))
def test_no_two_symbols_share_the_name_of_a_registered_model(symbols):
    parts = [registry_part(symbol) for symbol in symbols if symbol.isprintable()]
    assert len(set(parts)) == len(parts)
    assert [symbol_named(part) for part in parts] == [s for s in symbols if s.isprintable()]
    assert all(f"hmm_regime.{part}" in RULES["registry.name"] for part in parts)


@pytest.mark.parametrize(
    ("symbol", "part"),
    [
        ("BTC", "BTC"),
        ("BRK.B", "BRK.B"),
        ("^GSPC", "^GSPC"),
        ("BTC/USDT", "BTC~2FUSDT"),
        ("BTC~2FUSDT", "BTC~7E2FUSDT"),
        ("a b:c", "a~20b~3Ac"),
        ("x@y", "x~40y"),
        ("Übung€", "Übung~E2~82~AC"),
    ],
)
def test_what_a_registered_models_name_may_not_hold_is_escaped(symbol, part):
    assert registry_part(symbol) == part
    assert not re.search(r"[/:?#@%*'\"\s]", part)
