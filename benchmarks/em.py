"""Time per EM iteration against hmmlearn on two feature sets of one series; one thread each.

    python benchmarks/em.py DATA.npz [--states 2,3,5,8] [--repeats 5]

DATA.npz holds arrays of shape (rows, features), scaled, without missing rows. For every set, "diag"
and "full", and number of states: all three engines start from the same parameters and run in turns,
medians over the turns; ratios are within this one run. The last columns check that the engines did
the same work: the relative distance of the log-likelihood histories, and E steps in the log domain.
"""

import argparse
import logging
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from hmm_exp.hmm.em import em
from hmm_exp.hmm.em_rows import Rows, lay_out
from hmm_exp.hmm.params import GaussianParams

HMMLEARN_ITERATIONS = 4
OWN_ITERATIONS = 40


def start(X: np.ndarray, n_states: int, covariance_type: str, seed: int = 0) -> GaussianParams:
    """States by size of the first column, sticky transitions."""
    K, D = n_states, X.shape[1]
    group = np.argsort(np.argsort(abs(X[:, 0]), kind="stable")) * K // len(X)
    full = np.array([np.cov(X[group == k].T) + 1e-3 * np.eye(D) for k in range(K)])
    return GaussianParams(
        startprob=np.full(K, 1 / K),
        transmat=np.eye(K) * 0.97 + 0.03 / K,
        means=np.array([X[group == k].mean(axis=0) for k in range(K)]),
        covars=full if covariance_type == "full" else np.array([np.diag(c) for c in full]),
        covariance_type=covariance_type,
    )


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
    """Wall time of one call."""
    begin = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begin)


def measure(X: np.ndarray, rows: Rows, params: GaussianParams, repeats: int) -> dict:
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--states", default="2,3,5,8")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    ratios = []
    print("set  type  K    log ms  scaling ms   own ms  ns/row  x log  x scaling    apart  in logs")
    with np.load(arguments.data) as sets:
        for name in sets:
            X = sets[name]
            rows = lay_out(X, np.r_[0, np.ones(len(X) - 1, dtype=np.int64)])
            for covariance_type in ("diag", "full"):
                for K in map(int, arguments.states.split(",")):
                    m = measure(X, rows, start(X, K, covariance_type), arguments.repeats)
                    ratios.append((m["log"] / m["own"], m["scaling"] / m["own"]))
                    print(
                        f"{name:4s} {covariance_type:4s} {K:2d} {m['log']:9.2f}"
                        f" {m['scaling']:11.2f} {m['own']:8.3f} {1e6 * m['own'] / len(X):7.1f}"
                        f" {ratios[-1][0]:6.1f} {ratios[-1][1]:10.1f} {m['apart']:8.0e}"
                        f" {m['in_logs']:8d}"
                    )
    log_mean, scaling_mean = np.exp(np.log(ratios).mean(axis=0))
    print(f"geometric mean: {log_mean:.1f} times 'log', {scaling_mean:.1f} times 'scaling'")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
