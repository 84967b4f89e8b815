"""Every command of the README works as it stands, in its order, in one folder."""

import ast
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from hmm_exp.market.synthetic import make_market
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
FAST = (
    *("data.n_bars=6000", "model.n_init=1"),
    *("tracking.figures=false", "tracking.report=false"),
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(blocks("bash")).splitlines()
    return [line.split("#")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder: their bars, the project's scripts, Makefile and what it reads."""
    folder = tmp_path_factory.mktemp("user")
    frame = make_market(n_bars=6000).frame
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(
        folder / "bars.csv", index=False
    )
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
    """The command with a smaller synthetic market and fewer starts: minutes become seconds."""
    words = shlex.split(command)
    if "hmm_exp.train" not in words:
        return words  # a script
    own_bars = any(word.startswith(("data=", "experiment=")) for word in words)
    return words + list(FAST[1:] if own_bars else FAST)


def test_the_readme_has_the_commands_that_this_test_knows():
    known = ("make sweep", "make test", "mlflow ui")
    others = ("python -m hmm_exp.", "python scripts/", "cat bars.csv | python scripts/")
    for command in commands():
        assert command in known or command.startswith(others), command


def test_make_sweep_is_the_readme_sweep(folder):
    """`make test` is what runs this; `make sweep` is run in the environment of this test."""
    stamp = Path(sys.prefix) / "run.stamp"
    fresh = not stamp.exists()
    stamp.touch()
    try:
        sweep = "model.n_states=2,3,4,5 features=v1,v2 " + " ".join(FAST)
        done = run(folder, ["make", "sweep", f"VENV={sys.prefix}", f"SWEEP={sweep}"])
        said = run(folder, ["make", "-n", "sweep", f"VENV={sys.prefix}"]).stdout
    finally:
        if fresh:
            stamp.unlink()
    assert "-m hmm_exp.train -m model.n_states=2,3,4,5 features=v1,v2" in said
    assert "promoted: models:/hmm_regime/Production is version 1" in done.stdout


@pytest.mark.slow
def test_every_training_and_script_command_runs(folder):
    ran = [command for command in commands() if "python " in command]
    for command in ran:
        run(folder, ["bash", "-c", command] if "|" in command else shortened(command))
    assert len(ran) >= 10


@pytest.mark.slow
def test_the_python_blocks_run_after_the_sweep(folder):
    if not (folder / "mlflow.db").exists():
        run(folder, shortened("python -m hmm_exp.train -m features=v1,v2"))
    program = "\n".join(blocks("python"))
    done = run(folder, [sys.executable, "-W", "ignore", "-c", program])
    assert "p_state_0" in done.stdout
    assert "label" in done.stdout


@pytest.mark.slow
def test_mlflow_ui_serves_the_folder(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        env=environment(),
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


def tree() -> str:
    """The README's tree, made from the first line of every module's docstring."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    folders = ["conf", "hmm_exp", "scripts", "benchmarks"]
    files = subprocess.run(
        [*listed, *folders], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    groups: dict[str, list[str]] = {}
    for name in sorted(files):
        path = Path(name)
        if path.suffix == ".py" and (path.name != "__init__.py" or len(path.parts) == 2):
            groups.setdefault(str(path.parent), []).append(f"  {path.name:<18} {summary(path)}")
    conf = sorted({Path(name).parts[1] for name in files if name.startswith("conf/")})
    choices = ", ".join(name for name in conf if "." not in name and name != "hydra")
    lines = [f"conf/                one folder per group: {choices}"]
    for folder, entries in sorted(groups.items(), key=lambda item: (item[0] != "hmm_exp", item[0])):
        lines += [f"{folder}/", *entries]
    lines.append("tests/               one file per module; reference.py holds slow twins")
    return "\n".join(lines)


def summary(path: Path) -> str:
    """First sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse((ROOT / path).read_text())) or ""
    return text.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def test_the_tree_is_that_of_the_checkout():
    """To renew it, print `tests.test_readme.tree()`."""
    assert tree() in README
