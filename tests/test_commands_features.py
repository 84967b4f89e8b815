"""`scripts/build_features.py` as a user runs it."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmm_exp.commands import apply, features
from hmm_exp.features.recipe import Recipe
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.synthetic import make_market
from tests.live_detector import SHORT, gappy_bars, live_detector

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "build_features.py"


def build(folder, *arguments):
    """Run the script in `folder`."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def bars_csv(tmp_path):
    """`bars.csv`: 700 hourly bars stamped at their opening, with a gap."""
    frame = make_market(n_bars=700, seed=3).frame
    frame.drop(frame.index[650:653]).to_csv(tmp_path / "bars.csv", index=False)
    return tmp_path / "bars.csv"


def test_the_documented_command_writes_the_table_and_reports_dropped_rows(bars_csv):
    folder = bars_csv.parent
    options = "--bar-stamp open --features v1 --timeframes 1H 4H 12H 1D --output v1.csv"
    done = build(folder, "--input", "bars.csv", *options.split())
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(folder / "v1.csv")
    columns = Recipe.of_set("v1", ["1H", "4H", "12H", "1D"]).columns
    assert list(table.columns) == ["timestamp", *columns]
    assert len(table) == 697 - 479
    assert table["timestamp"][0] == "2021-01-20T23:00:00Z"  # known at the end of the 20th day
    assert table.isna().any(axis=1).sum() == 1
    assert "697 rows, 1H, 2021-01-01 to 2021-01-30; 1 gap with 3 missing bars" in done.stderr
    assert "479 warm-up rows dropped, 1 rows kept with empty cells" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["bars.csv", "v1.csv"]


def test_golden_table_by_the_command(shared_data, tmp_path):
    source = shared_data / "BINANCE_BTCUSDT.P, 60.csv"
    options = "--bar-stamp close --features v1v2 --timeframes 1H 4H 12H 1D --output g.parquet"
    done = build(tmp_path, "--input", source, *options.split())
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "g.parquet").set_index("timestamp")
    golden = pd.read_csv(shared_data / "golden_features.csv", index_col="timestamp")
    ours = table.loc[pd.to_datetime(golden.index, utc=True), golden.columns]
    assert np.abs(ours.to_numpy() - golden.to_numpy()).max() < 1e-10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--input none.csv --output v.csv", "none.csv"),
        ("--input bars.csv --output v.txt", ".csv or .parquet"),
        ("--input bars.csv --output v.csv --features v9", "unknown feature set 'v9'"),
        ("--input bars.csv --output v.csv --timeframes 15min", "finer than the bars"),
        ("--input bars.csv --output v.csv --window 900", "697 bars of 1H, 20"),
        ("--input bars.csv --output no/v.csv", "the folder no does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_no_file(
    bars_csv, options, message, monkeypatch, capsys
):
    monkeypatch.chdir(bars_csv.parent)
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main(["--bar-stamp", "open", *options.split()]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ")
    assert message in complaint
    assert len(complaint.splitlines()) == 1
    assert [path.name for path in bars_csv.parent.iterdir()] == ["bars.csv"]


def test_a_mistyped_option_is_one_line_too(tmp_path):
    done = build(tmp_path, "--windw", "9")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


def test_help_shows_an_example(tmp_path):
    done = build(tmp_path, "--help")
    assert done.returncode == 0
    assert "--timeframes 1H,4H,12H,1D --output v1.csv" in done.stdout


CASES = {  # bars, words for reading, how the model reads, its timeframes
    "gaps": ({}, ReadOptions("open"), ["1H", "4H"]),
    "close": ({"stamp": "close"}, ReadOptions("close"), ["1H", "4H"]),
    "coarse": ({}, ReadOptions("open"), ["4H"]),
    "bridged": ({}, ReadOptions("open", gaps="bridge"), ["1H", "12H"]),
    "chosen": ({}, ReadOptions("open", timestamp_column="when", volume_column="Ticks"), ["1H"]),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_lookbacks_give_the_regimes_of_the_whole_file(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made, reading, timeframes = CASES[case]
    recipe = Recipe.of_set("v1v2", timeframes, **SHORT)
    detector = live_detector(recipe, stamp=reading.bar_stamp, gaps=reading.gaps)
    replace(detector, reading=reading).save("detector.json")
    frame = gappy_bars(1500, lost=0.01, **made).frame
    frame.rename(columns={"timestamp": reading.time, "volume": reading.volume}).to_csv(
        "bars.csv", index=False
    )
    words = ["--bar-stamp", reading.bar_stamp, "--gaps", reading.gaps]
    if case == "chosen":
        words += ["--timestamp-column", "when", "--volume-column", "Ticks"]
    names = ["--timeframes", ",".join(timeframes), "--lookbacks", "made/folder"]
    assert features.main(["--input", "bars.csv", *words, *names]) == 0
    shown = capsys.readouterr().out
    assert all(f"made/folder/{name}.csv: " in shown for name in timeframes)
    for source, output in (("--bars", "bars.csv"), ("--lookbacks", "made/folder")):
        status = apply.main(["--model", ".", source, output, "--output", f"by{source}.csv"])
        assert status == 0, capsys.readouterr().err
    whole, ours = (pd.read_csv(f"by{source}.csv") for source in ("--bars", "--lookbacks"))
    probs = [f"p_state_{k}" for k in range(detector.n_states)]
    assert ours["available_at"].tolist() == whole["available_at"].tolist()
    np.testing.assert_allclose(ours[probs], whole[probs], rtol=0, atol=1e-12)
    assert len(ours) > 100


def test_bars_without_volume_make_lookbacks_for_features_without_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    live_detector(Recipe.of_set("returns", ["1H"], **SHORT)).save("detector.json")
    gappy_bars(600, lost=0.0).frame[["timestamp", "close"]].to_csv("bars.csv", index=False)
    words = ["--bar-stamp", "open", "--features", "returns", "--lookbacks", "out", "--hours", "300"]
    assert features.main(["--input", "bars.csv", *words]) == 0
    capsys.readouterr()
    newest = []
    for source in (["--bars", "bars.csv"], ["--lookbacks", "out"]):
        assert apply.main(["--model", ".", *source, "--latest"]) == 0
        newest.append(json.loads(capsys.readouterr().out))
    assert newest[0]["available_at"] == newest[1]["available_at"]
    assert abs(newest[0]["p_state_0"] - newest[1]["p_state_0"]) < 1e-6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "give --output, --lookbacks or both"),
        ("--output o.csv --hours 5", "--hours needs --lookbacks"),
        ("--lookbacks out --hours nan", "must be above 0"),
        ("--lookbacks out --hours 2 --timeframes 1H,4H", "holds no whole bar of 4H"),
        ("--lookbacks bars.csv", "bars.csv"),
    ],
)
def test_lookbacks_that_cannot_be_are_one_line(words, says, bars_csv, monkeypatch, capsys):
    monkeypatch.chdir(bars_csv.parent)
    try:
        status = features.main(["--input", "bars.csv", "--bar-stamp", "open", *words.split()])
    except SystemExit as end:
        status = end.code
    line = capsys.readouterr().err
    assert (status, line.count("\n")) == (2, 1)
    assert says in line
