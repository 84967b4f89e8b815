"""Time per EM iteration and of whole fits, against hmmlearn, on two feature sets of one series.

    python benchmarks/em.py --bars bars.csv [--states 2,3,5,8] [--repeats 5]
    python benchmarks/em.py --bars bars.csv --whole [--n-init 10]
    python benchmarks/em.py --bars bars.csv --tails [--states 2,3,5,8] [--repeats 5]
    python benchmarks/em.py --bars bars.csv --leaps [--states 2,3,5] [--n-init 6]
    python benchmarks/em.py --long 10000000

The first form: for v1 and v2, "diag" and "full", and every number of states, all engines start from
the same parameters and run in turns, one thread each; medians over the turns, ratios within this
one run. The last columns check that the engines did the same work: the relative distance of the
log-likelihood histories, and E steps in the log domain.

`--whole`: the best of ten starts, as `hmm_exp.hmm.fit` makes it on all cores, against ten hmmlearn
fits in a loop with the same limits, and the likelihoods that both reach.

`--tails`: an iteration with Student-t states over one with Gaussian states, and the iterations of
both until convergence from the same start.

`--leaps`: E steps until convergence with leaps and without, from the same starts, range included,
and by how many nats 1,500 more iterations raise the final objective.

`--long`: rows per second and peak memory of one fit as the series grows to that many rows.
"""

import argparse
import logging
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from em_limit import limit
from hmmlearn.hmm import GaussianHMM
from threadpoolctl import threadpool_limits

from hmm_exp.config import Config, DataConfig, FeaturesConfig, checked
from hmm_exp.hmm.em.rows import PaddedRows, lay_out
from hmm_exp.hmm.em.run import em
from hmm_exp.hmm.fit import Search, fit
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.starts import starting_points

HMMLEARN_ITERATIONS = 4
OWN_ITERATIONS = 40
LIMITS = {"n_iter": 200, "tol": 1e-3}


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", help="CSV of open-stamped hourly bars")
    parser.add_argument("--states", default="2,3,5,8")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--whole", action="store_true", help="time whole fits")
    parser.add_argument("--tails", action="store_true", help="time Student-t states")
    parser.add_argument("--leaps", action="store_true", help="count E steps with leaps")
    parser.add_argument("--n-init", type=int, default=10, help="starts of a whole fit")
    parser.add_argument("--long", type=int, help="most rows of a growing series")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    states = [int(word) for word in args.states.split(",")]
    if args.one:
        one_long_fit(args.one)
    elif args.long:
        long_series(args.long)
    elif args.bars is None:
        parser.error("--bars is needed")
    elif args.whole:
        whole_fits(args.bars, states, args.n_init)
    elif args.leaps:
        leaps(args.bars, states, args.n_init)
    elif args.tails:
        tails(args.bars, states, args.repeats)
    else:
        with threadpool_limits(1):
            iterations(args.bars, states, args.repeats)


def observations(bars: str, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Complete scaled train rows of a feature set as one sequence, their steps, volatility."""
    from hmm_exp.experiment.prepare import prepare

    config = Config(
        data=DataConfig(kind="bars", path=bars, bar_stamp="open"),
        features=FeaturesConfig(name=name),
    )
    prepared = prepare(checked(config))
    X = prepared.X[prepared.train]
    X = np.ascontiguousarray(X[~np.isnan(X).any(axis=1)])
    volatility = None if prepared.volatility is None else X[:, prepared.volatility]
    return X, one_sequence(len(X)), volatility


def one_sequence(n_rows: int) -> np.ndarray:
    """Chain steps of rows without a gap."""
    steps = np.ones(n_rows, dtype=np.int64)
    steps[0] = 0
    return steps


def cells(bars: str, states: list[int], names: tuple[str, ...] = ("v1", "v2")) -> Iterator[tuple]:
    """Label, observations and number of states of every line of a table."""
    for name in names:
        X, steps, volatility = observations(bars, name)
        for covariance_type in ("diag", "full") if X.shape[1] > 1 else ("diag",):
            for n_states in states:
                yield name, covariance_type, n_states, X, steps, volatility


def iterations(bars: str, states: list[int], repeats: int) -> None:
    """Milliseconds per iteration of every engine."""
    ratios = []
    print(
        "set  type  K    log ms  scaling ms   own ms  ns/row  x log  x scaling  limit ms  x limit"
        "    apart  in logs"
    )
    for name, covariance_type, K, X, steps, volatility in cells(bars, states):
        start = first_start(X, volatility, K, covariance_type)
        m = measure(X, lay_out(X, steps), start, repeats)
        least = sum(limit(len(X), K))
        ratios.append((m["log"] / m["own"], m["scaling"] / m["own"], m["own"] / least))
        print(
            f"{name:4s} {covariance_type:4s} {K:2d} {m['log']:9.2f} {m['scaling']:11.2f}"
            f" {m['own']:8.3f} {1e6 * m['own'] / len(X):7.1f} {ratios[-1][0]:6.1f}"
            f" {ratios[-1][1]:10.1f} {least:9.3f} {ratios[-1][2]:8.2f} {m['apart']:8.0e}"
            f" {m['in_logs']:8d}",
            flush=True,
        )
    log_mean, scaling_mean, limit_mean = np.exp(np.log(ratios).mean(axis=0))
    print(
        f"geometric mean: {log_mean:.1f} times faster than 'log', {scaling_mean:.1f} times faster"
        f" than 'scaling', {limit_mean:.2f} times the limit"
    )


def measure(X: np.ndarray, rows: PaddedRows, params: GaussianParams, repeats: int) -> dict:
    """Median milliseconds per iteration of the three engines, and how far apart they are."""
    own = em(rows, None, params, n_iter=OWN_ITERATIONS, tol=-np.inf)
    times: dict[str, list[float]] = {"log": [], "scaling": [], "own": []}
    for _ in range(repeats):
        for name in ("log", "scaling"):
            spent = milliseconds(lambda name=name: run_hmmlearn(X, params, name))
            times[name].append(spent / HMMLEARN_ITERATIONS)
        spent = milliseconds(lambda: em(rows, None, params, n_iter=OWN_ITERATIONS, tol=-np.inf))
        times["own"].append(spent / len(own.history))
    theirs = run_hmmlearn(X, params, "scaling")
    medians = {name: float(np.median(values)) for name, values in times.items()}
    medians["apart"] = float(np.max(abs(own.history[: len(theirs)] / theirs - 1)))
    medians["in_logs"] = own.n_log_domain
    return medians


def run_hmmlearn(X: np.ndarray, params: GaussianParams, implementation: str) -> np.ndarray:
    """Log-likelihood history of hmmlearn."""
    model = params.to_hmmlearn()
    model.init_params = ""
    model.implementation = implementation
    model.n_iter = model.monitor_.n_iter = HMMLEARN_ITERATIONS
    model.tol = model.monitor_.tol = -np.inf
    model.fit(X)
    return np.array(model.monitor_.history)


def milliseconds(run: Callable[[], object]) -> float:
    """Time of the one core that a call takes: other work does not count."""
    begin = time.process_time()
    run()
    return 1e3 * (time.process_time() - begin)


def tails(bars: str, states: list[int], repeats: int) -> None:
    """Milliseconds per iteration of Gaussian and Student-t states, in turns, and their ratio."""
    ratios = []
    print("set  type  K  gaussian ms  student_t ms  ratio  iterations: gaussian  student_t")
    for name, covariance_type, K, X, steps, volatility in cells(bars, states):
        start = first_start(X, volatility, K, covariance_type)
        starts = [start, replace(start, df=np.full(K, 8.0))]
        rows, times = lay_out(X, steps), np.empty((repeats, 2))
        ends = [em(rows, None, params, n_iter=1000, tol=1e-3) for params in starts]
        for turn in range(repeats):
            for i, params in enumerate(starts):
                run = partial(em, rows, None, params, n_iter=OWN_ITERATIONS, tol=-np.inf)
                times[turn, i] = milliseconds(run) / (OWN_ITERATIONS + 1)
        gaussian, student_t = np.median(times, axis=0)
        ratios.append(student_t / gaussian)
        print(
            f"{name:4s} {covariance_type:4s} {K:2d} {gaussian:12.3f} {student_t:13.3f}"
            f" {ratios[-1]:6.2f} {ends[0].n_iter:21d} {ends[1].n_iter:10d}",
            flush=True,
        )
    print(f"geometric mean: {np.exp(np.mean(np.log(ratios))):.2f}, largest {max(ratios):.2f}")


def leaps(bars: str, states: list[int], n_init: int) -> None:
    """E steps of all starts of a setting with and without leaps, and the largest shortfall."""
    totals: dict[str, np.ndarray] = {}
    print("set   type  K  E steps: plain  leaps  ratio  most lacking: plain    leaps")
    for name, covariance_type, K, X, steps, volatility in cells(
        bars, states, ("v1", "v2", "range")
    ):
        rows, counts, lacking = lay_out(X, steps), np.zeros(2), np.zeros(2)
        for point in starting_points(
            X,
            volatility,
            n_states=K,
            covariance_type=covariance_type,
            n_init=n_init,
            min_covar=1e-3,
            seed=2,
        ):
            for i in (0, 1):
                end = em(rows, None, point.params, n_iter=1000, tol=1e-3, accelerate=bool(i))
                more = em(rows, None, end.params, n_iter=1500, tol=1e-6)
                counts[i] += end.n_e_steps
                lacking[i] = max(lacking[i], more.objective - end.objective)
        totals[name] = totals.get(name, np.zeros(2)) + counts
        print(
            f"{name:5s} {covariance_type:4s} {K:2d} {counts[0]:14.0f} {counts[1]:6.0f}"
            f" {counts[1] / counts[0]:6.2f} {lacking[0]:20.4f} {lacking[1]:8.4f}",
            flush=True,
        )
    for name, (plain, leaping) in totals.items():
        print(f"{name}: {leaping / plain:.2f} of the E steps")


def first_start(
    X: np.ndarray, volatility: np.ndarray | None, n_states: int, covariance_type: str
) -> GaussianParams:
    """The start by quantiles of volatility."""
    points = starting_points(
        X,
        volatility,
        n_states=n_states,
        covariance_type=covariance_type,
        n_init=1,
        min_covar=1e-3,
        seed=0,
    )
    return points[0].params


def whole_fits(bars: str, states: list[int], n_init: int) -> None:
    """Seconds of a best-of-many fit, ours on all cores against a loop over hmmlearn."""
    ratios = []
    print("set  type  K   own s  hmmlearn s  times   own log-lik  hmmlearn's    higher by  status")
    for name, covariance_type, K, X, steps, volatility in cells(bars, states):
        search = Search(covariance_type=covariance_type, n_init=n_init, **LIMITS)
        fit(X[:100], steps[:100], n_states=1)  # compiled
        began = time.perf_counter()
        fitted = fit(X, steps, K, search, volatility=volatility)
        own = time.perf_counter() - began
        began = time.perf_counter()
        theirs = best_hmmlearn(X, covariance_type, K, n_init)
        hmmlearn = time.perf_counter() - began
        ratios.append(hmmlearn / own)
        print(
            f"{name:4s} {covariance_type:4s} {K:2d} {own:7.2f} {hmmlearn:11.1f} {ratios[-1]:6.1f}"
            f" {fitted.log_lik:13.2f} {theirs:11.2f} {fitted.log_lik - theirs:12.2f}"
            f"  {fitted.status}",
            flush=True,
        )
    print(f"geometric mean: {np.exp(np.mean(np.log(ratios))):.1f} times ten hmmlearn fits")


def best_hmmlearn(X: np.ndarray, covariance_type: str, n_states: int, n_init: int) -> float:
    """Best log-likelihood of a loop over seeds, hmmlearn's defaults but for the limits."""
    best = -np.inf
    for seed in range(n_init):
        model = GaussianHMM(n_states, covariance_type=covariance_type, random_state=seed, **LIMITS)
        with warnings.catch_warnings(), threadpool_limits(1):  # faster for it
            warnings.simplefilter("ignore")
            best = max(best, model.fit(X).score(X))
    return best


def long_series(most: int) -> None:
    """Grow the series tenfold at a time, each fit in a process of its own."""
    print("      rows  s per iteration  ns per row  peak over the observation matrix")
    rows = most
    sizes = []
    while rows >= 10_000:
        sizes.append(rows)
        rows //= 10
    for rows in reversed(sizes):
        subprocess.run([sys.executable, __file__, "--one", str(rows)], check=True)


def one_long_fit(n_rows: int, n_features: int = 4, n_states: int = 4) -> None:
    """Time ten iterations of one EM run and weigh the process."""
    rng = np.random.default_rng(0)
    scale = rng.integers(1, 4, n_rows // 50 + 1).repeat(50)[:n_rows, None]
    X = rng.standard_normal((n_rows, n_features))
    X *= scale
    del scale
    steps = one_sequence(n_rows)
    covars = np.outer(np.arange(1, n_states + 1), np.ones(n_features))
    transmat = np.full((n_states, n_states), 0.01) + (1 - 0.01 * n_states) * np.eye(n_states)
    even = np.full(n_states, 1 / n_states)
    start = GaussianParams(even, transmat, np.zeros((n_states, n_features)), covars)
    em(X[:1000], steps[:1000], start, n_iter=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    result = em(X, steps, start, n_iter=10, tol=-np.inf)
    spent = (time.perf_counter() - began) / len(result.history)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(
        f"{n_rows:10d} {spent:16.4f} {1e9 * spent / n_rows:11.1f} {grown / X.nbytes + 1:10.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
