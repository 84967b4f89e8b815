"""Cost of a growing SQLite store: recording a run, a sweep's leaderboard, the UI's table.

    python benchmarks/store.py [--sizes 1000,20000] [--runs 40]

One real run is made and recorded again and again, each time between the same copies of it that fill
the store (written by SQL, in sweeps of 1,000 cells). Recording is all that a cell costs beyond its
fit and its figures: writing its files, opening, logging, closing the run. The table is asked of an
MLflow server on loopback as the UI asks, sorted by BIC. Medians of wall and, in brackets, CPU time:
on a busy machine the second says more. The last column is the growth of the CPU time.
"""

import argparse
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path

Times = tuple[float, float]  # wall and CPU, seconds
CELLS = 1_000  # of a sweep
COPY = """
WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last} - 1)
INSERT INTO {table} ({columns}) SELECT {values} FROM {table} CROSS JOIN n WHERE run_uuid = '{run}'
"""


def main() -> None:
    """Fill a store step by step, measure at each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,20000", help="runs in the store")
    parser.add_argument("--runs", type=int, default=40, help="runs to record at each size")
    args = parser.parse_args()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    sizes = [int(size) for size in args.sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        table = measured(Path(folder), sizes, args.runs)
    print(
        f"{'runs in the store':32}" + "".join(f"{size:>22,}" for size in sizes) + f"{'growth':>9}"
    )
    for name, values in table.items():
        cells = "".join(f"{f'{1000 * w:.0f} ({1000 * c:.0f}) ms':>22}" for w, c in values)
        growth = values[-1][1] / max(values[0][1], 1e-9)
        print(f"{name:32}{cells}" + (f"{growth:8.2f}x" if len(values) > 1 else ""))


def measured(folder: Path, sizes: list[int], n_runs: int) -> dict[str, list[Times]]:
    """Median times of each piece at each size."""
    from hmm_exp.store.store import analyse

    record, store, run_id = recorder(folder)
    table: dict[str, list[Times]] = {}
    filled = 0
    for size in sizes:
        fill(folder / "mlflow.db", run_id, filled, size)
        filled = size
        print(f"{size:,} runs in the store", file=sys.stderr, flush=True)
        parts = {"the UI's table before ANALYZE": ui_times(folder, store)}
        parts["ANALYZE at the end of a sweep"] = median_of([timed(lambda: analyse(store))])
        parts["the UI's table, sorted by BIC"] = ui_times(folder, store)
        records = [record() for _ in range(n_runs)]
        for name in records[0]:
            parts[name] = median_of([one[name] for one in records])
        parts["leaderboard of 1,000 cells"] = median_of(
            [timed(lambda: print_leaderboard(store)) for _ in range(3)]
        )
        for name, times in parts.items():
            table.setdefault(name, []).append(times)
    return table


def timed(action) -> Times:
    """Wall and CPU seconds of an action in this process."""
    started = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def median_of(times: list[Times]) -> Times:
    """Median wall and median CPU seconds."""
    wall, cpu = zip(*times, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def recorder(folder: Path):
    """Make one run; give what records it anew, the store, and the id of its first record."""
    from hmm_exp.config import Config, DataConfig, ModelConfig, TrackingConfig
    from hmm_exp.experiment.prepare import prepare
    from hmm_exp.experiment.run import run
    from hmm_exp.store.store import open_store
    from hmm_exp.sweep.garbage import collect_seldom
    from hmm_exp.tracking.bundle import Bundle, data_identity, identity
    from hmm_exp.tracking.pack import write_bundle
    from hmm_exp.tracking.record import finish_run, start_run

    settings = Config(
        data=DataConfig(n_bars=2000, name="synthetic", bar_stamp="open"),
        model=ModelConfig(n_init=1, n_states=3),
        tracking=TrackingConfig(figures=False),
        sweep_id="mine",
    )
    prepared = prepare(settings)
    result = run(prepared)
    store = open_store(settings.tracking)
    known = identity(settings) | data_identity(prepared)
    last = ""

    def open_run() -> None:
        nonlocal last
        last = start_run(store, settings, known)

    def finish() -> None:
        finish_run(store, last, bundle := Bundle.read(folder / "bundle"), known)
        bundle.remove()

    def record() -> dict[str, Times]:
        parts = {
            "  writing its files": timed(lambda: write_bundle(result, folder / "bundle")),
            "  opening it": timed(open_run),
            "  logging and closing it": timed(finish),
        }
        wall, cpu = zip(*parts.values(), strict=True)
        return {"recording a run": (sum(wall), sum(cpu))} | parts

    record()  # imports
    collect_seldom()  # as the process of a sweep that records
    return record, store, last


def fill(database: Path, run_id: str, first: int, last: int) -> None:
    """Copy a run under new ids and other metrics, 1,000 to a sweep."""
    new_id = "printf('%032x', n.i + 1)"
    with closing(sqlite3.connect(database)) as connection, connection:
        for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
            info = connection.execute(f"PRAGMA table_info({table})")
            columns = [row[1] for row in info]
            changed = {"run_uuid": new_id, "start_time": "start_time + n.i"}
            if table == "tags":
                changed["value"] = f"CASE key WHEN 'sweep_id' THEN 's' || (n.i / {CELLS}) "
                changed["value"] += "WHEN 'fingerprint' THEN value || n.i ELSE value END"
            elif table in ("metrics", "latest_metrics"):
                changed["value"] = "value * (1 + (n.i * 7919 % 10007) / 1e5)"
            values = ", ".join(changed.get(column, column) for column in columns)
            connection.execute(
                COPY.format(
                    first=first,
                    last=last,
                    table=table,
                    columns=", ".join(columns),
                    values=values,
                    run=run_id,
                )
            )


def print_leaderboard(store) -> None:
    """Read a sweep of 1,000 cells from the store, and lay out its table."""
    from hmm_exp.sweep import terminal
    from hmm_exp.sweep.leaderboard import leaderboard
    from hmm_exp.tracking.runs import sweep_cells

    cells = sweep_cells(store.client, "s0")
    assert len(cells) == CELLS
    terminal.leaderboard_table(leaderboard(cells))


def ui_times(folder: Path, store) -> Times:
    """What the server takes for the first page of all cells of the store, sorted by BIC."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", store.uri]
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    question = {
        "experiment_ids": [store.experiment_id],
        "filter": "tags.kind = 'cell'",
        "order_by": ["metrics.`bic` ASC"],
        "max_results": 100,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/runs/search",
        json.dumps(question).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        times = []
        for _ in range(4):
            started = time.perf_counter(), cpu_of(server.pid)
            with urllib.request.urlopen(request, timeout=300) as answer:
                assert len(json.load(answer)["runs"]) == 100
            times.append((time.perf_counter() - started[0], cpu_of(server.pid) - started[1]))
        return median_of(times[1:])
    finally:
        server.terminate()
        server.wait()


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of those below it, by Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_of(int(child)) for child in below)


def wait_for(url: str) -> None:
    """Return when the server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"{url} does not answer")


if __name__ == "__main__":
    main()
