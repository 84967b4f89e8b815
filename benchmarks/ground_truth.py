"""Comparison with published figures: DAX returns, and planted states in simulated daily returns.

    python benchmarks/ground_truth.py [--draws 1000] [--dax dax_log_returns.csv] [--n-init 10]

Every fit is `hmm_exp.hmm.fit` with its defaults on standardised returns. Columns are balanced
accuracies (mean recall of the classes) of the Viterbi path and of the most probable smoothed and
filtered states, means over the draws with two standard errors; "true model" decodes with the
parameters that made the data, which no fit can beat for long. With two states they are matched by
volatility and an absent class counts as zero; with three the best permutation is taken and absent
classes are left out: the published figures were made that way. Every draw begins in any state with
equal probability: from the stationary distribution most short draws would never see the rare state,
and even the true model would stay below what is published.

Planted models and published figures: Nystrup, Lindström & Madsen 2020, "Learning hidden Markov
models with persistent states by penalizing jumps", Expert Systems with Applications 150.
DAX: Oelschläger & Adam 2021, R package fHMM, n = 5882 daily returns 2000 to 2022.
"""

import argparse
import time
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import numpy as np
from scipy.linalg import fractional_matrix_power

from hmm_exp.hmm import inference
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.fit import Fit, Search, fit
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.parallel import run_all


@dataclass(frozen=True, eq=False)
class Planted:
    """A model that makes daily returns, and what others recovered of it.

    Attributes
    ----------
    params
        States calm first, in units of daily log returns.
    published
        Balanced accuracy by length of the draw: HMM, best jump model, and what a well-started HMM
        is known to reach by its Viterbi path and filtered.
    permuted
        Whether the best permutation of states is taken, and absent classes are left out.
    """

    params: GaussianParams
    published: dict[int, tuple[float, float, float, float | None]]
    permuted: bool


def two_states() -> Planted:
    """Bull and bear market of daily returns."""
    params = planted_params(
        [0.0006, -0.000881], [0.00757, 0.0163], [[0.9976, 0.0024], [0.0232, 0.9768]]
    )
    published = {
        250: (0.531, 0.659, 0.669, 0.646),
        500: (0.648, 0.772, 0.769, 0.742),
        1000: (0.747, 0.888, 0.876, 0.840),
        2000: (0.779, 0.941, 0.923, 0.886),
    }
    return Planted(params, published, permuted=False)


def three_states() -> Planted:
    """Three monthly regimes, made daily: 20 days a month."""
    monthly = [[0.9629, 0.0185, 0.0186], [0.0618, 0.8764, 0.0618], [0.1051, 0.1050, 0.7899]]
    daily = fractional_matrix_power(np.array(monthly), 1 / 20).real
    daily /= daily.sum(axis=1, keepdims=True)
    means = np.array([0.0123, 0.0, -0.0157]) / 20
    params = planted_params(means, np.array([0.0347, 0.05, 0.0778]) / np.sqrt(20), daily)
    published = {
        500: (0.540, 0.743, 0.788, None),
        1000: (0.553, 0.753, 0.795, None),
        2000: (0.576, 0.781, 0.840, None),
    }
    return Planted(params, published, permuted=True)


def planted_params(means, sigmas, transmat) -> GaussianParams:
    """One feature, begun in any state."""
    K = len(means)
    covars = np.array(sigmas)[:, None] ** 2
    return GaussianParams(np.full(K, 1 / K), transmat, np.array(means)[:, None], covars)


def draw(params: GaussianParams, n_rows: int, rng: np.random.Generator):
    """Returns (n_rows, 1) and the states (n_rows,) that made them."""
    edges = np.cumsum(params.transmat, axis=1).tolist()
    states = np.empty(n_rows, dtype=np.int64)
    state = int(rng.choice(params.n_states, p=params.startprob))
    for t, u in enumerate(rng.random(n_rows)):
        states[t] = state
        row = edges[state]
        state = sum(u > edge for edge in row[:-1])
    noise = rng.standard_normal(n_rows)
    X = params.means[states, 0] + np.sqrt(params.covars[states, 0]) * noise
    return X[:, None], states


def recovered(planted: Planted, n_rows: int, n_init: int, seed: int) -> list[float]:
    """Balanced accuracy of every decoding on one draw."""
    rng = np.random.default_rng([seed, n_rows, planted.params.n_states])
    returns, states = draw(planted.params, n_rows, rng)
    X = (returns - returns.mean()) / returns.std()
    steps = one_sequence(n_rows)
    search = Search(n_init=n_init, seed=seed, threads=1)
    fitted = fit(X, steps, planted.params.n_states, search)
    params = fitted.params.reordered(np.argsort(fitted.params.covars[:, 0]))
    accuracy = best_permutation if planted.permuted else balanced_accuracy
    found = [accuracy(states, path, params.n_states) for path in decoded(params, X, steps)]
    truth = decoded(planted.params, returns, steps)[0]
    named = present_accuracy if planted.permuted else balanced_accuracy  # its states have names
    return [*found, named(states, truth, params.n_states)]


def decoded(params: GaussianParams, X: np.ndarray, steps: np.ndarray) -> list[np.ndarray]:
    """Viterbi path, most probable smoothed and filtered states, each (T,)."""
    chain = (params.startprob, params.transmat, log_density(params, X), steps)
    viterbi = inference.viterbi(*chain).states
    smoothed, filtered = inference.smooth(*chain).probs, inference.filter(*chain).probs
    return [viterbi, smoothed.argmax(axis=1), filtered.argmax(axis=1)]


def balanced_accuracy(states: np.ndarray, path: np.ndarray, n_states: int) -> float:
    """Mean recall of all classes, zero for an absent one."""
    counts = confusion(states, path, n_states)
    return float(np.mean(np.diagonal(counts) / np.maximum(counts.sum(axis=1), 1)))


def best_permutation(states: np.ndarray, path: np.ndarray, n_states: int) -> float:
    """Mean recall of the classes present under the best naming of the states found."""
    names = (np.array(name) for name in permutations(range(n_states)))
    return max(present_accuracy(states, name[path], n_states) for name in names)


def present_accuracy(states: np.ndarray, path: np.ndarray, n_states: int) -> float:
    """Mean recall of the classes present."""
    counts = confusion(states, path, n_states)
    present = counts.sum(axis=1) > 0
    return float(np.mean(np.diagonal(counts)[present] / counts.sum(axis=1)[present]))


def confusion(states: np.ndarray, path: np.ndarray, n_states: int) -> np.ndarray:
    """Rows by true and found state, shape (K, K)."""
    return np.bincount(states * n_states + path, minlength=n_states**2).reshape(n_states, n_states)


def accuracies(planted: Planted, n_rows: int, n_draws: int, n_init: int = 10) -> np.ndarray:
    """Balanced accuracy of every draw and decoding, shape (n_draws, 4)."""
    return np.array(run_all(partial(recovered, planted, n_rows, n_init), range(n_draws)))


def fit_dax(path) -> tuple[Fit, float]:
    """Default fit of the standardised DAX returns, and its log-likelihood in raw units."""
    returns = np.loadtxt(path, delimiter=",", skiprows=1, usecols=-1)
    X = ((returns - returns.mean()) / returns.std())[:, None]
    fitted = fit(X, one_sequence(len(X)), n_states=2)
    return fitted, fitted.log_lik - len(X) * float(np.log(returns.std()))


def one_sequence(n_rows: int) -> np.ndarray:
    """Chain steps of rows without a gap."""
    steps = np.ones(n_rows, dtype=np.int64)
    steps[0] = 0
    return steps


def main() -> None:
    """Print the tables as markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--n-init", type=int, default=10)
    parser.add_argument("--dax", help="CSV of dates and daily log returns")
    args = parser.parse_args()
    if args.dax:
        fitted, log_lik = fit_dax(args.dax)
        print(f"DAX: log-likelihood {log_lik:.3f} ({fitted.status}), fHMM publishes 17403.605\n")
    began = time.perf_counter()
    for planted in (two_states(), three_states()):
        print_table(planted, args.draws, args.n_init)
    print(f"{args.draws} draws of every length, {time.perf_counter() - began:.0f} s")


def print_table(planted: Planted, n_draws: int, n_init: int) -> None:
    """One line per length; ± is two standard errors."""
    print(
        f"| {planted.params.n_states} states, T | Viterbi | smoothed | filtered | true model |"
        " published HMM | best jump model | reachable: Viterbi | filtered |"
    )
    print("|" + "---|" * 9)
    for n_rows, published in planted.published.items():
        found = accuracies(planted, n_rows, n_draws, n_init)
        mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(n_draws)
        ours = [f"{m:.3f} ± {2 * e:.3f}" for m, e in zip(mean, error, strict=True)]
        theirs = ["" if figure is None else f"{figure:.3f}" for figure in published]
        print(f"| {n_rows} | {' | '.join([*ours, *theirs])} |", flush=True)
    print()


if __name__ == "__main__":
    main()
