"""Fixtures shared by all tests."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import hydra
import pytest
from hypothesis import settings
from mlflow.tracking import MlflowClient

from hmm_exp.config import Config, DataConfig, ModelConfig
from tests.warm import Fork, Warm, environment_of_a_user

ROOT = Path(__file__).resolve().parents[1]
# Hydra 1.3 composes by its older defaults without it, and 1.4 warns of it.
OF_HYDRA = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background job
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests start must hear it

for name in ("NO_COLOR", "FORCE_COLOR"):  # what tests compare has no colours
    os.environ.pop(name, None)

# Every run tries the same examples; `pytest --hypothesis-profile=default` looks for others.
settings.register_profile("same_examples", derandomize=True, deadline=None)
settings.load_profile("same_examples")


LONGEST = (
    *("sweep", "panel_resume", "sweep_stopping", "readme", "server_server", "sweep_plan"),
    *("tracking_ui", "train_cli", "sweep_search", "report", "report_page", "report_panel_page"),
)
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than cores: a third of the time tests wait for processes and servers."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with end-to-end tests first, so that no process is left alone with a long one."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    first = {f"test_{name}.py": -1000 + place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path.name, -slow[item.path]))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real market data that lies beside the project, where there is one."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real market data is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A SQLite store with its tables and nothing in them: making one takes MLflow seconds."""
    path = tmp_path_factory.mktemp("empty_store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def workdir(tmp_path, empty_store) -> Path:
    """A folder with an empty store, as a first run would leave it."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture(scope="module")
def store(tmp_path_factory, empty_store):
    """One store for a test file, which MLflow forgets afterwards."""
    from tests.small_detector import forget_store, store_in  # most files do without its imports

    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    yield store_in(folder)
    forget_store()


@pytest.fixture
def small_config() -> Config:
    """A run that takes a fraction of a second: 3,000 synthetic hours, two starts."""
    return Config(
        data=DataConfig(n_bars=3000, name="synthetic", bar_stamp="open"),
        model=replace(ModelConfig(), n_init=2, n_states=3),
    )


@pytest.fixture
def bars_csv(small_config, tmp_path):
    """The small synthetic market as a user's file."""
    from hmm_exp.experiment.prepare import prepare  # most files do without its imports

    frame = prepare(small_config).source.bars.frame
    path = tmp_path / "bars.csv"
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def warm():
    """A process that forks for each start of the command, its imports loaded."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="session")
def train_cli(warm):
    """Run `python -m hmm_exp.train` with words in a folder, as a user does.

    The first start of a test process is a fresh interpreter; the others are forks of one that has
    its imports loaded.
    """
    started = []

    def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        if started:
            return warm.run(folder, *words, **environment)
        started.append(words)
        return subprocess.run(
            [sys.executable, "-m", "hmm_exp.train", *words],
            cwd=folder,
            env=environment_of_a_user(**environment),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


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


@pytest.fixture(scope="session")
def reported_sweep(
    tmp_path_factory, empty_store, train_cli
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Two cells that finish and two whose window is longer than their data."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copy(empty_store, folder / "mlflow.db")
    words = ("model.n_states=2,3", "features.window=20,2400", "data.n_bars=2500", "gate=off")
    small = ("model.n_init=1", "tracking.figures=false")
    done = train_cli(folder, "-m", *words, *small)
    assert done.returncode == 1, done.stderr
    return folder, done


@pytest.fixture(scope="module")
def browser():
    """A Chromium of this machine, for a test file."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install '.[dev]'")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=list(QUIET))
        yield chromium
        chromium.close()
