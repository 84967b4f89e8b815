"""Sweeps that meet faults: what a cell does costs one cell, and what was killed goes on."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests.exceptions import RequestException

from hmm_exp import callback, owner
from hmm_exp.commands import sweeps as sweeps_command
from hmm_exp.market.synthetic import make_market
from hmm_exp.registry.promotion import champion
from hmm_exp.sweep import beside, child
from hmm_exp.tracking import tags
from tests.conftest import ROOT
from tests.test_train_cli import SMALL, runs_of, store_of
from tests.warm import FAULTS, Fork, environment_of_a_user

LAUNCHERS = ["serial", pytest.param("joblib", marks=pytest.mark.slow)]
REASONS = {
    901: "RuntimeError: a fault on purpose",
    902: "SystemExit: 3",
    903: "no end after 6 s (sweep.cell_timeout): killed",
    904: "its process was ended by SIGKILL (out of memory?)",
    905: "MemoryError: Unable to allocate",
    906: "RuntimeError: a fault on purpose",
    907: "its process was ended by SIGKILL (out of memory?)",
    908: "no end after 6 s (sweep.cell_timeout): killed",
}


DRAWN = "tracking.figures=true"


def launched(launcher: str) -> tuple[str, ...]:
    return ("compute=joblib", "compute.workers=2") if launcher == "joblib" else ()


def finished(client: MlflowClient) -> list:
    return [run for run in runs_of(client, "cell") if run.info.status == "FINISHED"]


def sweep_id_of(client: MlflowClient) -> str:
    return runs_of(client, "sweep")[0].data.tags[tags.SWEEP_ID]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_befalls_a_cell_costs_that_cell_only(train_cli, workdir, launcher):
    faults = [*REASONS] if launcher == "serial" else [901, 904]  # its children are the same
    seeds = ",".join(map(str, [1, *faults, 2]))
    words = (
        f"model.random_state={seeds}",
        "model.n_states=2",
        "sweep.cell_timeout=6",
        *SMALL,
        DRAWN,
    )
    done = train_cli(workdir, "-m", *words, *launched(launcher), PYTHONPATH=FAULTS)
    assert done.returncode == 1, done.stderr
    client = store_of(workdir)
    cells = runs_of(client, "cell")
    assert len(cells) == len(faults) + 2
    assert "is version 1" in done.stdout  # the winner is chosen from the rest
    assert champion(client, "hmm_regime").run_id in {run.info.run_id for run in finished(client)}
    for run in cells:
        seed = int(run.data.params["model.random_state"])
        artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert "run.log" in artifacts
        if seed not in REASONS:
            assert run.info.status == "FINISHED"
            continue
        assert run.info.status == "FAILED"
        assert artifacts == {"run.log"}
        assert REASONS[seed] in run.data.tags[tags.STATUS_REASON]
        lines = done.stdout.splitlines()
        (place,) = [i for i, line in enumerate(lines) if run.info.run_id in line]
        assert f"random_state={seed}" in lines[place]
        assert REASONS[seed] in lines[place]
        log = re.search(r"log: (\S+/logs/\d\.1\.log), and run.log", lines[place + 1])[1]
        assert Path(log).name == f"{[1, *faults, 2].index(seed) + 1}.1.log"
        assert Path(log).is_file()


@pytest.mark.skipif(not beside.IS_POSSIBLE, reason="figures are drawn beside a fit on Linux alone")
@pytest.mark.parametrize(("fault", "n_again"), [(904, 1), (910, 0)])
def test_a_cell_is_not_lost_with_the_next_while_it_is_drawn(train_cli, workdir, fault, n_again):
    """It is fitted again where its figures were not finished."""
    words = (f"model.random_state=1,909,{fault},2", "model.n_states=2", *SMALL, DRAWN)
    done = train_cli(workdir, "-m", *words, "sweep.cell_timeout=8", PYTHONPATH=FAULTS)
    assert done.returncode == 1, done.stderr
    statuses = {
        int(run.data.params["model.random_state"]): run.info.status
        for run in runs_of(store_of(workdir), "cell")
    }
    assert statuses == {1: "FINISHED", 909: "FINISHED", fault: "FAILED", 2: "FINISHED"}
    again = [line for line in done.stderr.splitlines() if "is fitted again" in line]
    assert ["random_state=909" in line for line in again] == [True] * n_again


def test_two_files_of_the_same_bars_are_two_cells(train_cli, workdir):
    for name in ("a.csv", "b.csv"):
        make_market(n_bars=2500, n_regimes=3, seed=7).frame.to_csv(workdir / name, index=False)
    words = ("data=bars", "data.path=a.csv,b.csv", "data.name=same", "data.bar_stamp=open")
    done = train_cli(workdir, "-m", *words, "model.n_states=2", *SMALL[1:], DRAWN)
    assert done.returncode == 0, done.stderr
    cells = finished(store_of(workdir))
    assert [run.data.params["data.path"] for run in cells] in (
        ["a.csv", "b.csv"],
        ["b.csv", "a.csv"],
    )
    assert len({run.data.tags[tags.FINGERPRINT] for run in cells}) == 1


def test_require_all_means_no_winner_beside_a_failed_cell(train_cli, workdir):
    words = ("model.random_state=1,901", "model.n_states=2", "sweep.require_all=true", *SMALL)
    done = train_cli(workdir, "-m", *words, PYTHONPATH=FAULTS)
    assert done.returncode == 1
    assert "no winner (sweep.require_all=true)" in done.stdout
    assert not store_of(workdir).search_registered_models()


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


def test_a_sweep_that_is_elsewhere_is_refused_and_nothing_is_made(train_cli, workdir):
    words = ("-m", "model.n_states=2", "sweep_id=20260102-030405-abcd", *SMALL)
    nowhere = workdir / "nowhere"
    nowhere.mkdir()
    refused = train_cli(nowhere, *words)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"error: no tracking store at sqlite:///{nowhere}/mlflow.db: "
        "run in the folder of the sweep, or use tracking.uri\n"
    )
    assert not list(nowhere.iterdir())
    client = store_of(workdir)
    identity = {tags.SWEEP_ID: "20260102-030405-abcd", tags.KIND: "sweep"}
    run = client.create_run(client.create_experiment("other"), tags=identity)
    client.set_terminated(run.info.run_id)
    refused = train_cli(workdir, *words)
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: sweep 20260102-030405-abcd is in another experiment: "
        "add tracking.experiment=other\n"
    )
    assert client.get_experiment_by_name("hmm_exp") is None


def processes_in(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            found += [int(place.parent.name)] if place.readlink() == folder else []
    return found


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


@pytest.fixture
def started(warm):
    """Start sweeps that run beside the test; none outlives it."""
    mains = []

    def start(folder: Path, *words: str, **environment: str) -> Fork:
        mains.append(warm.start(folder, "-m", *words, **environment))
        return mains[-1]

    yield start
    for main in mains:
        main.send_signal(signal.SIGKILL)
        main.wait()


def until(condition, within: float = 180.0):
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.1)
    return found


def opened(folder: Path) -> MlflowClient:
    """The store of a sweep whose first line has been printed, which is before MLflow opens it."""
    until((folder / "mlflow.db").exists)
    client = store_of(folder)
    until(lambda: client.get_experiment_by_name("hmm_exp"))
    return client


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


def test_a_single_run_that_exits_is_recorded_as_failed(train_cli, workdir):
    done = train_cli(workdir, "model.random_state=902", *SMALL, PYTHONPATH=FAULTS)
    assert done.returncode == 3
    (run,) = runs_of(store_of(workdir), "cell")
    assert run.info.status == "FAILED"
    assert run.data.tags[tags.STATUS_REASON] == "SystemExit: 3"


def test_the_time_of_a_request_stands_still_while_its_process_compiles(monkeypatch):
    now = 100.0
    monkeypatch.setattr(child.time, "monotonic", lambda: now)
    clock = child._Deadline(5.0)
    now = 102.0
    clock.stand(True)
    now = 150.0
    assert clock.left() == 3.0
    clock.stand(False)
    now = 152.0
    assert clock.left() == 1.0
    assert child._Deadline(None).left() == math.inf


@pytest.mark.slow
def test_three_sweeps_make_one_store(tmp_path, started):
    words = ("model.n_states=2", "promote=false", *SMALL)
    for main in [started(tmp_path, f"model.random_state={seed}", *words) for seed in range(3)]:
        ended = main.wait()
        assert ended.returncode == 0, ended.stderr
    client = store_of(tmp_path)
    assert len(finished(client)) == 3
    assert len(client.search_experiments(filter_string="name = 'hmm_exp'")) == 1


def test_an_owner_is_told_from_a_later_process_of_the_same_number():
    mine = owner.this_process()
    host, pid, start = mine.rsplit(" ", 2)
    assert owner.is_alive(mine)
    assert owner.is_dead(f"{host} {pid} {int(start) - 1}")
    assert owner.is_alive(f"elsewhere {pid} {start}") is None
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert owner.is_dead(f"{host} {gone.pid} {start}")


def test_a_grid_by_name_runs_with_one_word_and_is_never_left_out(train_cli, workdir):
    left_out = train_cli(workdir, "experiment=synthetic_grid", *SMALL)
    assert left_out.returncode == 2
    grid = "features=v1,v2 model.n_states=2,3,4,5"
    assert f"holds a grid ({grid}): add -m" in left_out.stderr
    words = ("experiment=synthetic_grid", "model.n_states=2", "promote=false")
    done = train_cli(workdir, "-m", *words, *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(runs_of(store_of(workdir), "cell")) == 2  # features from the grid, states as said


def sweeps(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "sweeps.py"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_sweeps_are_listed_shown_and_cleaned(train_cli, workdir, monkeypatch, capsys):
    words = ("model.random_state=1,901", "model.n_states=2", "promote=false", *SMALL)
    train_cli(workdir, "-m", *words, PYTHONPATH=FAULTS)
    client = store_of(workdir)
    sweep_id = sweep_id_of(client)
    (failed,) = [run for run in runs_of(client, "cell") if run.info.status == "FAILED"]
    listed = sweeps(workdir, "list").stdout.splitlines()
    assert re.search(rf"{sweep_id} .*FAILED\s+2\s+1\s+1\s+0\s+0", listed[1])

    def printed(*words: str) -> str:
        sweeps_command.main(["--tracking-uri", f"sqlite:///{workdir}/mlflow.db", *words])
        return "".join(capsys.readouterr())

    monkeypatch.chdir(workdir)
    assert "RuntimeError: a fault on purpose" in printed("show", "latest")
    assert f"would remove FAILED: {sweep_id}" in printed("clean")
    folder = workdir / "mlruns" / failed.info.run_id
    cache = workdir / "mlruns" / "sweeps" / sweep_id / "cache"
    assert not cache.exists()  # the sweep took it away
    cache.mkdir()
    assert folder.is_dir()
    assert len(runs_of(client, "cell")) == 2
    assert "1 runs, 1 caches; add --yes" in printed("clean")
    assert "1 runs, 1 caches\n" in printed("clean", "--yes")
    assert not cache.exists()
    assert [run.info.status for run in runs_of(client, "cell")] == ["FINISHED"]
    assert not folder.exists()
    unknown = f"error: no sweep never in this store (sqlite:///{workdir}/mlflow.db)\n"
    assert printed("show", "never") == unknown


@pytest.mark.parametrize("step", ["tracking.record:log_detector", "serving.mlflow_model:_save"])
def test_a_recording_that_is_tried_again_leaves_one_model(train_cli, workdir, step):
    lost = {"PYTHONPATH": FAULTS, "LOST_ANSWER": f"hmm_exp.{step}"}
    done = train_cli(workdir, "-m", "model.n_states=2", *SMALL, **lost)
    assert done.returncode == 0, done.stderr
    assert "the tracking store does not answer; trying for" in done.stderr
    client = store_of(workdir)
    (run,) = runs_of(client, "cell")
    assert run.info.status == "FINISHED"
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert model.status == "READY"
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]


LOST_VERDICT = {"PYTHONPATH": FAULTS, "LOST_ANSWER": "hmm_exp.sweep.finish:_write_parent"}


def test_a_verdict_waits_for_the_store_and_is_said_once(train_cli, workdir):
    done = train_cli(workdir, "-m", "model.n_states=2", *SMALL, **LOST_VERDICT)
    assert done.returncode == 0, done.stderr
    assert "the tracking store does not answer; trying for 120 s" in done.stderr
    assert done.stdout.count("promoted:") == 1
    (parent,) = runs_of(store_of(workdir), "sweep")
    assert parent.info.status == "FINISHED"
    assert tags.NOTE in parent.data.tags  # what comes after


def test_a_verdict_without_a_store_is_one_line_and_goes_on(train_cli, workdir):
    words = ("-m", "model.n_states=2", "tracking.patience=0.5", *SMALL)
    lost = train_cli(workdir, *words, **LOST_VERDICT, LOST_TIMES="inf")
    assert lost.returncode == 1
    sweep_id = sweep_id_of(store_of(workdir))
    (line,) = [line for line in lost.stderr.splitlines() if line.startswith("error: ")]
    assert "does not answer: an answer lost on purpose" in line
    assert line.endswith(f"; go on with sweep_id={sweep_id}")
    assert "Traceback" not in lost.stderr
    done = train_cli(workdir, *words, f"sweep_id={sweep_id}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already fitted") == 1


@pytest.mark.parametrize("kind", [MlflowException, RequestException])
def test_what_a_store_refuses_is_one_line_and_another_error_tells_all(capsys, kind):
    with pytest.raises(SystemExit), callback._exits_with(1, "; go on"):
        raise kind("no such\n run")
    assert capsys.readouterr().err == f"error: {kind.__name__}: no such run; go on\n"
    with pytest.raises(SystemExit), callback._exits_with(1, "; go on"):
        raise KeyError("a mistake of ours")
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("error: KeyError: 'a mistake of ours'; go on\n")


@pytest.fixture
def serve(workdir):
    """Start an MLflow server on loopback, as often as asked, always on the same port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    servers = []

    def start() -> tuple[str, subprocess.Popen]:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--workers", "1", "--artifacts-destination", "served"]
        command += ["--backend-store-uri", "sqlite:///mlflow.db"]
        server = subprocess.Popen(
            command,
            cwd=workdir,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # seven processes
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        servers.append(server)
        until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        return f"http://127.0.0.1:{port}", server

    yield start
    for server in servers:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.slow
def test_work_outlives_a_store_that_is_gone_and_is_not_done_again(train_cli, workdir, serve):
    url, server = serve()
    words = ("-m", "model.n_states=2,3", f"tracking.uri={url}", "tracking.patience=3", *SMALL)
    faults = {"PYTHONPATH": FAULTS, "KILL_AT": "written", "KILL_ONCE": str(workdir / "killed")}
    # the whole group: the server may have handed the socket to a child
    lost = train_cli(workdir, *words, **faults, KILL_PID=str(-server.pid))
    assert lost.returncode == 1
    sweep_id = re.search(r"sweep (\S+):", lost.stdout)[1]
    assert f"go on with sweep_id={sweep_id}" in lost.stderr
    assert "the finished work is in" in lost.stderr
    folder = workdir / "mlruns" / "sweeps" / sweep_id
    assert len(list((folder / "pending").iterdir())) in (1, 2)  # or the first was under way, too
    serve()
    done = train_cli(workdir, *words, f"sweep_id={sweep_id}", **faults)
    assert done.returncode == 0, done.stderr
    assert len(finished(MlflowClient(url))) == 2
    assert not (folder / "pending").exists() or not list((folder / "pending").iterdir())
    assert "fitting" in (folder / "logs" / "2.1.log").read_text()
    assert "fitting" not in (folder / "logs" / "2.2.log").read_text()
