"""From the shell to the first line of a sweep, and from its last line to the shell.

    python -m benchmarks.start [--pairs 5]

In pairs with `python -c "import mlflow, pandas, numba"`, one after the other: the wall time until
the line "sweep ...: 4 cells", and the CPU time of the command and its child process until then.
Asked: at most 1.6 times that of the imports; at most 0.2 s from the last line to the end of the
process.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.many_cells import cpu_seconds

IMPORTS = [sys.executable, "-c", "import mlflow, pandas, numba"]
SWEEP = [sys.executable, "-m", "hmm_exp.train", "-m", "model.n_states=2,3", "features=v1,v2"]
SMALL = ["model.n_init=1", "tracking.figures=false"]


def main() -> None:
    """Measure the pairs and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    n_pairs = parser.parse_args().pairs
    sweep_times()  # compiles
    walls, cpus, leaves = [], [], []
    for _ in range(n_pairs):
        wall, cpu = imports_times()
        first, spent, leave = sweep_times()
        walls.append(first / wall)
        cpus.append(spent / cpu)
        leaves.append(leave)
        print(
            f"imports {wall:.2f} s, {cpu:.2f} s of CPU; first line {first:.2f} s, {spent:.2f} s of "
            f"CPU: {walls[-1]:.2f}, {cpus[-1]:.2f}; leaving {leave:.3f} s",
            flush=True,
        )
    print(
        f"median: first line over imports {statistics.median(walls):.2f}, of CPU "
        f"{statistics.median(cpus):.2f}; leaving {statistics.median(leaves):.3f} s"
    )


def imports_times() -> tuple[float, float]:
    """Wall and CPU seconds of the imports."""
    began, before = time.perf_counter(), children_seconds()
    subprocess.run(IMPORTS, check=True)
    return time.perf_counter() - began, children_seconds() - before


def children_seconds() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sweep_times() -> tuple[float, float, float]:
    """Wall and CPU seconds until the first line, wall seconds from the last line to the end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*SWEEP, *SMALL]
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        began, first, cpu = time.perf_counter(), 0.0, 0.0
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                last = time.perf_counter()
                if line.startswith("sweep ") and not first:
                    first, cpu = last - began, cpu_seconds(process.pid) + of_children(process.pid)
            process.wait()
            ended = time.perf_counter()
        if process.returncode or not first:
            sys.exit(f"{' '.join(command)} ended with exit status {process.returncode}")
    return first, cpu, ended - last


def of_children(pid: int) -> float:
    """CPU seconds of the living children of a process, by Linux."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(cpu_seconds(int(child)) for child in children)


if __name__ == "__main__":
    main()
