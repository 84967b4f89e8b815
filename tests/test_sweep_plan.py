"""Sweeps on real launchers of Hydra for many machines: a Ray cluster, submitit's local executor."""

import importlib.util
import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hmm_exp.config import Config, TrackingConfig
from hmm_exp.errors import TrackingError
from hmm_exp.market.synthetic import make_market
from hmm_exp.registry.promotion import champion
from hmm_exp.server.postgres import free_port
from hmm_exp.store.store import open_store
from hmm_exp.sweep import finish, start
from hmm_exp.sweep.cell import SweepCell
from hmm_exp.sweep.housekeeping import close_elsewhere
from hmm_exp.sweep.plan import set_up_launcher
from hmm_exp.tracking import tags
from hmm_exp.tracking.runs import current_cells, sweep_cells
from tests.small_detector import forget_store
from tests.test_sweep import REASONS
from tests.test_train_cli import SMALL, runs_of, store_of
from tests.warm import FAULTS
from tests.watching import finished, until

KILLED = 904  # the seed of a cell whose process is killed


def needs(plugin: str):
    missing = importlib.util.find_spec(f"hydra_plugins.hydra_{plugin}_launcher") is None
    return pytest.mark.skipif(missing, reason=f"hydra-{plugin}-launcher is not installed")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray cluster on loopback, started elsewhere, that loses a worker in the second fit.

    Gives what a user of it sets.
    """
    away = tmp_path_factory.mktemp("away")
    faults = {"PYTHONPATH": FAULTS, "KILL_AT": "fit", "KILL_ONCE": str(away / "killed")}
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback alone
    }
    port = free_port()
    words = f"start --head --block --port={port} --num-cpus=1 --object-store-memory=100000000"
    ray = [str(Path(sys.executable).parent / "ray"), *words.split()]
    with (away / "log").open("w") as log:
        head = subprocess.Popen(
            [*ray, "--include-dashboard=false", "--disable-usage-stats"],
            cwd=away,
            env=os.environ | environment | faults,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: "block" in (away / "log").read_text() or head.poll() is not None)
        assert head.poll() is None, (away / "log").read_text()
        yield f"hydra.launcher.ray.init.address=127.0.0.1:{port}", environment
    finally:
        head.send_signal(signal.SIGTERM)  # it ends all that belongs to it
        head.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)


def own_bars(folder: Path) -> tuple[str, ...]:
    """Words for bars of one's own, by a path relative to the folder where the sweep starts."""
    frame = make_market(n_bars=2500, n_regimes=3, seed=7).frame
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(
        folder / "bars.csv", index=False
    )
    return ("data=bars", "data.path=bars.csv", "data.bar_stamp=open")


def check_sweep(folder: Path, done: subprocess.CompletedProcess[str]) -> None:
    """A cell was killed, the winner is one of the rest, and none ran in the main process."""
    assert done.returncode == 1, done.stderr
    client = store_of(folder)
    cells = {run.data.params["model.random_state"]: run for run in runs_of(client, "cell")}
    statuses = {seed: run.info.status for seed, run in cells.items()}
    assert statuses.pop(str(KILLED)) == "FAILED"
    assert set(statuses.values()) == {"FINISHED"}
    assert REASONS[KILLED] in cells[str(KILLED)].data.tags[tags.STATUS_REASON]
    assert champion(client, "hmm_regime").run_id in {run.info.run_id for run in finished(client)}
    (parent,) = runs_of(client, "sweep")
    assert parent.data.tags[tags.OWNER] not in {r.data.tags[tags.OWNER] for r in cells.values()}
    assert "regime at" in done.stdout.splitlines()[-1]


WORDS = ("model.n_states=2", *SMALL[1:])


@pytest.mark.slow
@needs("ray")
def test_a_sweep_on_a_ray_cluster_that_loses_a_worker(train_cli, workdir, cluster):
    address, environment = cluster
    words = ("-m", "compute=ray", address, f"model.random_state=1,{KILLED},2", *WORDS)
    done = train_cli(workdir, *words, *own_bars(workdir), **environment)
    check_sweep(workdir, done)
    statuses = [run.info.status for run in runs_of(store_of(workdir), "cell")]
    assert sorted(statuses) == ["FAILED", "FINISHED", "FINISHED", "KILLED"]  # given to another


@pytest.mark.parametrize(
    ("said", "meant", "loopback"),
    [(None, "local", "0"), ("local", "local", "0"), ("auto", "auto", None), ("h:1", "h:1", None)],
)
def test_ray_on_this_machine_joins_nobody_and_is_heard_by_nobody(
    monkeypatch, said, meant, loopback
):
    monkeypatch.setattr(os, "environ", {"RAY_ADDRESS": "elsewhere:6379"})
    launcher = {"_target_": "some.RayLauncher", "ray": {"init": {"address": said}}}
    hydra = {"launcher": launcher, "sweeper": {}, "overrides": {"hydra": []}}
    config = OmegaConf.create({"hydra": hydra})
    set_up_launcher(config, Config(), n_jobs=2)
    assert config.hydra.launcher.ray.init.address == meant
    assert os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == loopback


@pytest.mark.slow
@needs("ray")
def test_a_sweep_on_ray_of_this_machine_asks_no_cluster_that_is_gone(train_cli, workdir):
    words = ("-m", "compute=ray", "model.random_state=1", "promote=false", *WORDS)
    done = train_cli(workdir, *words, RAY_ADDRESS=f"127.0.0.1:{free_port()}")
    assert done.returncode == 0, done.stderr
    assert len(finished(store_of(workdir))) == 1


@pytest.mark.slow
@needs("submitit")
def test_a_sweep_by_submitit_on_this_machine(train_cli, workdir):
    words = ("-m", "compute=submitit_local", f"model.random_state=1,{KILLED}", *WORDS)
    done = train_cli(workdir, *words, *own_bars(workdir), PYTHONPATH=FAULTS)
    check_sweep(workdir, done)
    assert len(list(workdir.glob("mlruns/hydra/sweeps/*/.submitit/*/*_result.pkl"))) == 2


@needs("submitit")
def test_slurm_is_refused_where_it_cannot_work(train_cli, tmp_path):
    without = train_cli(tmp_path, "-m", "compute=slurm", PATH="/nowhere")
    assert (without.returncode, without.stderr.count("\n")) == (2, 1), without.stderr
    assert "there is no sbatch here" in without.stderr
    sbatch = tmp_path / "sbatch"
    sbatch.touch(mode=0o755)
    sqlite = train_cli(tmp_path, "-m", "compute=slurm", PATH=f"{tmp_path}{os.pathsep}/usr/bin")
    assert (sqlite.returncode, sqlite.stderr.count("\n")) == (2, 1), sqlite.stderr
    assert "jobs on other machines cannot write to a SQLite file" in sqlite.stderr
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("plugin", "preset", "extra"),
    [
        ("ray", "ray", "ray"),
        ("submitit", "slurm", "slurm"),
        ("submitit", "submitit_local", "slurm"),
    ],
)
def test_a_launcher_that_is_not_installed_is_one_line(tmp_path, plugin, preset, extra):
    program = (
        f"import sys; sys.modules['hydra_plugins.hydra_{plugin}_launcher'] = None\n"
        "import pkgutil, warnings; warnings.simplefilter('ignore')\n"
        "from hmm_exp.train import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-m", f"compute={preset}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: compute={preset} needs a plugin: pip install 'hmm_exp[{extra}]'\n"
    )


def test_a_worker_that_does_not_share_the_folder_of_the_sweep_has_its_own(tmp_path):
    settings = Config(sweep_id="20260102-030405-abcd")
    settings.sweep.folder = str(tmp_path / "shared")
    assert SweepCell(settings, 1).folder == tmp_path / "shared"
    settings.sweep.folder = "/proc/none/shared"
    assert SweepCell(settings, 1).folder.name == settings.sweep_id


def test_a_sweep_whose_machines_are_gone_can_be_closed_and_resumed(workdir, monkeypatch):
    monkeypatch.setattr(start, "_ENDS_WITHIN", 0.0)
    store = open_store(TrackingConfig(uri=f"sqlite:///{workdir}/mlflow.db"))
    identity = {tags.SWEEP_ID: "20260102-030405-abcd", tags.OWNER: "elsewhere 12 34"}
    for kind in ("sweep", "cell"):
        store.client.create_run(store.experiment_id, tags=identity | {tags.KIND: kind})
    with pytest.raises(TrackingError, match=r"process 12 on elsewhere; wait .* hmm-sweeps close"):
        start._reopened(store, "20260102-030405-abcd")
    assert len(close_elsewhere(store.client, "20260102-030405-abcd")) == 2
    assert start._reopened(store, "20260102-030405-abcd").info.status == "KILLED"
    assert [run.info.status for run in runs_of(store.client, "sweep")] == ["RUNNING"]
    # and now this process works on it
    with pytest.raises(TrackingError, match=f"still runs: process {os.getpid()} on "):
        close_elsewhere(store.client, "20260102-030405-abcd")
    forget_store()


def test_a_cell_that_was_given_to_another_worker_counts_once(workdir):
    store = open_store(TrackingConfig(uri=f"sqlite:///{workdir}/mlflow.db"))
    settings = Config(sweep_id="20260102-030405-abcd")
    settings.sweep.attempt = 1
    identity = {tags.SWEEP_ID: settings.sweep_id, tags.KIND: "cell", tags.ATTEMPT: "1"}
    for fingerprint, status in (("a", "RUNNING"), ("a", "FINISHED"), ("b", "RUNNING")):
        known = identity | {tags.FINGERPRINT: fingerprint, tags.OWNER: "elsewhere 12 34"}
        run = store.client.create_run(store.experiment_id, tags=known)
        if status == "FINISHED":
            store.client.set_terminated(run.info.run_id)
    finish.close_left(store, str(settings.sweep_id))
    cells = current_cells(sweep_cells(store.client, settings.sweep_id), "1")
    counted = sorted((run.data.tags[tags.FINGERPRINT], run.info.status) for run in cells)
    assert counted == [("a", "FINISHED"), ("b", "KILLED")]
    forget_store()
