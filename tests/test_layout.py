"""The rooms of the package import downwards only, and the light path stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hmm_exp"
FLOORS = [
    {"errors", "version", "owner"},
    {"compiling", "files", "parallel", "interrupts", "output"},
    {"config", "stored"},
    {"hmm", "market"},
    {"features", "store", "uncertainty"},
    {"detector"},
    {"judge", "serving", "command_line"},
    {"figures", "monitor", "backtest"},
    {"experiment"},
    {"tracking"},
    {"registry", "server"},
    {"sweep"},
    {"panel"},
    {"commands", "causality", "report"},
    {"callback"},
    {"train"},
]
LIBRARIES_THAT_DRAW = "matplotlib.figure bokeh.models bokeh.plotting sklearn scipy.stats"
MOST_LINES, LARGEST_SHARE = 450, 0.18
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# What a function of a module imports from above its room when it is called, and no module at once.
LATE = {"detector/detector.py": {"hmm_exp.figures.timeline.regimes"}}  # `Detector.plot`
# What a room may not know, whatever it would use it for.
FORBIDDEN = {
    "hmm": {"pandas", "hydra", "mlflow"},
    "uncertainty": {"pandas", "hydra", "mlflow"},
    "market": {"hydra", "mlflow", "hmmlearn"},
    "features": {"hydra", "mlflow", "hmmlearn"},
    "detector": {"hydra", "mlflow"},
    "judge": {"hydra", "mlflow"},
    "figures": {"hydra", "mlflow"},
    "monitor": {"hydra", "mlflow"},
    "backtest": {"hydra", "mlflow"},
    "experiment": {"hydra", "mlflow"},
}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, at_once: bool = False) -> set[str]:
    """What a module imports, in its functions too or `at_once` alone."""
    names, tree = set(), ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_a_room_imports_only_from_rooms_below():
    wrong = []
    for path in modules():
        room, late = room_of(path), LATE.get(path.relative_to(PACKAGE).as_posix(), set())
        assert late <= imported(path) - imported(path, at_once=True)
        for name in imported(path) - late:
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            is_above = top == "hmm_exp" and other in FLOOR and FLOOR[other] >= FLOOR[room]
            if top in FORBIDDEN.get(room, set()) or (is_above and other != room):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_room_has_a_floor_and_none_is_a_fifth_of_the_package():
    lines: dict[str, int] = {}
    for path in modules():
        count = len(path.read_text().splitlines())
        lines[room_of(path)] = lines.get(room_of(path), 0) + count
        assert count <= MOST_LINES, f"{path.relative_to(PACKAGE)} has {count} lines"
    assert set(lines) == set(FLOOR)
    largest = max(lines, key=lines.__getitem__)
    assert lines[largest] < LARGEST_SHARE * sum(lines.values()), largest


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("hmm_exp.train", "mlflow sklearn numba matplotlib pandas numpy"),  # `--help` and typos
        # A sweep's child draws the figures and charts of its end.
        ("hmm_exp.report.log, hmm_exp.report.page, hmm_exp.sweep.finish", LIBRARIES_THAT_DRAW),
    ],
)
def test_some_modules_import_nothing_heavy(module, heavy):
    program = (
        f"import sys, {module}\n"
        f"loaded = [name for name in '{heavy}'.split() if name in sys.modules]\n"
        "sys.exit(', '.join(loaded) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
