"""A full disk: one line, no half-written file, every run closed, and the sweep goes on."""

import io
import re
import sqlite3
import sys
from argparse import Namespace
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from hmm_exp import compiling, figures
from hmm_exp.command_line import exit_status
from hmm_exp.detector.files import RegimeFile
from hmm_exp.detector.pipe import RegimeLines, follow
from hmm_exp.errors import LONGEST_LINE
from hmm_exp.features.build import build_features
from hmm_exp.features.recipe import Recipe
from hmm_exp.files import written_beside
from hmm_exp.market.synthetic import make_market
from hmm_exp.output import Output
from tests.full_disk import enlarge, fill, small_disk
from tests.small_detector import small_detector

FAST = ("data.n_bars=2000", "model.n_init=1", "features=returns")
NOWHERE = Path("/dev/full")  # opens, and takes not one byte


@pytest.fixture
def full(tmp_path):
    """A folder on a disk that has not a byte left."""
    with small_disk(tmp_path, 64) as disk:
        fill(disk)
        yield disk


@pytest.fixture
def nowhere():
    """A text stream whose disk is full."""
    if not NOWHERE.exists():
        pytest.skip("there is no /dev/full here")
    stream = NOWHERE.open("w")
    yield stream
    Output(stream).flush()  # drop what it holds: closing would raise
    stream.close()


def features():
    bars = make_market(n_bars=400, n_regimes=2, seed=1)
    return build_features(bars, Recipe.of_set("v1", ["1H"]))


def regimes(path: Path) -> None:
    with RegimeFile(path) as file:
        file.write(pd.DataFrame({"state": range(5000)}))


def text(path: Path) -> None:
    with written_beside(path) as part:
        part.write_text("0" * 20_000)


WRITERS = {
    "table.csv": lambda path: features().write(path),
    "table.parquet": lambda path: features().write(path),
    "figure.png": lambda path: figures.save(Figure(), path),
    "regimes.csv": regimes,
    "detector.json": lambda path: small_detector().save(path),
    "state.json": lambda path: small_detector().stream().save(path),
    "monitor.json": text,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_whole_or_as_it_was_and_the_error_names_it(full, name):
    path = full / name
    with pytest.raises(OSError, match=rf"^No space left on device: '{re.escape(str(path))}'$"):
        WRITERS[name](path)
    assert [file.name for file in full.iterdir()] == ["filler"]
    path.touch()  # an earlier one stays
    with pytest.raises(OSError, match="No space left"):
        WRITERS[name](path)
    assert {file.name for file in full.iterdir()} == {"filler", name}


def stopped_half_way(path: Path) -> None:
    with written_beside(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with written_beside(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(KeyboardInterrupt):
        stopped_half_way(path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_compiled_code_that_cannot_be_kept_runs_all_the_same(full, monkeypatch):
    monkeypatch.setattr(compiling, "cache_folder", lambda: full / "code")
    twice = compiling.entry(_twice)
    assert twice(21) == 42
    assert not [path for path in (full / "code").rglob("*") if path.suffix == ".nbc"]


def _twice(number):
    return 2 * number


def test_a_stream_whose_rows_cannot_be_written_does_not_save_that_they_were(nowhere):
    frame = make_market(n_bars=200, n_regimes=2, seed=1).frame
    columns = ["timestamp", "open", "high", "low", "close", "volume"]
    feed = io.BytesIO(frame.reset_index(drop=True)[columns].to_csv(index=False).encode())
    stream, saved = small_detector().stream(), []
    lines = RegimeLines(nowhere, ("timestamp", "state"), as_json=True, headed=True)
    with pytest.raises(OSError, match="No space left"):
        follow(stream, feed, lines.write, lambda: saved.append(stream.time), _raise)
    assert stream.time is not None
    assert saved == [None]  # the state before the first bar


def _raise(error: Exception) -> None:
    raise error


def test_a_command_whose_output_is_lost_says_so_once(nowhere, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", nowhere)
    assert exit_status(lambda args: print("a result") or 0, Namespace()) == 2
    assert capsys.readouterr().err == "error: No space left on device\n"


def test_an_output_that_is_lost_stops_no_work(nowhere):
    output = Output(nowhere)
    for _ in range(3):
        print("x" * 10_000, file=output, flush=True)
    assert "No space left" in str(output.error)
    kept = Output(io.StringIO())
    print("a result", file=kept, flush=True)
    assert (kept.getvalue(), kept.error) == ("a result\n", None)


def runs_in(folder: Path) -> list[tuple[str, str, str]]:
    """Id, kind and status of every run, as the store holds them."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return database.execute(
            "SELECT run_uuid, tags.value, runs.status FROM runs JOIN tags USING (run_uuid) "
            "WHERE tags.key = 'kind' AND runs.lifecycle_stage = 'active'"
        ).fetchall()


@pytest.mark.parametrize("kilobytes", [1600, 2500])  # full in a cell's figures; in its recording
def test_a_sweep_ends_in_one_line_and_goes_on_when_there_is_room(train_cli, tmp_path, kilobytes):
    words = ("-m", "model.n_states=2,3", *FAST)
    with small_disk(tmp_path, kilobytes) as disk:
        stopped = train_cli(disk, *words)
        lines = stopped.stderr.splitlines()
        assert stopped.returncode == 1
        assert "Traceback" not in stopped.stdout + stopped.stderr
        assert len([line for line in lines if line.startswith("error: ")]) == 1
        assert len(lines) <= 5 + ("compiling" in stopped.stderr)  # two are about the data
        assert max(map(len, lines)) <= LONGEST_LINE
        assert not list(disk.rglob("*.part*"))
        for run_id, kind, status in runs_in(disk):
            assert status != "RUNNING"
            if (kind, status) == ("cell", "FAILED"):
                left = disk / "mlruns" / run_id / "artifacts"
                assert {path.name for path in left.glob("*")} <= {"run.log"}
        assert re.match("error: .*(disk is full|No space left)", lines[-1])
        (sweep_id,) = re.findall(r"; go on with sweep_id=(\S+)$", lines[-1])
        enlarge(disk, 64)
        done = train_cli(disk, *words, f"sweep_id={sweep_id}")
        assert done.returncode == 0, done.stderr
        runs = runs_in(disk)
        assert [status for _, kind, status in runs if kind == "sweep"] == ["FINISHED"]
        assert [status for _, kind, status in runs if kind == "cell"].count("FINISHED") == 2
        assert "RUNNING" not in {status for *_, status in runs}
        assert not list(disk.rglob("*.part*"))
        assert not list(disk.glob("mlruns/sweeps/*/pending/*"))
