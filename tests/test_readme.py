"""Every command of the README and of the manual runs as written, in order, in one folder."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from hmm_exp.market.synthetic import make_market
from tests.conftest import ROOT
from tests.test_layout import FLOOR

README = (ROOT / "README.md").read_text()
ELSEWHERE = ["cluster", "team-server"]  # need other machines; other tests cover their contents
if find_spec("optuna") is None:  # the extra
    ELSEWHERE.append("search")
PAGES = [page for page in sorted(ROOT.glob("docs/*/*.md")) if page.stem not in ELSEWHERE]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
MANUAL = {page.stem: page.read_text() for page in PAGES}
END = "the README ends here"
FAST = (
    *("data.n_bars=3000", "model.n_init=1"),
    *("tracking.figures=false", "tracking.report=false"),
)


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Commands of the README, then those of the manual."""
    text = "\n".join(["".join(blocks("bash", page)) for page in (README, *MANUAL.values())])
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder: bars, a lake, the project's scripts, the Makefile and what it reads."""
    folder = tmp_path_factory.mktemp("user")
    frame = make_market(n_bars=3000).frame
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(
        folder / "bars.csv", index=False
    )
    (folder / "lake").mkdir()
    for seed, symbol in enumerate(("BTC", "ETH")):
        make_market(n_bars=3000, seed=seed).frame.to_parquet(folder / "lake" / f"{symbol}.parquet")
    for name in ("scripts", "Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def environment() -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "MAKE"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    return clean | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}


def run(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done


def shortened(command: str) -> list[str]:
    """The command with a smaller synthetic market and fewer starts, which takes seconds."""
    words = shlex.split(command)
    if "hmm_exp.train" not in words:
        return words  # another command
    own_bars = any(word.startswith(("data=", "experiment=")) for word in words)
    return words + list(FAST[1:] if own_bars else FAST)


def test_readme_and_manual_have_the_commands_that_this_test_knows():
    known = ("make sweep", "make test", "mlflow ui")
    others = ("python -m hmm_exp.", "hmm-", "cat bars.csv | hmm-")
    for command in commands():
        assert command in known or command.startswith(others), command


def test_make_sweep_is_the_readme_sweep(folder):
    """`make sweep` runs in the environment of this test."""
    stamp = Path(sys.prefix) / "run.stamp"
    fresh = not stamp.exists()
    stamp.touch()
    try:
        sweep = "model.n_states=2,3,4,5 features=v1,v2 " + " ".join(FAST)
        done = run(folder, ["make", "sweep", f"VENV={sys.prefix}", f"SWEEP={sweep}"])
        shown = run(folder, ["make", "-n", "sweep", f"VENV={sys.prefix}"]).stdout
    finally:
        if fresh:
            stamp.unlink()
    assert "-m hmm_exp.train -m model.n_states=2,3,4,5 features=v1,v2" in shown
    assert "promoted: models:/hmm_regime/Production is version 1" in done.stdout


@pytest.mark.slow
def test_every_command_but_make_and_the_ui_runs(folder, warm):
    ran = [command for command in commands() if command.split()[0] not in ("make", "mlflow")]
    if (folder / "mlflow.db").exists():  # `make sweep` has run it
        ran.remove("python -m hmm_exp.train -m model.n_states=2,3,4,5 features=v1,v2")
    for command in ran:
        if "|" in command:  # it and `make sweep` start fresh interpreters
            run(folder, ["bash", "-c", command])
        else:
            module, words = entry(shortened(command))
            done = warm.run(folder, *words, module=module)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert len(ran) >= 13


def entry(words: list[str]) -> tuple[str, list[str]]:
    """What a command starts: a module, or the function of an installed script, and its words."""
    if words[:2] == ["python", "-m"]:
        return words[2], words[3:]
    assert (Path(sys.executable).parent / words[0]).exists()
    return SCRIPTS[words[0]], words[1:]


@pytest.mark.slow
def test_the_python_blocks_run_after_the_sweep(folder):
    if not (folder / "mlflow.db").exists():
        run(folder, shortened("python -m hmm_exp.train -m features=v1,v2"))
    pages = ["".join(blocks("python", text)) for text in MANUAL.values()]
    programs = ["\n".join(blocks("python")), f"print({END!r})", *filter(None, pages)]
    program = "\n".join(f"exec({text!r}, {{}})" for text in programs)
    done = run(folder, [sys.executable, "-W", "ignore", "-c", program])
    printed = done.stdout.partition(END)[0]
    assert "p_state_0" in printed
    assert "label" in printed


@pytest.mark.slow
def test_the_notebook_runs_after_the_sweep(folder):
    if not (folder / "mlflow.db").exists():
        run(folder, shortened("python -m hmm_exp.train -m features=v1,v2"))
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "quickstart.ipynb", as_version=4)
    committed = [cell.get("outputs", []) for cell in notebook.cells]
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute(env=environment())
    made = [cell.get("outputs", []) for cell in notebook.cells]
    for before, now in zip(committed, made, strict=True):
        # What is printed comes in one piece or in several.
        kinds = [
            [kind for kind, _ in groupby(map(_kind, outs)) if kind != "stderr"]
            for outs in (before, now)
        ]
        assert kinds[0] == kinds[1], "renew the outputs with make gallery"


def _kind(output: dict) -> str:
    data = output.get("data", {output.get("name", ""): None})
    return next(
        (kind for kind in ("image/png", "text/html") if kind in data), str(next(iter(data)))
    )


@pytest.mark.slow
def test_mlflow_ui_serves_the_folder(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        env=environment() | {"MLFLOW_WORKERS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert _answers(f"http://127.0.0.1:{port}/health", within=120)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _answers(url: str, within: float) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            time.sleep(0.5)
    return False


def test_the_readme_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


def test_the_table_has_every_room_of_the_package_from_the_bottom_floor_to_the_top():
    rooms = re.findall(r"^\| `(\w+)` \| \S.* \|$", README, flags=re.MULTILINE)
    package = {path.stem for path in (ROOT / "hmm_exp").glob("[!_.]*") if path.stem != "py"}
    assert sorted(rooms) == sorted(package)
    assert [FLOOR[room] for room in rooms] == sorted(FLOOR.values())
