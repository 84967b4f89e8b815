"""Passes over the rows of one run outside its fits, and seconds of its evaluation.

    python benchmarks/evaluation.py --bars bars.csv --against OTHER_CHECKOUT

Counts how often the rows are filtered, smoothed and decoded and how often their log densities are
computed, in units of the whole table. Times `seconds_evaluate` (median of five runs after the
first), and the CPU time of its stages, of writing the files and of recording them in a new SQLite
store. With `--against`, both checkouts run alternately in processes of their own, and the ratios
are medians over pairs. Without `--bars` the market is synthetic, 28,000 bars.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

RUNS = 6
PAIRS = 5
STAGES = {  # of `hmm_exp.experiment.run`
    "model_output": "outputs and forecasts",
    "fit_errors": "standard errors",
    "assess": "assessment",
    "with_expectations": "monitoring baseline",
    "_served_rules": "rules of the model",
    "regime_table": "regime table",
    "_strategies": "strategies",
}
PASSES = {"advance": "filter", "_smooth": "smooth", "_viterbi": "decode", "log_density": "density"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", help="CSV of open-stamped hourly bars")
    parser.add_argument("--against", help="another checkout of the package")
    parser.add_argument("--refit", default="train", help="model.refit")
    parser.add_argument("--states", type=int, default=3, help="model.n_states")
    parser.add_argument("--measure", action="store_true", help="this checkout only, as JSON")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options)))
        return
    here = Path(__file__).parents[1]
    sides = [here, Path(options.against).resolve()] if options.against else [here]
    found: list[list[dict]] = [[] for _ in sides]
    for _ in range(PAIRS if options.against else 1):
        for runs, side in zip(found, sides, strict=True):
            runs.append(in_process(side, options))
    for side, runs in zip(sides, found, strict=True):
        passes = ", ".join(f"{name} {count:.2f}" for name, count in runs[0]["passes"].items())
        seconds = statistics.median(run["seconds"] for run in runs)
        print(f"{side}: {1000 * seconds:.0f} ms to evaluate; passes over all rows: {passes}")
    if options.against:
        pairs = zip(*found, strict=True)
        ratios = sorted(ours["seconds"] / other["seconds"] for ours, other in pairs)
        print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print_stages(found)


def print_stages(found: list[list[dict]]) -> None:
    """CPU time of every stage in each checkout, and the ratio of the first to the second."""
    for stage in found[0][0]["stages"]:
        cells = [[run["stages"][stage] for run in runs] for runs in found]
        line = "".join(f"{1000 * statistics.median(values):8.1f} ms" for values in cells)
        if len(cells) > 1:
            ratios = [ours / max(other, 1e-9) for ours, other in zip(*cells, strict=True)]
            line += f"{statistics.median(ratios):8.2f}"
        print(f"  {stage:28}{line}")


def in_process(side: Path, options: argparse.Namespace) -> dict:
    """Measure one checkout in a process of its own."""
    command = [sys.executable, __file__, "--measure", "--refit", options.refit]
    command += ["--states", str(options.states)]
    command += ["--bars", options.bars] if options.bars else []
    environment = os.environ | {"PYTHONPATH": str(side)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measured(options: argparse.Namespace) -> dict:
    """Median `seconds_evaluate` and stages of several runs, and the passes of the first."""
    from hmm_exp import Config, checked, prepare, run
    from hmm_exp.hmm import fit as fits

    config = Config()
    config.data.n_bars = 28_000
    if options.bars:
        config.data.kind, config.data.path, config.data.bar_stamp = "bars", options.bars, "open"
    config.model.n_init, config.model.refit = 1, options.refit
    config.model.n_states, config.tracking.figures = options.states, False
    prepared = prepare(checked(config))
    n_rows, passes = len(prepared.table), dict.fromkeys(PASSES.values(), 0.0)

    def count(name: str, rows: int) -> None:
        passes[PASSES[name]] += rows / n_rows

    run(prepared)  # compiles
    with counted(count, fits.fit):
        run(prepared)
    seconds = [run(prepared).metrics["seconds_evaluate"] for _ in range(RUNS - 1)]
    stages = [staged(prepared) for _ in range(RUNS - 1)]
    with tempfile.TemporaryDirectory() as folder:
        kept = [recorded(prepared, Path(folder), number) for number in range(RUNS)][1:]
    both = [first | second for first, second in zip(stages, kept, strict=True)]
    medians = {name: statistics.median(one[name] for one in both) for name in both[0]}
    return {"seconds": statistics.median(seconds), "passes": passes, "stages": medians}


def staged(prepared) -> dict[str, float]:
    """CPU seconds of the stages of one evaluation."""
    from hmm_exp.experiment import run as place

    spent = dict.fromkeys(STAGES.values(), 0.0)

    def timing(name: str, real: Callable) -> Callable:
        def call(*arguments, **named):
            started = time.process_time()
            try:
                return real(*arguments, **named)
            finally:
                spent[STAGES[name]] += time.process_time() - started

        return call

    real = {name: getattr(place, name) for name in STAGES}
    for name, function in real.items():
        setattr(place, name, timing(name, function))
    try:
        place.run(prepared)
    finally:
        for name, function in real.items():
            setattr(place, name, function)
    return spent


def recorded(prepared, folder: Path, number: int) -> dict[str, float]:
    """CPU seconds of writing a run's files, and of opening, logging and closing it."""
    from hmm_exp import run
    from hmm_exp.store.store import open_store
    from hmm_exp.tracking.bundle import data_identity, identity
    from hmm_exp.tracking.pack import write_bundle
    from hmm_exp.tracking.record import finish_run, start_run

    settings, result = prepared.config, run(prepared)
    settings.tracking.uri = f"sqlite:///{folder}/mlflow.db"
    store, known = open_store(settings.tracking), identity(settings) | data_identity(prepared)
    started = time.process_time()
    bundle = write_bundle(result, folder / str(number))
    written = time.process_time()
    finish_run(store, start_run(store, settings, known), bundle, known)
    return {"writing files": written - started, "recording": time.process_time() - written}


@contextmanager
def counted(count: Callable[[str, int], None], fit: Callable) -> Iterator[None]:
    """Report every recursion over rows to `count`, except those inside `fit`."""
    from hmm_exp.hmm import density, inference

    fitting = 0

    def counting(name: str, real: Callable) -> Callable:
        def call(*arguments, **named):
            rows = arguments[1 if name in ("_smooth", "log_density") else 2]
            if not fitting:
                count(name, len(rows))
            return real(*arguments, **named)

        return call

    def without(*arguments, **named):
        nonlocal fitting
        fitting += 1
        try:
            return fit(*arguments, **named)
        finally:
            fitting -= 1

    places = {"log_density": density}
    wrapped = {getattr(places.get(name, inference), name): name for name in PASSES}
    changed = []
    for module in [m for name, m in sys.modules.items() if name.startswith("hmm_exp.")]:
        for attribute, value in list(vars(module).items()):
            if value is fit or (callable(value) and value in wrapped):
                new = without if value is fit else counting(wrapped[value], value)
                changed.append((module, attribute, value))
                setattr(module, attribute, new)
    try:
        yield
    finally:
        for module, attribute, value in changed:
            setattr(module, attribute, value)


if __name__ == "__main__":
    main()
