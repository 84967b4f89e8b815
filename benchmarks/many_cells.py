"""A sweep of many small cells: seconds per cell and stage, memory; and two workers against one.

    python -m benchmarks.many_cells [--cells 1000] [--pairs 2]

First one serial sweep of small fits (2,000 bars, 2 to 5 states, one start, no figures). The cost
of a cell comes from its own record, the CPU time of both processes, and the time between records.
Then, `--pairs` times in turn, six cells of about five seconds with one thread each, by one joblib
worker and by two. The start and the end of the sweeps are reported separately.
"""

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.chaos import launched

SMALL = ["data.n_bars=2000", "model.n_init=1", "tracking.figures=false", "promote=false"]
LONG = ["data.n_bars=43800", "model.n_init=150", "model.n_states=5", "tracking.figures=false"]
N_LONG = 6


def main() -> None:
    """Run both parts and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cells", type=int, default=1000, help="of the first part; 0: leave it out"
    )
    parser.add_argument("--pairs", type=int, default=2, help="of the second part")
    args = parser.parse_args()
    if args.cells:
        many(args.cells)
    if args.pairs:
        side_by_side(args.pairs)


def many(n_cells: int) -> None:
    """Run the sweep of small cells, and say where its time went."""
    words = ["model.n_states=2,3,4,5", f"model.random_state=range({n_cells // 4})"]
    with tempfile.TemporaryDirectory() as folder:
        wall, memory, cpu = watched(Path(folder), [*words, *SMALL])
        runs = records(Path(folder))
    starts = sorted(run.info.start_time / 1000 for run in runs)
    cells = (starts[-1] - starts[0]) / (len(starts) - 1)
    print(f"{len(runs)} cells in {wall:.0f} s: {wall / len(runs):.3f} s a cell in all")
    print(f"  from cell to cell            {cells:.3f} s")
    inside = 0.0
    for name in sorted(name for name in runs[0].data.metrics if name.startswith("seconds_")):
        mean = statistics.mean(run.data.metrics.get(name, 0.0) for run in runs)
        inside += mean
        print(f"    {name:27}{mean:.3f} s")
    print(f"    composing, launching, rest {cells - inside:.3f} s")
    print(f"  start and end of the sweep   {wall - cells * len(runs):.1f} s")
    for name, seconds in cpu.items():
        print(f"  CPU of {name:22}{seconds / len(runs):.3f} s a cell")
    during = [size for moment, size in memory if starts[len(starts) // 10] < moment < starts[-1]]
    print(f"  memory of the main process   {during[0]:.0f} MB after a tenth of the cells, ", end="")
    print(f"{during[-1]:.0f} MB at the last one")


def watched(folder: Path, words: list[str]) -> tuple[float, list, dict[str, float]]:
    """Run a sweep; its wall time, the main process's memory (moment, MB), and CPU seconds."""
    started, memory, cpu = time.perf_counter(), [], {}
    with launched(folder, words) as process:
        while process.poll() is None:
            time.sleep(0.5)
            try:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                cpu["the main process"] = cpu_seconds(process.pid)
                for child in children.split()[:1]:
                    cpu["the fitting process"] = cpu_seconds(int(child))
                memory.append((time.time(), resident(process.pid)))
            except OSError:  # it has just ended
                continue
    if process.returncode:
        sys.exit((folder / "output.txt").read_text())
    return time.perf_counter() - started, memory, cpu


def side_by_side(n_pairs: int) -> None:
    """Time the same sweep with one worker and with two."""
    print(f"{N_LONG} cells by joblib, one thread each, one after the other in pairs")
    ratios = []
    for _ in range(n_pairs):
        walls = {}
        for workers in (1, 2):
            seeds = ",".join(map(str, range(N_LONG)))
            words = ["compute=joblib", f"compute.workers={workers}", "compute.threads=1"]
            words += [f"model.random_state={seeds}", "promote=false", *LONG]
            with tempfile.TemporaryDirectory() as folder:
                with launched(Path(folder), words) as process:
                    pass
                if process.returncode:
                    sys.exit((Path(folder) / "output.txt").read_text())
                runs = records(Path(folder))
            first = min(run.info.start_time for run in runs)
            walls[workers] = (max(run.info.end_time for run in runs) - first) / 1000
            fit = statistics.mean(run.data.metrics["seconds_fit"] for run in runs)
            print(
                f"  {workers} workers {walls[workers]:6.1f} s, {fit:.1f} s of fit a cell",
                flush=True,
            )
        ratios.append(walls[1] / walls[2])
    print(f"  one against two: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


def records(folder: Path) -> list:
    """Finished cells of the one sweep in a folder's store."""
    from mlflow.tracking import MlflowClient

    from hmm_exp.tracking.runs import latest_sweep_id, sweep_cells

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    cells = sweep_cells(client, latest_sweep_id(client))
    return [run for run in cells if run.info.status == "FINISHED"]


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, by Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Memory of a process in MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    main()
