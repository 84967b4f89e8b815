"""Coverage of the 95 % intervals of a two-state model, and the cost of its standard errors.

    python -m benchmarks.standard_errors [--draws 1000] [--bars 2000] [--n-init 4]

Every draw is a market of normal returns in two persistent regimes. The model is fitted as in a run;
the share of draws whose interval holds the true value should be .95, within .93 and .97. A draw
without an interval for a parameter does not count for it.
"""

import argparse
import time
from dataclasses import replace
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.ground_truth import draw, one_sequence, planted_params
from hmm_exp.hmm.fit import Search, fit
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.parallel import run_all
from hmm_exp.uncertainty.standard_errors import standard_errors

NAMES = ("a_00", "a_01", "a_10", "a_11", "mean_0", "mean_1", "deviation_0", "deviation_1")
MARKETS = {
    "50 and 33 bars": [[0.98, 0.02], [0.03, 0.97]],
    "200 and 100 bars": [[0.995, 0.005], [0.01, 0.99]],
}


def market(transmat) -> GaussianParams:
    """Hourly returns of a calm and a turbulent regime."""
    return planted_params([6e-5, -1.2e-4], [0.002, 0.014], transmat)


def values_of(params: GaussianParams) -> np.ndarray:
    """Transition probabilities, means and deviations in the order of `NAMES`."""
    parts = (params.transmat, params.means, params.deviations())
    return np.concatenate([part.ravel() for part in parts])


def coverage(truth: GaussianParams, n_bars: int, n_draws: int, n_init: int) -> np.ndarray:
    """Share of the draws whose interval holds the truth, by parameter, shape (8,)."""
    found = run_all(partial(_covered, truth, n_bars, n_init), range(n_draws))
    return np.nanmean(found, axis=0)


def _covered(truth: GaussianParams, n_bars: int, n_init: int, seed: int) -> np.ndarray:
    """Whether each interval of one draw holds the truth; NaN without an interval, shape (8,)."""
    X, _ = draw(truth, n_bars, np.random.default_rng([seed, n_bars]))
    mean, scale = X.mean(axis=0), X.std(axis=0)
    Z, steps = (X - mean) / scale, one_sequence(n_bars)
    fitted = fit(Z, steps, 2, Search(n_init=n_init, seed=seed, threads=1)).params
    params = fitted.reordered(np.argsort(fitted.covars[:, 0]))
    errors = standard_errors(params, Z, steps).in_units(mean, scale)
    lower, upper = (
        np.concatenate([getattr(part, end).ravel() for part in errors.parts])
        for end in ("lower", "upper")
    )
    values = values_of(truth)
    return np.where(np.isnan(lower), np.nan, (lower <= values) & (values <= upper))


def seconds(n_bars: int, n_states: int, n_features: int) -> float:
    """Least processor time of the errors of a model of this size, of five runs."""
    rng = np.random.default_rng(0)
    transmat = np.full((n_states, n_states), 0.01) + (1 - 0.01 * n_states) * np.eye(n_states)
    means = 2 * rng.normal(size=(n_states, n_features))
    even = np.full(n_states, 1 / n_states)
    params = GaussianParams(even, transmat, means, np.ones_like(means))
    states = draw(replace(params, means=means[:, :1], covars=params.covars[:, :1]), n_bars, rng)[1]
    X = means[states] + rng.normal(size=(n_bars, n_features))
    taken = []
    with threadpool_limits(limits=1, user_api="blas"):  # as in a run
        for _ in range(5):
            began = time.thread_time()
            standard_errors(params, X, one_sequence(n_bars))
            taken.append(time.thread_time() - began)
    return min(taken)


def main() -> None:
    """Print coverage and cost as markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--bars", type=int, default=2000)
    parser.add_argument("--n-init", type=int, default=4)
    args = parser.parse_args()
    print(f"Share of {args.draws} intervals of {args.bars} bars that hold the truth\n")
    print(f"| visits | {' | '.join(NAMES)} |")
    print("|---" * (len(NAMES) + 1) + "|")
    for name, transmat in MARKETS.items():
        share = coverage(market(transmat), args.bars, args.draws, args.n_init)
        print(f"| {name} | {' | '.join(f'{x:.3f}' for x in share)} |", flush=True)
    print("\n| bars | states | features | seconds |\n|---|---|---|---|")
    for size in ((28_000, 2, 3), (28_000, 5, 3), (28_000, 5, 9)):
        print(f"| {' | '.join(map(str, size))} | {seconds(*size):.3f} |")


if __name__ == "__main__":
    main()
