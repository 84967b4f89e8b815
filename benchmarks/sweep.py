"""Time of the README sweep against loops that a researcher would write by hand.

    python benchmarks/sweep.py --bars bars.csv [--n-init 1] [--sides bare,scaling,tracked]
    python benchmarks/sweep.py --bars bars.csv --n-init 10 --by-hand 1 --sides bare

Eight models (2 to 5 states on v1 and v2, diag, 200 iterations, tol 1e-3) on the train rows of one
file of hourly bars, each side in a process of its own, imports included, all in one run:

  sweep    python -m hmm_exp.train -m model.n_states=2,3,4,5 features=v1,v2
  bare     the same fits by hmmlearn's default implementation and nothing else
  scaling  the same with implementation="scaling"
  tracked  bare, with fluent MLflow, mlflow.sklearn.log_model and six figures a run

Asked of the wall time: with one start at most 0.15 of tracked; with ten starts at most 0.25 of bare
with ten (`--n-init 10 --sides bare`, a quarter of an hour), and at most 0.6 of bare with one
(`--by-hand 1`). The time of all cores is printed, too: on a machine with other work it is more
reliable.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

STATES, SETS = (2, 3, 4, 5), ("v1", "v2")


def main() -> None:
    """Time every side once, or play one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", required=True, help="CSV of open-stamped hourly bars")
    parser.add_argument("--n-init", type=int, default=1, help="starts of the sweep")
    parser.add_argument("--by-hand", type=int, help="starts of the loops by hand (--n-init)")
    parser.add_argument("--sides", default="bare,scaling,tracked", help="what to compare with")
    parser.add_argument("--play", choices=("bare", "scaling", "tracked"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    bars = str(Path(args.bars).resolve())
    if args.play:
        play(args.play, bars, args.n_init)
        return
    by_hand = args.by_hand or args.n_init
    print(f"starts of the sweep: {args.n_init}, of the loops by hand: {by_hand}")
    sweep, sweep_cpu = timed("sweep", bars, args.n_init)
    print(f"sweep    {sweep:7.1f} s {sweep_cpu:7.1f} s of all cores", flush=True)
    for side in args.sides.split(","):
        wall, cpu = timed(side, bars, by_hand)
        print(
            f"{side:8} {wall:7.1f} s {cpu:7.1f} s of all cores"
            f"   sweep / {side} = {sweep / wall:.2f}, of all cores {sweep_cpu / cpu:.2f}",
            flush=True,
        )


def timed(side: str, bars: str, n_init: int) -> tuple[float, float]:
    """Wall time of one side in a fresh folder, and the time of all cores, in seconds."""
    if side == "sweep":
        words = ["-m", "hmm_exp.train", "-m", "data=bars", f"data.path='{bars}'"]
        words += ["data.bar_stamp=open", f"model.n_states={','.join(map(str, STATES))}"]
        words += [f"features={','.join(SETS)}", f"model.n_init={n_init}"]
    else:
        words = [__file__, "--bars", bars, "--n-init", str(n_init), "--play", side]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        words = [str(Path(w).resolve()) if w == __file__ else w for w in words]
        started, before = time.perf_counter(), cpu_of_children()
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
        )
        wall = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stdout}\n{done.stderr}")
    return wall, cpu_of_children() - before


def cpu_of_children() -> float:
    """Seconds of all cores that ended processes have used, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def play(side: str, bars: str, n_init: int) -> None:
    """Fit the eight models by hand, tracked or not."""
    from hmm_exp.config import Config, DataConfig, FeaturesConfig
    from hmm_exp.experiment.prepare import prepare

    warnings.simplefilter("ignore")
    data = DataConfig(kind="bars", path=bars, bar_stamp="open")
    for name in SETS:
        prepared = prepare(Config(data=data, features=FeaturesConfig(name=name)))
        X = prepared.X[prepared.train]
        for n_states in STATES:
            if side == "tracked":
                track(name, n_states, X, n_init)
            else:
                fit(n_states, X, n_init, "scaling" if side == "scaling" else "log")


def fit(n_states: int, X, n_init: int, implementation: str):
    """Give the best of `n_init` hmmlearn fits."""
    from hmmlearn.hmm import GaussianHMM

    models = [
        GaussianHMM(
            n_states,
            covariance_type="diag",
            n_iter=200,
            tol=1e-3,
            random_state=42 + i,
            implementation=implementation,
        ).fit(X)
        for i in range(n_init)
    ]
    return max(models, key=lambda model: model.monitor_.history[-1])


def track(name: str, n_states: int, X, n_init: int) -> None:
    """Fit and track one model the way the documentation of MLflow shows."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import mlflow

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("by hand")
    with mlflow.start_run():
        model = fit(n_states, X, n_init, "log")
        mlflow.log_params({"features": name, "n_states": n_states, "covariance": "diag"})
        mlflow.log_metrics({"bic": model.bic(X), "aic": model.aic(X), "log_lik": model.score(X)})
        mlflow.sklearn.log_model(model, name="model", serialization_format="cloudpickle")
        probs, path = model.predict_proba(X), model.predict(X)
        views = (X[:, 0], probs, path, model.transmat_, model.means_, model.monitor_.history)
        for i, view in enumerate(views):
            figure, axes = plt.subplots(figsize=(11, 4.5))
            axes.plot(view)
            mlflow.log_figure(figure, f"figure_{i}.png")
            plt.close(figure)


if __name__ == "__main__":
    main()
