"""Sweeps that meet faults: what a cell does costs one cell; the store may be gone for a while."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
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
from tests.warm import FAULTS
from tests.watching import finished, launched, sweep_id_of, until

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
