"""A panel of many synthetic symbols: seconds by stage, memory, leaderboard, page, store, --latest.

    python -m benchmarks.panel [--symbols 500] [--bars 28000] [--workers 2]    # the panel
    python -m benchmarks.panel --ray [--symbols 24]           # two Ray workers over one instead

The panel has four cells a symbol (features=v1,range model.n_states=2,3) and runs as one command by
joblib. Seconds of a fit and of a winner's figures are those on record; `the rest` is what the
workers spend beside them: reading, features, judging, recording. Memory is sampled twice a second:
of the main process, of the largest worker and of the largest process that fits.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.many_cells import launched, resident
from benchmarks.panel_chaos import below, command, make_lake, runs_of

DATA = ["data=panel", "data.path=lake/*.parquet", "data.bar_stamp=open"]
WORDS = [*DATA, "features=v1,range", "model.n_states=2,3"]
MARKS = {"fitting process": "hmm_exp.sweep.worker", "worker": "loky"}
N_FIRST = 50  # runs whose recording time stands for an empty store, and for a full one
IN_RAY = 24
APPLY = "import sys; from hmm_exp.commands.apply import main; sys.exit(main())"
READ = """
import sys, time
from mlflow.tracking import MlflowClient
from pathlib import Path
from hmm_exp.config import GateConfig
from hmm_exp.panel.finish import FinishedPanel
from hmm_exp.tracking.runs import latest_sweep_id, sweep_parent
client = MlflowClient(sys.argv[1])
name = latest_sweep_id(client)
parent = sweep_parent(client, name)
began = time.perf_counter()
read = FinishedPanel.recorded(client, parent, sys.argv[1], GateConfig(), "hmm_regime")
read.table({}, {})
read.write_leaderboard(Path("leaderboard.csv"))
print("leaderboard", time.perf_counter() - began)
from hmm_exp.report.log import read_sweep, write_report
began = time.perf_counter()
write_report(read_sweep(client, name), Path("made.html"))
print("page", time.perf_counter() - began)
"""


def main() -> None:
    """Run the panel, or the comparison of Ray workers, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int)
    parser.add_argument("--bars", type=int, default=28_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ray", action="store_true", help="two Ray workers over one")
    args = parser.parse_args()
    n_symbols = args.symbols or (IN_RAY if args.ray else 500)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_lake(folder / "lake", n_symbols, args.bars)
        print(f"{n_symbols} symbols of {args.bars:,} bars, 4 cells each", flush=True)
        if args.ray:
            by_ray(folder)
        else:
            by_joblib(folder, args.workers)


def by_joblib(folder: Path, workers: int) -> None:
    """Run the panel by joblib and print where its time and memory went."""
    words = [*WORDS, "compute=joblib", f"compute.workers={workers}"]
    wall, memory = watched(folder, words)
    runs = runs_of(folder)
    cells = [run for run in runs if run.data.tags["kind"] == "cell"]
    symbols = [run for run in runs if run.data.tags["kind"] == "symbol"]
    print((folder / "output.txt").read_text()[-2500:])
    during = span(symbols)
    print(f"wall {wall:.0f} s, of which {during:.0f} s from the first symbol to the last one's end")
    fits = total(cells, "seconds_fit")
    figures = total(symbols, "seconds_plots")
    rest = workers * during - fits - figures
    for text, seconds, n, unit in (
        ("fits", fits, len(cells), "cell"),
        ("figures of the winners", figures, len(symbols), "symbol"),
        ("the rest, of all workers", rest, len(cells), "cell"),
        ("the rest, on the clock", rest / workers, len(cells), "cell"),
        ("start and end of the panel", wall - during, len(cells), "cell"),
    ):
        print(f"  {text:28}{seconds:8.0f} s, {seconds / max(n, 1):.3f} s a {unit}")
    for stage in ("features", "evaluate", "track"):
        mean = total(cells, f"seconds_{stage}") / len(cells)
        print(f"    of the rest: {stage:15}{mean:8.3f} s a cell")
    for process, sizes in memory.items():
        tenth = sizes[len(sizes) // 10]
        print(f"  memory of the {process}: peak {max(sizes):.0f} MB, {tenth:.0f} MB after a tenth")
    print_recording(cells)
    print_end(folder)


def watched(folder: Path, words: list[str]) -> tuple[float, dict[str, list[float]]]:
    """Run a panel; its wall time, and memory of its kinds of processes over time, MB."""
    began, memory = time.perf_counter(), defaultdict(list)
    with launched(folder, words) as process:
        while process.poll() is None:
            time.sleep(0.5)
            sizes = {"main process": memory_of(process.pid)}
            for pid in below(process.pid):
                for kind, mark in MARKS.items():
                    if mark in command(pid):
                        sizes[kind] = max(sizes.get(kind, 0.0), memory_of(pid))
            for kind, size in sizes.items():
                memory[kind] += [size] if size else []
    if process.returncode not in (0, 1):
        sys.exit((folder / "output.txt").read_text())
    return time.perf_counter() - began, memory


def memory_of(pid: int) -> float:
    """Memory of a process in MB; 0 when it has ended."""
    try:
        return resident(pid)
    except OSError:
        return 0.0


def span(runs: list) -> float:
    """Seconds from the first start to the last end of runs."""
    ends = [run.info.end_time for run in runs if run.info.end_time]
    return (max(ends) - min(run.info.start_time for run in runs)) / 1000


def total(runs: list, metric: str) -> float:
    """Sum of a metric over runs."""
    return sum(run.data.metrics.get(metric, 0.0) for run in runs)


def print_recording(cells: list) -> None:
    """Print how long recording takes in an empty store and in the full one."""
    ended = sorted((run for run in cells if run.info.end_time), key=lambda run: run.info.end_time)
    seconds = [
        run.data.metrics["seconds_track"] for run in ended if "seconds_track" in run.data.metrics
    ]
    n = min(N_FIRST, len(seconds) // 2)
    first, last = statistics.median(seconds[:n]), statistics.median(seconds[-n:])
    print(
        f"  recording a cell: {first:.3f} s in the first {n}, {last:.3f} s in the last {n} of "
        f"{len(seconds):,}: {last / first:.2f} times"
    )


def print_end(folder: Path) -> None:
    """Time the leaderboard, the page and the regimes of today, each in a process of its own."""
    python(folder, "-c", READ, f"sqlite:///{folder}/mlflow.db")
    page = folder / "made.html"
    if page.exists():
        print(f"  page: {page.stat().st_size / 1e6:.1f} MB")
    models = "models:/hmm_regime.*/Production"
    words = ["--model", models, "--bars", "lake/*.parquet", "--bar-stamp", "open", "--latest"]
    began = time.perf_counter()
    said = python(folder, "-c", APPLY, *words, shown=False)
    print(f"  hmm-apply --latest: {time.perf_counter() - began:.1f} s, {said.count(chr(10))} lines")


def by_ray(folder: Path) -> None:
    """Run the panel by one Ray worker and by two, one thread each."""
    walls = {}
    for workers in (1, 2):
        place = folder / str(workers)
        place.mkdir()
        (place / "lake").symlink_to(folder / "lake")
        words = [*WORDS, "compute=ray", f"+hydra.launcher.ray.init.num_cpus={workers}"]
        watched(place, [*words, "tracking.report=false"])
        symbols = [run for run in runs_of(place) if run.data.tags["kind"] == "symbol"]
        walls[workers] = span(symbols)
        print(f"  {workers} workers: {walls[workers]:.1f} s of symbols", flush=True)
    print(f"  one over two: {walls[1] / walls[2]:.2f}")


def python(folder: Path, *words: str, shown: bool = True) -> str:
    """Run Python in a folder, print what it prints, and give it."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    print(done.stdout if shown else "", done.stderr[-2000:], sep="", end="", flush=True)
    return done.stdout


if __name__ == "__main__":
    main()
