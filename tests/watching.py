"""What tests see of a sweep from outside: its runs, its processes, its store."""

import time
from contextlib import suppress
from pathlib import Path

from mlflow.tracking import MlflowClient

from hmm_exp.tracking import tags
from tests.test_train_cli import runs_of, store_of


def launched(launcher: str) -> tuple[str, ...]:
    return ("compute=joblib", "compute.workers=2") if launcher == "joblib" else ()


def finished(client: MlflowClient) -> list:
    return [run for run in runs_of(client, "cell") if run.info.status == "FINISHED"]


def sweep_id_of(client: MlflowClient) -> str:
    return runs_of(client, "sweep")[0].data.tags[tags.SWEEP_ID]


def processes_in(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            found += [int(place.parent.name)] if place.readlink() == folder else []
    return found


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
