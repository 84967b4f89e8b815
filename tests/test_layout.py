"""The rooms of the package import downwards only, and the light path stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hmm_exp"
FLOORS = [
    {"errors", "version", "compiling", "owner"},
    {"files", "parallel"},
    {"config", "stored"},
    {"hmm", "market"},
    {"features", "store"},
    {"detector"},
    {"judge", "serving", "command_line"},
    {"figures", "monitor"},
    {"experiment"},
    {"tracking"},
    {"registry", "server"},
    {"sweep"},
    {"commands", "causality", "report"},
    {"callback"},
    {"train"},
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# What a room may not know, whatever it would use it for.
FORBIDDEN = {
    "hmm": {"pandas", "hydra", "mlflow"},
    "market": {"hydra", "mlflow", "hmmlearn"},
    "features": {"hydra", "mlflow", "hmmlearn"},
    "detector": {"hydra", "mlflow"},
    "judge": {"hydra", "mlflow"},
    "figures": {"hydra", "mlflow"},
    "monitor": {"hydra", "mlflow"},
    "experiment": {"hydra", "mlflow"},
}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_below(path):
    room = room_of(path)
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in FORBIDDEN.get(room, set()), f"{room} must not know {name}"
        if parts[0] == "hmm_exp" and len(parts) > 1 and parts[1] in FLOOR and parts[1] != room:
            assert FLOOR[parts[1]] < FLOOR[room], f"{path} imports {name} from above"


def test_help_imports_nothing_heavy():
    heavy = "mlflow sklearn numba matplotlib pandas"
    program = (
        "import sys, hmm_exp.train\n"
        f"loaded = [name for name in '{heavy}'.split() if name in sys.modules]\n"
        "sys.exit(', '.join(loaded) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
