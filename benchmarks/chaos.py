"""Kill sweeps at random moments and resume them: no cell may be lost, run twice or left behind.

    python benchmarks/chaos.py [--sweeps 50] [--compute joblib] [--seed 1]

Every sweep has 12 cells in a store of its own. Its main process, a process below it (one that fits,
or a joblib worker), or both are killed by SIGKILL at a random moment of what an undisturbed sweep
takes, up to three times; then the same command with sweep_id runs to its end. One line a sweep;
exit status 1 when any check fails.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

WORDS = ["model.n_states=2,3", "features=v1,v2", "model.random_state=1,2,3"]
SMALL = ["data.n_bars=6000", "model.n_init=10", "gate=off"]
SMALL += ["tracking.report=false"]
N_CELLS, MOST_KILLS = 12, 3
FIRST = 0.5  # seconds before which nothing has begun


def main() -> None:
    """Run all sweeps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=50)
    parser.add_argument("--compute", default="serial", choices=("serial", "joblib"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng, failed, total = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.db"
        make_store(empty)
        longest = undisturbed(Path(folder), empty, args.compute)
        print(f"undisturbed: {longest:.1f} s")
        print("sweep kills finished killed duplicates running parents production pending verdict")
        for number in range(args.sweeps):
            place = with_store(Path(folder) / str(number), empty)
            kills = tortured(place, args.compute, rng, longest)
            total += kills
            row, good = checked(place)
            failed += not good
            print(f"{number + 1:5} {kills:5} {row} {'ok' if good else 'FAILED'}", flush=True)
            if good:
                shutil.rmtree(place)
    print(f"{args.sweeps - failed} of {args.sweeps} sweeps whole after {total} kills")
    sys.exit(bool(failed))


def make_store(path: Path) -> None:
    """Make an empty store: its tables take MLflow seconds."""
    from mlflow.tracking import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments()


def with_store(folder: Path, empty: Path) -> Path:
    """Make a folder with a store of its own."""
    folder.mkdir()
    shutil.copy(empty, folder / "mlflow.db")
    return folder


def undisturbed(folder: Path, empty: Path, compute: str) -> float:
    """Seconds of a sweep that nobody kills, after one that compiles and fills caches."""
    for name in ("warm", "timed"):
        place = with_store(folder / name, empty)
        began = time.monotonic()
        if started(place, compute, None).wait():
            sys.exit((place / "output.txt").read_text())
    return time.monotonic() - began


def tortured(folder: Path, compute: str, rng: random.Random, longest: float) -> int:
    """Start a sweep, kill it some times, let it end; gives the number of kills that hit."""
    kills, sweep_id = 0, None
    for _ in range(rng.randint(1, MOST_KILLS)):
        process = started(folder, compute, sweep_id)
        try:
            process.wait(rng.uniform(FIRST, longest))
        except subprocess.TimeoutExpired:
            kills += 1
            kill(process, rng.choice(("main", "child", "both")))
        sweep_id = sweep_id or seen_id(folder)
    process = started(folder, compute, sweep_id)
    if process.wait(600):  # a kill of the child alone costs a cell, which this start runs
        process = started(folder, compute, sweep_id or seen_id(folder))
        process.wait(600)
    return kills


def started(folder: Path, compute: str, sweep_id: str | None) -> subprocess.Popen:
    """Start the command, with the sweep's id once it is known."""
    words = [*WORDS, *SMALL, f"compute={compute}"] + ([f"sweep_id={sweep_id}"] if sweep_id else [])
    return launched(folder, words)


def launched(folder: Path, words: list[str]) -> subprocess.Popen:
    """Start a sweep in a folder; its output is added to `output.txt` there."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "hmm_exp.train", "-m", *words],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def kill(process: subprocess.Popen, whom: str) -> None:
    """Kill the main process, one of its children, or both; a main left alone runs to its end."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if whom in ("child", "both") and children:
        os.kill(int(children[-1]), signal.SIGKILL)
    if whom in ("main", "both"):
        process.kill()
    process.wait(600)
    time.sleep(0.1)


def seen_id(folder: Path) -> str | None:
    """Id of the sweep, when it got as far as printing how to go on."""
    text = (folder / "output.txt").read_text()
    found = re.search(r"^if stopped, go on with sweep_id=(\S+)", text, re.MULTILINE)
    return found[1] if found else None


def checked(folder: Path) -> tuple[str, bool]:
    """Count what the store holds; whether that is as it must be."""
    import mlflow
    from mlflow.tracking import MlflowClient

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("hmm_exp")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    cells = [run for run in runs if run.data.tags["kind"] == "cell"]
    status = Counter(run.info.status for run in runs)
    finished = [run for run in cells if run.info.status == "FINISHED"]
    twins = len(finished) - len({run.data.tags["fingerprint"] for run in finished})
    parents = [run for run in runs if run.data.tags["kind"] == "sweep"]
    winners = [run.data.tags.get("winner") for run in parents if run.info.status == "FINISHED"]
    try:
        mlflow.pyfunc.load_model("models:/hmm_regime/Production")
        production = "loads"
    except Exception as error:
        production = type(error).__name__
    pending = len(list((folder / "mlruns" / "sweeps").glob("*/pending/*")))
    row = (
        f"{len(finished):8} {len(cells) - len(finished):6} {twins:10} {status['RUNNING']:7} "
        f"{len(parents):7} {production:>10} {pending:7}"
    )
    good = len(finished) == N_CELLS and not twins and not status["RUNNING"] and len(winners) == 1
    return row, good and bool(winners[0]) and production == "loads" and not pending


if __name__ == "__main__":
    main()
