"""Kill panels at random moments and resume them: no symbol may be lost, judged or fitted twice.

    python -m benchmarks.panel_chaos [--panels 20] [--compute ray] [--seed 1]

Every panel has 8 symbols of 1,000 bars with 2 cells each, in a store of its own, and runs with two
workers. Up to three times, at a random moment of what an undisturbed panel takes, one of these
happens: SIGKILL of the main process, of a worker of the launcher or of a process that fits, SIGTERM
or Ctrl-C. Then the same command with sweep_id runs until it succeeds. One line a panel; exit status
1 when any check fails.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

from benchmarks.chaos import FIRST, MOST_KILLS, launched, make_store, seen_id, with_store

N_SYMBOLS, N_CELLS = 8, 2  # cells of a symbol
WORDS = ["data=panel", "data.path=../lake/*.parquet", "data.bar_stamp=open", "features=range"]
WORDS += ["model.n_states=2,3", "model.n_init=2", "tracking.report=false"]
WORKERS = {"ray": ["+hydra.launcher.ray.init.num_cpus=2"], "joblib": ["compute.workers=2"]}
KILLS = ("main", "worker", "child", "SIGTERM", "Ctrl-C")
MOST_STARTS = 4  # after the kills: each lost worker of joblib ends a start
OF_PLACE = ["promoted", "version", "run"]  # columns of symbols.csv that a resumed panel may change


def main() -> None:
    """Run all panels and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panels", type=int, default=20)
    parser.add_argument("--compute", default="ray", choices=tuple(WORKERS))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    rng, failed, total = random.Random(args.seed), 0, Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_lake(folder / "lake")
        make_store(folder / "empty.db")
        longest, expected = undisturbed(folder, args.compute)
        print(f"undisturbed: {longest:.1f} s")
        print("panel finished killed duplicates running symbols same-table  kills")
        for number in range(1, args.panels + 1):
            place = with_store(folder / str(number), folder / "empty.db")
            kills = tortured(place, args.compute, rng, longest)
            total.update(kills)
            row, good = checked(place, expected)
            failed += not good
            verdict = "ok" if good else "FAILED"
            print(f"{number:5} {row}  {', '.join(kills) or 'none'}: {verdict}", flush=True)
            if good:
                shutil.rmtree(place)
            else:
                print((place / "output.txt").read_text())
    kinds = ", ".join(f"{kind} {n}" for kind, n in total.items())
    print(
        f"{args.panels - failed} of {args.panels} panels whole after {total.total()} kills: {kinds}"
    )
    sys.exit(bool(failed))


def make_lake(folder: Path, n_symbols: int = N_SYMBOLS, n_bars: int = 1000) -> None:
    """Write files of synthetic symbols with three regimes of volatility."""
    from hmm_exp.market.synthetic import make_market

    folder.mkdir()
    for number in range(n_symbols):
        frame = make_market(n_bars, 3, 200 + number).frame
        frame.reset_index(drop=True).to_parquet(folder / f"S{number:03d}.parquet")


def undisturbed(folder: Path, compute: str) -> tuple[float, pd.DataFrame]:
    """Seconds of a panel that nobody kills, after one that compiles, and its table."""
    for name in ("warm", "timed"):
        place = with_store(folder / name, folder / "empty.db")
        began = time.monotonic()
        if started(place, compute, None).wait():
            sys.exit((place / "output.txt").read_text())
    return time.monotonic() - began, table_of(place)


def tortured(folder: Path, compute: str, rng: random.Random, longest: float) -> list[str]:
    """Start a panel, kill it some times, let it end; gives the kills that hit."""
    kills, sweep_id = [], None
    for _ in range(rng.randint(1, MOST_KILLS)):
        process = started(folder, compute, sweep_id)
        try:
            process.wait(rng.uniform(FIRST, longest))
        except subprocess.TimeoutExpired:
            whom = rng.choice(KILLS)
            kills += [whom] if kill(process, whom) else []
        sweep_id = sweep_id or seen_id(folder)
    for _ in range(MOST_STARTS):
        if started(folder, compute, sweep_id).wait(600) == 0:
            break
        sweep_id = sweep_id or seen_id(folder)
    return kills


def started(folder: Path, compute: str, sweep_id: str | None) -> subprocess.Popen:
    """Start the command, with the panel's id once it is known."""
    words = [*WORDS, f"compute={compute}", *WORKERS[compute]]
    words += [f"sweep_id={sweep_id}"] if sweep_id else []
    return launched(folder, words)


def kill(process: subprocess.Popen, whom: str) -> bool:
    """Do one of `KILLS` and wait for the end of the main process; whether there was whom to kill.

    A main process that is left alone runs to its end.
    """
    signals = {"main": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
    marks = {"worker": ("ray::_run_job", "loky"), "child": ("hmm_exp.sweep.worker",)}
    if whom in signals:
        process.send_signal(signals[whom])
        found = [process.pid]
    else:
        found = [pid for pid in below(process.pid) if any(m in command(pid) for m in marks[whom])]
        for pid in found[-1:]:
            os.kill(pid, signal.SIGKILL)
    process.wait(600)
    time.sleep(0.1)
    return bool(found)


def below(pid: int) -> list[int]:
    """Processes that descend from one, by Linux."""
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:  # it has just ended
        return []
    return children + [further for child in children for further in below(child)]


def command(pid: int) -> str:
    """Command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def checked(folder: Path, expected: pd.DataFrame) -> tuple[str, bool]:
    """Count what the store holds; whether that is as it must be."""
    runs = runs_of(folder)
    cells = [run for run in runs if run.data.tags["kind"] == "cell"]
    finished = [run for run in cells if run.info.status == "FINISHED"]
    twins = len(finished) - len({run.data.tags["fingerprint"] for run in finished})
    running = sum(run.info.status == "RUNNING" for run in runs)
    symbols = [run for run in runs if run.data.tags["kind"] == "symbol"]
    whole = [r for r in symbols if r.info.status == "FINISHED" and r.data.tags.get("winner")]
    parents = [run.info.status for run in runs if run.data.tags["kind"] == "sweep"]
    same = table_of(folder).equals(expected)
    row = f"{len(finished):8} {len(cells) - len(finished):6} {twins:10} {running:7} "
    row += f"{len(whole):7} {same!s:>10}"
    good = len(finished) == N_SYMBOLS * N_CELLS and not twins and not running
    good = good and len(whole) == len(symbols) == N_SYMBOLS and same
    return row, good and parents.count("FINISHED") == 1


def runs_of(folder: Path) -> list:
    """All runs of the store in a folder."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("hmm_exp")
    return list(client.search_runs([experiment.experiment_id], max_results=5000))


def table_of(folder: Path) -> pd.DataFrame:
    """`symbols.csv` of the finished panel, by symbol, without what a second decision changes."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    ended = [r for r in runs_of(folder) if r.info.status == "FINISHED"]
    parents = [run.info.run_id for run in ended if run.data.tags["kind"] == "sweep"]
    if not parents:
        return pd.DataFrame()
    table = pd.read_csv(client.download_artifacts(parents[0], "symbols.csv"))
    served = table["promoted"].replace("already", "yes")
    return (
        table.drop(columns=OF_PLACE).assign(served=served).sort_values("symbol", ignore_index=True)
    )


if __name__ == "__main__":
    main()
