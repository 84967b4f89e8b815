"""The input of a run: what cannot even be looked at is an error of its path."""

import re

import pandas as pd
import pytest

from hmm_exp.config import DataConfig
from hmm_exp.errors import DataError
from hmm_exp.experiment.source import read_source
from hmm_exp.market.reading import what_was_read
from hmm_exp.market.synthetic import make_market


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("n" * 300, "data.path=n+: File name too long"),
        ("zero\0byte", "data.path=zero\0byte: embedded null byte"),
        ("none.csv", "no such file: none.csv"),
        ("file/none.csv", "no such file: file/none.csv"),
        (".", "is a folder"),
    ],
)
def test_a_path_that_holds_no_file_is_refused_by_name(path, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=says):
        read_source(DataConfig(kind="bars", path=path, bar_stamp="open"))


def long_table(column: str) -> pd.DataFrame:
    """Bars of two symbols under each other."""
    markets = [make_market(60, 2, seed).frame.reset_index(drop=True) for seed in (1, 2)]
    named = zip(markets, ("BTC/USD", "E T"), strict=True)
    long = pd.concat([market.assign(**{column: name}) for market, name in named])
    return long.rename(columns={"timestamp": "time"})


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("symbol", "data.symbol=BTC/USD data.symbol_column=symbol"),
        ("My Ticker", "data.symbol=BTC/USD data.symbol_column='My Ticker'"),
        ("tag", "data.symbol=BTC/USD data.symbol_column=tag"),  # told apart by its repeated times
    ],
)
def test_a_file_of_two_symbols_is_refused_with_the_words_that_read_one(column, words, tmp_path):
    path = tmp_path / "long.csv"
    long_table(column).to_csv(path, index=False)
    line = f"2 .*s in column '{column}': BTC/USD .*, or read one with {words}$"
    with pytest.raises(DataError, match=line):
        read_source(DataConfig(kind="bars", path=str(path), bar_stamp="open"))
    one = DataConfig("bars", str(path), bar_stamp="open", symbol="E T", symbol_column=column)
    source = read_source(one)
    assert (len(source.bars), source.name) == (60, "E T")
    assert re.match("long.csv E T: 60 rows, 1H", what_was_read(source.report))


def test_a_file_of_two_lengths_of_bars_is_no_panel(tmp_path):
    path = tmp_path / "long.csv"
    long_table("symbol").assign(symbol="A", interval=["1h", "1d"] * 60).to_csv(path, index=False)
    with pytest.raises(
        DataError, match=r"2 intervals in column 'interval'.*: keep the rows of one$"
    ):
        read_source(DataConfig(kind="bars", path=str(path), bar_stamp="open"))


def test_a_new_file_in_the_folder_of_a_symbol_is_read(tmp_path):
    folder = tmp_path / "symbol=A"
    folder.mkdir()
    bars = long_table("symbol").iloc[:60]
    bars[:40].to_csv(folder / "1.csv", index=False)
    data = DataConfig(kind="bars", path=str(folder), bar_stamp="open", symbol="A")
    assert len(read_source(data, tmp_path / "cache").bars) == 40
    bars[40:].to_csv(folder / "2.csv", index=False)
    assert len(read_source(data, tmp_path / "cache").bars) == 60
