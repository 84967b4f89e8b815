"""Cost of a report: seconds to make, bytes, and time until a browser shows it.

    python benchmarks/report.py --bars bars.csv

One sweep of 100 cells on the file (one start each), and one run of eight states on 100,000
synthetic bars. `make` is what the end of a sweep pays: reading the store, charts and page, the
charts library included; `command` is `python -m hmm_exp.report` from a cold start. Paint and
`drawn` (all charts) are Chromium's, opening the file: the median of five tabs; left out where there
is no browser.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"
GRID = (
    *("model.n_states=2,3,4,5,6", "covariance=diag,full", "features=v1,v2", "timeframe=4H"),
    *("features.window=20,25,30,35,40", "model.n_init=1", "tracking.figures=false"),
)
LONG = ("data.n_bars=100000", "model.n_states=8", "model.n_init=1", "tracking.figures=false")
MAKE = """
import sys, time
import mlflow, hmm_exp.sweep.start
from hmm_exp.store.store import connect
client = connect(None)
wall, cpu = time.perf_counter(), time.process_time()
from pathlib import Path
from hmm_exp.report.log import read_run, read_sweep, write_report
what, name = sys.argv[1:]
write_report((read_sweep if what == "--sweep" else read_run)(client, name), Path("made.html"))
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
TABS = 5


def main() -> None:
    """Make both reports, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", required=True, help="CSV of open-stamped hourly bars")
    bars = str(Path(parser.parse_args().bars).resolve())
    data = ("data=bars", f"data.path='{bars}'", "data.bar_stamp=open")
    with tempfile.TemporaryDirectory() as folder:
        train(folder, "-m", *data, *GRID)
        measure("100 cells", folder, "--sweep", latest(folder))
    with tempfile.TemporaryDirectory() as folder:
        said = train(folder, *LONG)
        run_id = next(line for line in said.splitlines() if line.startswith("run ")).split()[1]
        measure("100,000 bars, 8 states", folder, "--run", run_id.rstrip(":"))


def measure(name: str, folder: str, what: str, which: str) -> None:
    """Make a report in every way, and open it."""
    wall, cpu = map(float, python(folder, "-c", MAKE, what, which).split()[-2:])
    started = time.perf_counter()
    python(folder, "-m", "hmm_exp.report", what, which, "--output", "report.html")
    command = time.perf_counter() - started
    path = Path(folder) / "report.html"
    print(
        f"{name}: make {wall:.1f} s (CPU {cpu:.1f} s), command {command:.1f} s, "
        f"{path.stat().st_size / 1e6:.1f} MB{opened(path)}",
        flush=True,
    )


def opened(path: Path) -> str:
    """First contentful paint of a page, and when all of it is drawn."""
    if not Path(CHROMIUM).exists():
        return ""
    from playwright.sync_api import sync_playwright

    paints, drawn = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(TABS):
            tab = browser.new_page()
            tab.goto(path.resolve().as_uri())
            tab.wait_for_selector("html[data-ready=true]", state="attached", timeout=120_000)
            drawn.append(tab.evaluate("performance.now()"))
            paints.append(tab.evaluate(PAINT))
            tab.close()
        browser.close()
    paint, whole = statistics.median(paints) / 1000, statistics.median(drawn) / 1000
    return f", paint {paint:.2f} s, drawn {whole:.2f} s"


def train(folder: str, *words: str) -> str:
    """Run a sweep or a run without a report of its own."""
    return python(folder, "-m", "hmm_exp.train", *words, "tracking.report=false", "promote=false")


def latest(folder: str) -> str:
    """Id of the only sweep of a store."""
    program = (
        "from hmm_exp.store.store import connect\n"
        "from hmm_exp.sweep.leaderboard import latest_sweep_id\n"
        "print(latest_sweep_id(connect(None)))"
    )
    return python(folder, "-c", program).split()[-1]


def python(folder: str, *words: str) -> str:
    """Run a program in a folder; gives what it printed."""
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
