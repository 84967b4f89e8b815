"""A sweep against a real MLflow server over a real PostgreSQL, as a team would have it."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import psycopg2
import pytest
from mlflow.tracking import MlflowClient

from hmm_exp import owner
from hmm_exp.commands import server
from hmm_exp.errors import TrackingError
from hmm_exp.market.synthetic import make_market
from hmm_exp.registry.promotion import champion
from hmm_exp.server import leftover, postgres
from hmm_exp.server.leftover import RECORD, FolderInUse, postmaster, write_record
from hmm_exp.server.server import check_port
from hmm_exp.sweep import housekeeping
from hmm_exp.tracking import tags
from tests.conftest import ROOT
from tests.small_detector import forget_store
from tests.test_train_cli import SMALL, runs_of
from tests.warm import FAULTS
from tests.watching import finished, until

SCRIPT = str(ROOT / "scripts" / "server.py")


def has_postgresql() -> bool:
    try:
        postgres.find_programs()
    except TrackingError:
        return False
    return True


needs_postgresql = pytest.mark.skipif(not has_postgresql(), reason="PostgreSQL is not installed")


@dataclass
class Served:
    """The server's script, its folder, and its address."""

    folder: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *more: str) -> None:
        words = ["--folder", str(self.folder), "--port", str(self.port), "--workers", "1", *more]
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline() and self.process.stdout.readline()
        assert line == f"export MLFLOW_TRACKING_URI={self.uri}\n", self.process.communicate()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def mlflow_pid(self) -> int:
        """The only child of the script: `pg_ctl` leaves PostgreSQL to the system."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


@pytest.fixture(scope="module")
def served():
    """A server for this module, in a folder that the user `postgres` may enter."""
    if not has_postgresql():
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="hmm_exp-"))
    folder.chmod(0o755)
    store = Served(folder, postgres.free_port())
    try:
        store.start()
        yield store
    finally:
        status = store.stop()
        shutil.rmtree(folder)
    assert status == 0


@pytest.fixture(scope="module")
def swept(served, warm, tmp_path_factory):
    """A sweep that loses its server, database and all, when its second cell is fitted.

    The server comes back while the sweep is patient.
    """
    folder = tmp_path_factory.mktemp("client")
    lost = folder / "lost"
    environment = {
        "MLFLOW_TRACKING_URI": served.uri,
        "PYTHONPATH": FAULTS,
        "KILL_AT": "written",
        "KILL_ONCE": str(lost),
        "KILL_PID": str(-served.mlflow_pid()),  # the group: the server and its workers
    }
    sweep = warm.start(folder, "-m", "model.n_states=2,3", *SMALL, **environment)
    try:
        until(lost.exists)
        _, shown = served.process.communicate(timeout=60)
        gone = served.process.returncode, shown
        served.start()
        done = sweep.wait()
    finally:
        sweep.send_signal(signal.SIGKILL)
    return folder, gone, done


@pytest.mark.slow
def test_a_sweep_waits_for_a_server_that_comes_back_and_fits_nothing_twice(served, swept):
    folder, (status, shown), done = swept
    assert status == 2
    assert shown == f"error: mlflow server ended with status -9: see {served.folder}/mlflow.log\n"
    assert done.returncode == 0, done.stderr
    client = MlflowClient(served.uri)
    (parent,) = runs_of(client, "sweep")
    cells = runs_of(client, "cell")
    assert parent.info.status == "FINISHED"
    states = [run.data.params["model.n_states"] for run in cells if run.info.status == "FINISHED"]
    assert sorted(states) == ["2", "3"]
    assert {run.info.status for run in cells} <= {"FINISHED", "KILLED"}  # no orphan
    sweep_id = parent.data.tags[tags.SWEEP_ID]
    left = folder / "mlruns" / "sweeps" / sweep_id
    assert not (left / "pending").exists()
    logs = [path.read_text() for path in (left / "logs").iterdir()]
    assert [text.count("writing\n") for text in logs] == [1, 1]


@pytest.mark.slow
def test_the_server_keeps_all_artifacts_and_the_client_none(served, swept):
    folder = swept[0]
    client = MlflowClient(served.uri)
    run = finished(client)[0]
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"regimes.csv", "model.joblib", "data_report.json", "run.log"} <= names
    assert list(served.folder.glob(f"artifacts/*/{run.info.run_id}/artifacts/regimes.csv"))
    assert {path.name for path in folder.iterdir()} == {"mlruns", "lost", "lost.seen"}
    assert {path.name for path in (folder / "mlruns").iterdir()} == {"hydra", "sweeps"}


@pytest.mark.slow
def test_the_winner_is_promoted_and_answers_wherever_the_address_is_known(
    served, swept, tmp_path, monkeypatch
):
    client = MlflowClient(served.uri)
    assert "promoted: models:/hmm_regime/Production is version 1" in swept[2].stdout
    run_id = champion(client, "hmm_regime").run_id
    assert run_id in {run.info.run_id for run in finished(client)}
    forget_store()  # which takes the variable away where a store was open
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.uri)
    model = mlflow.pyfunc.load_model("models:/hmm_regime/Production")
    answer = model.predict(make_market(n_bars=2500, n_regimes=3, seed=7).frame).iloc[-1]
    last = pd.read_csv(client.download_artifacts(run_id, "regimes.csv", str(tmp_path))).iloc[-1]
    assert (answer["label"], answer["state"]) == (last["label"], last["state"])
    assert answer["p_state_0"] == pytest.approx(last["p_state_0"], abs=1e-12)


@pytest.mark.slow
def test_two_sweeps_at_once_on_one_server_leave_one_production(served, swept, warm, tmp_path):
    words = ("tracking.experiment=both", "registry.name=both", "model.n_states=2", *SMALL)
    mains = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        seeded = ("-m", f"model.random_state={seed}", *words)
        mains.append(warm.start(folder, *seeded, MLFLOW_TRACKING_URI=served.uri))
    for ended in [main.wait() for main in mains]:
        assert ended.returncode == 0, ended.stderr
    client = MlflowClient(served.uri)
    experiment = client.get_experiment_by_name("both")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags[tags.KIND] for run in runs) == ["cell", "cell", "sweep", "sweep"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    versions = client.search_model_versions("name = 'both'")
    assert [version.current_stage for version in versions].count("Production") == 1
    assert champion(client, "both").run_id in {run.info.run_id for run in runs}


@pytest.mark.slow
def test_what_is_cleaned_is_gone_from_the_server_too(served, swept):
    client = MlflowClient(served.uri)
    experiment = client.get_experiment_by_name("hmm_exp")
    identity = {tags.KIND: "cell", tags.SWEEP_ID: runs_of(client, "sweep")[0].data.tags["sweep_id"]}
    run_id = client.create_run(experiment.experiment_id, tags=identity).info.run_id
    client.log_text(run_id, "why", "run.log")
    client.set_terminated(run_id, "FAILED")
    (folder,) = served.folder.glob(f"artifacts/*/{run_id}")
    mlflow.set_tracking_uri(served.uri)
    doomed, _ = housekeeping.removable(client)
    assert run_id in {run.info.run_id for run in doomed}
    housekeeping.remove(client, doomed)
    forget_store()
    assert not list(folder.rglob("run.log"))
    assert len(finished(client)) == 2


@pytest.mark.slow
def test_the_database_asks_for_the_password_that_only_its_owner_can_read(served):
    secret = served.folder / "pgpass"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    port = (served.folder / "database" / "postmaster.pid").read_text().splitlines()[3]
    address = f"host=127.0.0.1 port={port} user=mlflow dbname=mlflow"
    psycopg2.connect(address, passfile=str(secret)).close()
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(address, passfile=os.devnull)
    listening = Path(f"/proc/{served.process.pid}/net/tcp").read_text().splitlines()[1:]
    heard = {line.split()[1] for line in listening if line.split()[3] == "0A"}
    for number in (int(port), served.port):
        assert [place for place in heard if place.endswith(f":{number:04X}")] == [
            f"0100007F:{number:04X}"  # 127.0.0.1
        ]


def refused(*words: str) -> str:
    """The one line with which the script refuses."""
    command = [sys.executable, SCRIPT, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_second_server_in_a_folder_or_on_a_port_is_refused(served, tmp_path):
    other_port, other_folder = str(postgres.free_port()), str(tmp_path / "other")
    line = refused("--folder", str(served.folder), "--port", other_port)
    assert f"is already served by process {served.process.pid} on " in line
    line = refused("--folder", other_folder, "--port", str(served.port))
    assert line.startswith(f"error: --port {served.port} is taken")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_a_killed_server_left_is_named_and_ended_on_request(served, swept):
    left = FolderInUse(None, served.mlflow_pid(), postmaster(served.folder / "database"))
    served.process.kill()
    served.process.communicate()
    assert FolderInUse.of(served.folder) == left
    line = refused("--folder", str(served.folder), "--port", str(served.port))
    named = f"MLflow (process {left.mlflow}) and PostgreSQL (process {left.postgres})"
    assert line == (
        f"error: a killed hmm-server left {named} running in {served.folder}: "
        "--stop-leftover ends them first\n"
    )
    served.start("--stop-leftover")
    assert owner.start_of(left.postgres) is None
    assert served.mlflow_pid() != left.mlflow
    assert len(finished(MlflowClient(served.uri))) >= 2


def test_a_recorded_process_is_ours_only_with_its_start_and_its_folder(tmp_path, sleeper):
    here, elsewhere = sleeper(tmp_path), sleeper(tmp_path.parent)
    assert FolderInUse.of(tmp_path / "nowhere") == FolderInUse(None, None, None)
    write_record(tmp_path, here.pid)
    serving = FolderInUse.of(tmp_path)
    assert serving == FolderInUse(
        f"process {os.getpid()} on {socket.gethostname()}", here.pid, None
    )
    assert not serving.left
    known = json.loads((tmp_path / RECORD).read_text())
    host, _, start = known["mlflow"].rsplit(" ", 2)
    record(tmp_path, main=f"{host} {os.getpid()} 1", mlflow=known["mlflow"])
    assert FolderInUse.of(tmp_path) == FolderInUse(None, here.pid, None)  # its main process is gone
    record(tmp_path, mlflow=f"{host} {elsewhere.pid} {int(start) - 1}")
    assert not FolderInUse.of(tmp_path).left  # the number was given out again
    (tmp_path / RECORD).write_text("{ half")
    assert not FolderInUse.of(tmp_path).left
    data = tmp_path / "database"
    data.mkdir()
    (data / "postmaster.pid").write_text(f"{here.pid}\n{data}\n")
    assert postmaster(data) is None  # works in another folder
    other = sleeper(data)
    (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n")
    assert FolderInUse.of(tmp_path) == FolderInUse(None, None, other.pid)


def test_left_over_processes_are_ended_also_those_that_do_not_listen(
    tmp_path, sleeper, monkeypatch
):
    monkeypatch.setattr(leftover, "_ENDS_WITHIN", 1.0)
    deaf, database = sleeper(tmp_path, deaf=True), sleeper(tmp_path / "database")
    write_record(tmp_path, deaf.pid)
    (tmp_path / "database" / "postmaster.pid").write_text(f"{database.pid}\n")
    record(tmp_path, mlflow=json.loads((tmp_path / RECORD).read_text())["mlflow"])
    FolderInUse.of(tmp_path).end()
    assert deaf.wait() == -signal.SIGKILL
    assert database.wait() == -signal.SIGINT
    assert not FolderInUse.of(tmp_path).left


@pytest.fixture
def sleeper():
    """Start processes, leaders of their group, that sleep in a folder."""
    started = []

    def start(folder: Path, deaf: bool = False) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        ignore = "trap '' TERM; " if deaf else ""
        command = ["sh", "-c", f"{ignore}echo; exec sleep 600"]
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, start_new_session=True
        )
        process.stdout.readline()  # it sleeps
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def record(folder: Path, **known: str) -> None:
    (folder / RECORD).write_text(json.dumps(known))


def test_a_port_that_is_taken_is_refused_and_a_free_one_is_not():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"--port {port} is taken .*: use another"):
            check_port(port)
    check_port(port)


@needs_postgresql
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--workers", "0"], "--workers: 0: must be 1 to 1,000"),
        (["--port", "0"], "--port: 0: must be 1 to 65,535"),
        (["--port", "http"], "--port: 'http': must be a whole number"),
        (["--folder", "file"], "/file is a file"),
        (["--folder", "file/below"], "Not a directory"),
        (["--folder", "no_database"], "/no_database/database is not a PostgreSQL database"),
        (["--folder", "old"], "the database was made by PostgreSQL 9.2, and "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_makes_nothing(tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for name in ("old", "no_database"):
        (tmp_path / name / "database").mkdir(parents=True)
    Path("old/database/PG_VERSION").write_text("9.2\n")
    before = sorted(tmp_path.rglob("*"))
    try:
        status = server.main([*words])
    except SystemExit as left:
        status = left.code
    shown = capsys.readouterr().err
    assert (status, shown.count("\n")) == (2, 1)
    assert line in shown
    assert sorted(tmp_path.rglob("*")) == before


@needs_postgresql
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_a_folder_that_the_user_postgres_cannot_enter_is_left_as_it_was(tmp_path, capsys):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    port = str(postgres.free_port())
    for folder in (closed, closed / "new"):
        assert server.main(["--folder", str(folder), "--port", port]) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert "root runs it as postgres, who needs access" in shown
        assert not list(closed.iterdir())


def test_without_postgresql_one_line_names_the_remedy(monkeypatch):
    monkeypatch.setattr(postgres, "_PLACES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TrackingError, match="PostgreSQL is not installed"):
        postgres.find_programs()
