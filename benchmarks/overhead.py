"""Time of a run without its fit, and of the command line until it answers.

    python benchmarks/overhead.py --bars bars.csv

Prints the wall time of `--help` and of a typo, of all features (both sets, 1H 4H 12H 1D), and of
one run on the file by parts, from its own record (median of five runs after the first).
Then the CPU time of each figure, drawn and saved (median of five after the first), and of all of
them in the first round, which loads fonts and code. Asked: 1.2 s for all but the fit, 25 ms a
figure.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", required=True, help="CSV of open-stamped hourly bars")
    bars = str(Path(parser.parse_args().bars).resolve())
    for words in (["--help"], ["model.nstates=3"]):
        print(f"{'train ' + words[0]:28} {1000 * answer_time(words):7.0f} ms")
    print(f"{'features, 36 columns':28} {1000 * features_time(bars):7.0f} ms")
    parts = run_parts(bars)
    for name, seconds in parts.items():
        print(f"{name:28} {1000 * seconds:7.0f} ms")
    beside = sum(seconds for name, seconds in parts.items() if name != "seconds_fit")
    print(f"{'a run without its fit':28} {1000 * beside:7.0f} ms")
    rounds = figure_times(bars)
    for name, seconds in rounds.items():
        median = statistics.median(seconds[1:])
        print(f"{'figure ' + name:28} {1000 * median:7.1f} ms of CPU")
    first = sum(seconds[0] for seconds in rounds.values())
    print(f"{'figures of the first round':28} {1000 * first:7.0f} ms of CPU")


def answer_time(words: list[str]) -> float:
    """Median wall time of a command line that does no work, in seconds."""
    walls = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "hmm_exp.train", *words], capture_output=True)
        walls.append(time.perf_counter() - started)
    return statistics.median(walls)


def features_time(bars: str) -> float:
    """Median time of building every feature in four timeframes, in seconds."""
    from hmm_exp.features.build import build_features
    from hmm_exp.features.recipe import Recipe
    from hmm_exp.market.load import read_bars

    loaded = read_bars(bars, bar_stamp="open")
    recipe = Recipe.of_set("v1v2", ["1H", "4H", "12H", "1D"])
    walls = []
    for _ in range(RUNS):
        started = time.perf_counter()
        build_features(loaded, recipe)
        walls.append(time.perf_counter() - started)
    return statistics.median(walls[1:])


def run_parts(bars: str) -> dict[str, float]:
    """Median seconds of every part of a run, figures included, as recorded on the run."""
    from mlflow.tracking import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(map(str, range(RUNS)))
        words = ["-m", "data=bars", f"data.path='{bars}'", "data.bar_stamp=open", "model.n_init=1"]
        words += [f"model.random_state={seeds}", "model.n_states=3", "promote=false"]
        done = subprocess.run(
            [sys.executable, "-m", "hmm_exp.train", *words],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr)
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.get_experiment_by_name("hmm_exp")
        runs = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")
        later = sorted(runs, key=lambda run: run.info.start_time)[1:]
        names = sorted(name for name in later[0].data.metrics if name.startswith("seconds_"))
        return {n: statistics.median(run.data.metrics[n] for run in later) for n in names}


def figure_times(bars: str) -> dict[str, list[float]]:
    """CPU seconds of every figure of a run, drawn and saved, by round."""
    from hmm_exp.config import Config, DataConfig, ModelConfig, checked
    from hmm_exp.experiment.plots import run_figures
    from hmm_exp.experiment.prepare import prepare
    from hmm_exp.experiment.run import run
    from hmm_exp.figures import save
    from hmm_exp.sweep.garbage import collect_seldom

    data = DataConfig(kind="bars", path=bars, bar_stamp="open")
    result = run(prepare(checked(Config(data=data, model=ModelConfig(n_states=3, n_init=1)))))
    spent: dict[str, list[float]] = {}
    collect_seldom()  # as a sweep does
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            began = time.process_time()
            for name, figure in run_figures(result):
                save(figure, Path(folder) / f"{name}.png")
                spent.setdefault(name, []).append(time.process_time() - began)
                began = time.process_time()
    return spent


if __name__ == "__main__":
    main()
