"""`hmm-apply` on many symbols: files, folders and long tables, with one model."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from hmm_exp.commands import symbols
from hmm_exp.commands.apply import main
from hmm_exp.features.recipe import Recipe
from tests.live_detector import SHORT, gappy_bars, live_detector

RECIPE = Recipe.of_set("v1", ["1H"], **SHORT)
SYMBOLS = {"BTC": 400, "ETH": 700, "X/Y": 500}


@pytest.fixture(scope="module")
def bars():
    """Bars of each symbol, of its own length and gaps."""
    return {symbol: gappy_bars(n, seed=n) for symbol, n in SYMBOLS.items()}


@pytest.fixture(scope="module")
def expected(bars):
    """The regimes that `filter` gives for each symbol."""
    detector = live_detector(RECIPE)
    return {symbol: detector.filter(own).reset_index(drop=True) for symbol, own in bars.items()}


@pytest.fixture
def folder(bars, tmp_path, monkeypatch):
    """A model, files of one symbol each, and the same bars as a long table in order of time."""
    monkeypatch.chdir(tmp_path)
    live_detector(RECIPE).save("detector.json")
    for symbol, own in bars.items():
        place = tmp_path / "lake" / f"symbol={symbol.replace('/', '%2F')}"
        place.mkdir(parents=True)
        own.frame.to_parquet(place / "0.parquet")
    long = pd.concat([own.frame.assign(coin=symbol) for symbol, own in bars.items()])
    long.sort_index(kind="stable").to_csv("long.csv", index=False)
    return tmp_path


def run(capsys, *words: str) -> tuple[int, list[str], list[str]]:
    """Status, lines of output and lines of complaints."""
    status = main(["--model", ".", *words])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame):
    assert ours.columns.tolist() == theirs.columns.tolist()
    for name in theirs:
        assert ours[name].tolist() == theirs[name].tolist(), name


def test_each_symbol_of_a_folder_gets_the_regimes_of_its_own_bars(folder, expected, capsys):
    status, _, err = run(capsys, "--bars", "lake", "--output", "regimes")
    assert status == 0
    files = sorted(path.name for path in (folder / "regimes").iterdir())
    assert files == ["BTC.parquet", "ETH.parquet", "X~2FY.parquet"]
    for symbol, name in zip(SYMBOLS, files, strict=True):
        assert_same(pd.read_parquet(folder / "regimes" / name), expected[symbol])
    total = sum(map(len, expected.values()))
    assert err[-1] == f"regimes: {total:,} rows written, 3 of 3 symbols"
    assert err[0].startswith("symbol=BTC: ")


@pytest.mark.parametrize("cut_from", [1, 100])
def test_a_long_table_gives_one_with_a_row_group_a_symbol(
    cut_from, folder, expected, capsys, monkeypatch
):
    monkeypatch.setattr(symbols, "_CUT_FROM", cut_from)
    words = ["--bars", "long.csv", "--symbol-column", "coin", "--long", "--output", "all.parquet"]
    status, _, err = run(capsys, *words)
    assert status == 0
    assert err[1].startswith("long.csv ETH: ")
    with pq.ParquetFile("all.parquet") as file:
        assert file.num_row_groups == 3
    found = pd.read_parquet("all.parquet")
    assert list(found["symbol"].unique()) == list(SYMBOLS)
    for symbol, own in found.groupby("symbol"):
        assert_same(own.drop(columns="symbol"), expected[symbol])


def test_the_newest_regime_of_each_chosen_symbol_is_a_line_of_json(folder, expected, capsys):
    words = ["--bars", "lake/**/*.parquet", "--symbols", "X/Y,BTC", "--latest"]
    status, out, _ = run(capsys, *words)
    assert status == 0
    rows = [json.loads(line) for line in out]
    assert [row["symbol"] for row in rows] == ["BTC", "X/Y"]
    for row in rows:
        last = expected[row["symbol"]].iloc[-1]
        assert row["p_state_0"] == last["p_state_0"]
        assert pd.Timestamp(row["available_at"]) == last["available_at"]


def test_symbols_that_fail_are_named_at_the_end_and_cost_only_themselves(
    folder, bars, expected, capsys
):
    (folder / "lake" / "symbol=ETH" / "0.parquet").write_bytes(b"PAR1 and no more")
    (folder / "lake" / "symbol=NEW").mkdir()
    bars["BTC"].frame[:12].to_csv(folder / "lake" / "symbol=NEW" / "0.csv", index=False)
    status, _, err = run(capsys, "--bars", "lake", "--long", "--output", "all.parquet")
    assert status == 1
    done, damaged, short, last = err[-4:]
    assert done.endswith("rows written, 2 of 4 symbols")
    assert damaged.startswith("ETH: lake/symbol=ETH/0.parquet is a damaged Parquet file")
    assert short.startswith("NEW: 12 bars of 1H are too few")
    assert last == "error: 2 of 4 symbols failed"
    assert list(pd.read_parquet("all.parquet")["symbol"].unique()) == ["BTC", "X/Y"]


def test_when_every_symbol_fails_no_file_is_left(folder, capsys):
    for path in (folder / "lake").rglob("*.parquet"):
        path.write_bytes(b"PAR1 and no more")
    words = ["--bars", "lake", "--long", "--output", "all.parquet"]
    status, _, err = run(capsys, *words)
    assert (status, err[-1]) == (1, "error: 3 of 3 symbols failed")
    assert not list(folder.glob("*all.parquet*"))


def test_regimes_of_many_symbols_ignore_the_future(folder, bars, capsys):
    """Bars after a time, and all bars of the other symbols, change; nothing before it does."""
    run(capsys, "--bars", "lake", "--output", "before")
    for path in (folder / "lake").rglob("*.parquet"):
        frame = pd.read_parquet(path)
        first = 0 if "ETH" in str(path) else 300
        names = ["open", "high", "low", "close", "volume"]
        frame.iloc[first:, frame.columns.get_indexer(names)] *= 1.7
        frame.to_parquet(path)
    run(capsys, "--bars", "lake", "--output", "after")
    then = bars["BTC"].frame.index[299]
    before, after = (pd.read_parquet(f"{name}/BTC.parquet") for name in ("before", "after"))
    known = before["available_at"] <= then
    assert known.sum() > 200
    assert_same(after[known], before[known])
    assert not after[~known].equals(before[~known])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--bars", "none/*.csv", "--latest"], "no file matches none/*.csv"),
        (["--bars", "lake", "--output", "x.csv"], "--output x.csv: many symbols need a folder"),
        (["--bars", "lake", "--long", "--output", "x.json"], "--long needs a .parquet or .csv"),
        (["--bars", "lake", "--symbols", "btc", "--latest"], "no such symbol (did you mean BTC?)"),
        (["--bars", "lake", "--symbol-pattern", "(a", "--latest"], "--symbol-pattern=(a: not a"),
        (["--bars", "long.csv", "--latest"], "keep the rows of one, or --symbol-column coin reads"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, line, folder, capsys):
    status, _, err = run(capsys, *words)
    assert status == 2
    assert line in err[-1]
    assert len(err) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--bars", "lake", "--join", "long.csv", "--output", "x.csv"],
        ["--bars", "lake", "--follow"],
        ["--symbols", "BTC", "--features-csv", "long.csv", "--latest"],
        ["--bars", "lake"],
    ],
)
def test_options_that_do_not_go_with_many_symbols_are_refused(words, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--model", ".", *words])
    assert stop.value.code == 2
    assert "--output" in capsys.readouterr().err
