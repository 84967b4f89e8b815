"""What a person sees while a sweep runs: on a terminal, and where there is none."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hmm_exp.sweep import progress
from hmm_exp.tracking.bundle import LOG_FILE
from tests.test_train_cli import SMALL, runs_of, store_of

SIZE = "120", "24"
CONTROL = re.compile(r"\x1b\[(\d*)([AJK])|(\r)|(\n)|([^\x1b\r\n]+)")


def screens(text: str) -> list[list[str]]:
    """What a terminal shows after each time that the live lines were drawn."""
    lines, row, column, shots = [""], 0, 0, []
    for number, command, back, feed, words in CONTROL.findall(text):
        if command == "A":
            row = max(0, row - int(number or 1))
        elif command == "J":
            shots.append([*lines])
            lines[row:] = [lines[row][:column]]
        elif command == "K":
            lines[row] = lines[row][:column]
        elif back:
            column = 0
        elif feed:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            lines[row] = lines[row][:column] + words + lines[row][column + len(words) :]
            column += len(words)
    return [*shots, lines]


def on_a_terminal(folder: Path, *words: str) -> tuple[int, str]:
    """Run the command line on a pseudo-terminal; its exit status and all that was written."""
    ours, theirs = pty.openpty()
    hidden = ("MLFLOW_TRACKING_URI", "NO_COLOR", "FORCE_COLOR")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {"TERM": "xterm", "COLUMNS": SIZE[0], "LINES": SIZE[1]}
    command = [sys.executable, "-m", "hmm_exp.train", *words]
    main = subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = []
    try:
        while part := os.read(ours, 65536):
            written.append(part)
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
        main.kill()
    return main.wait(), b"".join(written).decode()


@pytest.mark.slow
def test_cells_side_by_side_have_a_line_each_and_leave_one_each(workdir):
    words = ("compute=joblib", "compute.workers=2", "model.n_states=4,5,6", "data.n_bars=80000")
    status, text = on_a_terminal(
        workdir, "-m", *words, "tracking.figures=false", "promote=false", "model.tol=1e-6"
    )
    assert status == 0, text
    *drawn, last = screens(text)
    rows = [[line for line in shot if re.match(r"\[\d/3\] .* \d+ s  ", line)] for shot in drawn]
    assert max(map(len, rows)) == 2
    assert all(len({line[:5] for line in shot}) == len(shot) for shot in rows)
    climb = r"\[\d/3\] v1@1H diag K=\d  \d+ s  fitting \d states: start \d+ of 10, iteration \d+, "
    assert any(re.match(rf"{climb}log-likelihood -[\d.]+$", line) for shot in rows for line in shot)
    below = [line for shot in drawn for line in shot if " of 3 cells done, " in line]
    assert any(re.search(r"[12] of 3 cells done, .*, about \d+ s left$", line) for line in below)
    ended = [line for line in last if re.match(r"\[\d/3\] .*  BIC [\d.]+ ", line)]
    assert sorted(line[:5] for line in ended) == ["[1/3]", "[2/3]", "[3/3]"]
    assert not [line for line in last if "cells done" in line]
    assert not list(workdir.glob("mlruns/sweeps/*/live"))
    table = [line for line in text.splitlines() if re.search(r" [\da-f]{8}\x1b\[0m$", line)]
    (winner,) = [line for line in table if line.startswith("\x1b[1;32m")]
    assert all(line.startswith("\x1b[2m") for line in table if line != winner)


def test_a_single_run_shows_its_progress_and_records_no_colours(workdir):
    words = ("model.n_states=3", "data.n_bars=20000", "tracking.figures=false", "promote=true")
    status, text = on_a_terminal(workdir, *words, "gate=strictest", "model.tol=1e-7")
    assert status == 0, text
    *drawn, last = screens(text)
    rows = {line for shot in drawn for line in shot if line.startswith("v1@1H diag K=3  ")}
    assert any(re.search(r"\d s  (fitting 3 states|evaluating)", line) for line in rows)
    assert any(re.search(r"\d s  (writing|recording)$", line) for line in rows)
    (ended,) = [line for line in last if line.startswith("v1@1H diag K=3  ")]
    assert re.search(r"K=3  BIC [\d.]+  gain [+-]\.?\d", ended)
    assert "\x1b[31mnot promoted:\x1b[0m" in text or "\x1b[32mpromoted:\x1b[0m" in text
    client = store_of(workdir)
    (run,) = runs_of(client, "cell")
    log = Path(client.download_artifacts(run.info.run_id, LOG_FILE, str(workdir))).read_text()
    assert "fitting 3 states" in log
    assert "\x1b" not in log + "".join(run.data.tags.values())


def test_a_single_run_in_a_pipe_has_one_plain_line(train_cli, workdir):
    done = train_cli(workdir, "model.n_states=2", *SMALL)
    *read, line = done.stderr.splitlines()
    assert [text.split(" ")[0] for text in read] == ["synthetic", "features"]
    assert re.fullmatch(r"v1@1H diag K=2  K=2  BIC [\d.]+  gain \S+  [\d.]+ s", line)
    assert "\x1b" not in done.stdout


def test_a_quiet_run_says_its_result_alone_and_its_log_is_kept(train_cli, workdir):
    done = train_cli(workdir, "model.n_states=2", *SMALL, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("regime at ")
    client = store_of(workdir)
    (run,) = runs_of(client, "cell")
    log = Path(client.download_artifacts(run.info.run_id, LOG_FILE, str(workdir))).read_text()
    assert "fitting 2 states" in log


def test_a_quiet_sweep_has_no_line_per_cell_but_names_what_failed(train_cli, workdir):
    words = ("model.n_states=2", "features.window=20,2400", "promote=false", *SMALL)
    done = train_cli(workdir, "--quiet", "-m", *words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    (line,) = done.stderr.splitlines()
    assert "window=2400  FAILED: " in line
    assert not re.search(r"^sweep ", done.stdout, re.MULTILINE)
    assert "regime at " in done.stdout.splitlines()[-1]


def test_a_line_costs_nothing_where_nobody_watches(tmp_path):
    with progress.Line(tmp_path, 1, "a cell") as line:
        line("working")
        assert not line.watched
    assert not list(tmp_path.iterdir())


def test_the_estimate_counts_cells_that_were_run_and_those_side_by_side(tmp_path):
    display = progress.Display(tmp_path / "live", 10)
    display._over.set()
    display.join()
    now = time.time()
    display.n_done, display.seconds, display._side_by_side = 4, [10.0, 12.0, 30.0], 2
    rows = [progress.Row(n, "", "", now - 6.0, "") for n in (5, 6)]
    assert display._left(rows, now) == pytest.approx((4 * 12.0 + 2 * 6.0) / 2)
    display.seconds = []
    assert display._left(rows, now) is None


def test_the_row_of_a_process_that_died_is_not_shown(tmp_path):
    display = progress.Display(tmp_path / "live", 2)
    display._over.set()
    display.join()
    gone = subprocess.Popen(["true"])
    gone.wait()
    host, _, start = progress.owner.this_process().rsplit(" ", 2)
    line = progress.Line(tmp_path, 1, "alive")
    line._owner = progress.owner.this_process()
    progress._join(tmp_path)
    line("working")
    assert [row.name for row in display._rows()] == ["alive"]
    line._owner = f"{host} {gone.pid} {start}"
    line("working")
    assert display._rows() == []
    progress._join(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.7, "1 min 00 s"), (192, "3 min 12 s"), (3840, "1 h 04 min")],
)
def test_durations_are_two_units(seconds, words):
    assert progress.duration(seconds) == words
