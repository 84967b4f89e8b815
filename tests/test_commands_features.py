"""`scripts/build_features.py` as a user runs it."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmm_exp.features.recipe import Recipe
from hmm_exp.market.synthetic import make_market

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
    assert table["timestamp"][0] == "2021-01-20 23:00:00"  # known at the end of the 20th day
    assert table.isna().any(axis=1).sum() == 1
    assert "697 bars, 0 bad rows dropped, 3 bars missing in gaps" in done.stdout
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
    assert "--timeframes 1H 4H 12H 1D --output v1.csv" in done.stdout
