"""Sweeps that are stopped or killed, and go on."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hmm_exp.registry.promotion import champion
from hmm_exp.tracking import tags
from tests.test_train_cli import SMALL, runs_of, store_of
from tests.warm import FAULTS, environment_of_a_user
from tests.watching import finished, launched, opened, processes_in, sweep_id_of, until

DRAWN = "tracking.figures=true"


@pytest.mark.parametrize("moment", ["fit", "written", "recording"])
def test_a_killed_sweep_goes_on_and_runs_only_what_is_missing(train_cli, workdir, moment):
    words = ("-m", "model.n_states=2,3,4", *SMALL, DRAWN)
    faults = {"PYTHONPATH": FAULTS, "KILL_AT": moment, "KILL_ONCE": str(workdir / "killed")}
    killed = train_cli(workdir, *words, **faults)
    assert killed.returncode == -signal.SIGKILL
    client = store_of(workdir)
    before = sorted(run.info.status for run in runs_of(client, "cell"))
    assert set(before) <= {"FINISHED", "RUNNING"}  # one is recorded while the next is fitted
    sweep_id = sweep_id_of(client)
    done = train_cli(workdir, *words, f"sweep_id={sweep_id}", **faults)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already fitted") == before.count("FINISHED")
    assert sorted(run.data.params["model.n_states"] for run in finished(client)) == ["2", "3", "4"]
    statuses = sorted(run.info.status for run in runs_of(client, "cell"))
    assert statuses == ["FINISHED"] * 3 + ["KILLED"] * before.count("RUNNING")
    logs = workdir / "mlruns" / "sweeps" / sweep_id / "logs"
    assert "fitting" in (logs / "1.1.log").read_text()
    if moment != "fit":  # when the second is fitted, the first may not be written yet
        assert "fitting" not in (logs / "1.2.log").read_text()
    assert champion(client, "hmm_regime").run_id in {run.info.run_id for run in finished(client)}
    assert not (workdir / "mlruns" / "sweeps" / sweep_id / "pending").exists()


@pytest.mark.slow
def test_main_and_worker_killed_at_once_under_joblib_lose_nothing(train_cli, workdir):
    words = ("-m", "model.n_states=2,3", "model.random_state=1,2", *SMALL, *launched("joblib"))
    faults = {"PYTHONPATH": FAULTS, "KILL_AT": "recording", "KILL_ONCE": str(workdir / "killed")}
    killed = train_cli(workdir, *words, **faults, KILL_PARENT="yes")
    assert killed.returncode == -signal.SIGKILL
    until(lambda: not processes_in(workdir))  # what was left ends by itself
    client = store_of(workdir)
    assert "RUNNING" in {run.info.status for run in runs_of(client, "cell")}
    before = {run.info.run_id for run in finished(client)}
    assert len(before) < 4
    done = train_cli(workdir, *words, f"sweep_id={sweep_id_of(client)}", **faults)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already fitted") == len(before)
    after = finished(client)
    cells = [
        (run.data.params["model.n_states"], run.data.params["model.random_state"]) for run in after
    ]
    assert sorted(cells) == [("2", "1"), ("2", "2"), ("3", "1"), ("3", "2")]
    assert before < {run.info.run_id for run in after}
    assert {run.info.status for run in runs_of(client, "cell")} == {"FINISHED", "KILLED"}
    assert [run.info.status for run in runs_of(client, "sweep")] == ["FINISHED"]
    assert champion(client, "hmm_regime").run_id in {run.info.run_id for run in after}
    assert not list(workdir.glob("mlruns/sweeps/*/pending/*"))
    assert not list(workdir.glob("mlruns/sweeps/*/cache"))
    until(lambda: not processes_in(workdir))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_stopped_as_soon_as_it_said_how_to_go_on_can_go_on(
    train_cli, workdir, started, number
):
    words = ("model.n_states=2", "promote=false", *SMALL)
    main = started(workdir, *words)
    said = "if stopped, go on with sweep_id="
    until(lambda: said in main.output())
    main.send_signal(number)
    ended = main.wait()
    sweep_id = main.output().partition(said)[2].splitlines()[0]
    if number == signal.SIGINT:
        assert f"error: interrupted; go on with sweep_id={sweep_id}\n" in ended.stderr
        runs = runs_of(store_of(workdir), "sweep") + runs_of(store_of(workdir), "cell")
        assert {run.info.status for run in runs} == {"KILLED"}
    done = train_cli(workdir, "-m", *words, f"sweep_id={sweep_id}")
    assert done.returncode == 0, done.stderr
    assert len(finished(store_of(workdir))) == 1


def test_a_sweep_that_still_runs_is_not_started_again(train_cli, workdir, started):
    words = ("model.random_state=1,903", "model.n_states=2", *SMALL)
    main = started(workdir, *words, "promote=false", PYTHONPATH=FAULTS)
    sweep_id = until(lambda: re.search(r"sweep (\S+):", main.output()))[1]
    client = opened(workdir)
    until(lambda: len(runs_of(client, "cell")) == 2)
    refused = train_cli(workdir, "-m", *words, f"sweep_id={sweep_id}")
    assert refused.returncode == 2
    assert f"error: sweep {sweep_id} still runs: process {main.pid} on " in refused.stderr
    # another sweep beside it closes nothing that is alive
    beside = train_cli(workdir, "-m", "model.n_states=2", "promote=false", *SMALL)
    assert beside.returncode == 0, beside.stderr
    running = [run for run in runs_of(client, "cell") if run.info.status == "RUNNING"]
    assert [run.data.params["model.random_state"] for run in running] == ["903"]
    main.send_signal(signal.SIGINT)
    ended = main.wait()
    assert ended.returncode == 130
    assert "KILLED: interrupted (log: " in ended.stderr
    assert "FAILED" not in ended.stdout + ended.stderr
    assert f"error: interrupted; go on with sweep_id={sweep_id}\n" in ended.stderr
    statuses = [run.info.status for run in runs_of(client, "sweep")]
    assert sorted(statuses) == ["FINISHED", "KILLED"]
    assert {run.info.status for run in runs_of(client, "cell")} == {"FINISHED", "KILLED"}
    (killed,) = [run for run in runs_of(client, "cell") if run.info.status == "KILLED"]
    assert killed.data.tags[tags.STATUS_REASON] == "interrupted"


@pytest.mark.parametrize(
    ("numbers", "status"),
    [([signal.SIGTERM], 143), ([signal.SIGINT] * 3, 130)],
    ids=lambda value: " ".join(number.name for number in value) if isinstance(value, list) else "",
)
def test_a_sweep_that_is_stopped_says_how_to_go_on_and_leaves_nothing_running(
    workdir, started, numbers, status
):
    words = ("model.random_state=903", "model.n_states=2", *SMALL)
    main = started(workdir, *words, PYTHONPATH=FAULTS)
    until(lambda: "sweep " in main.output())
    client = opened(workdir)
    until(lambda: runs_of(client, "cell"))
    for number in numbers:  # a key pressed again must not end what closes the runs
        main.send_signal(number)
        time.sleep(0.3)
    ended = main.wait()
    assert ended.returncode == status
    sweep_id = sweep_id_of(client)
    assert f"error: interrupted; go on with sweep_id={sweep_id}\n" in ended.stderr
    assert "Traceback" not in ended.stderr
    runs = runs_of(client, "cell") + runs_of(client, "sweep")
    assert {run.info.status for run in runs} == {"KILLED"}


@pytest.mark.parametrize(
    ("kind", "place", "opened", "statuses"),
    [
        ("INTERRUPTED", "hmm_exp.sweep.plan:_compose", False, set()),
        ("INTERRUPTED", "hmm_exp.sweep.cell:run_cell", True, set()),
        ("INTERRUPTED", "hmm_exp.tracking.record:log_detector", True, {"KILLED"}),
        ("INTERRUPTED", "hmm_exp.report.log:log_report", True, {"FINISHED"}),
        ("SWALLOWED", "hmm_exp.sweep.cell:run_cell", True, None),
        ("SWALLOWED", "hmm_exp.report.log:log_report", True, {"FINISHED"}),
    ],
)
def test_an_interrupt_hidden_or_swallowed_by_a_library_is_an_interrupt(
    train_cli, workdir, kind, place, opened, statuses
):
    """A library interrupted amid its work may fail in its clean-up, or go on."""
    words = ("model.n_states=2,3", *SMALL[:-1], "tracking.report=true")
    done = train_cli(workdir, "-m", *words, PYTHONPATH=FAULTS, **{kind: place})
    assert done.returncode == 130
    go_on = "; go on with sweep_id=\\S+" if opened else ""
    assert re.search(f"(?m)^error: interrupted{go_on}$", done.stderr)
    assert "Traceback" not in done.stderr
    runs = runs_of(store_of(workdir), "cell") if opened else []
    found = {run.info.status for run in runs}
    assert "RUNNING" not in found
    assert statuses in (found, None)


def test_stopped_before_it_begins_a_sweep_says_so_in_one_line(workdir):
    main = subprocess.Popen(
        [sys.executable, "-m", "hmm_exp.train", "-m", "model.n_states=2", *SMALL],
        cwd=workdir,
        env=environment_of_a_user(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        children = Path(f"/proc/{main.pid}/task/{main.pid}/children")
        until(children.read_text)  # the process that fits has been started
        main.send_signal(signal.SIGINT)
        output, _ = main.communicate(timeout=60)
    finally:
        main.kill()
    assert main.returncode == 130
    assert re.fullmatch(r"(?m)(sweep .*\n)?error: interrupted.*\n", output)
