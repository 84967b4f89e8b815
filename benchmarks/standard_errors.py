"""Coverage of the 95 % intervals of a two-state model, and the cost of its standard errors.

    python -m benchmarks.standard_errors [--draws 1000] [--bars 2000] [--n-init 4]

Every draw is a market of normal returns in two persistent regimes. The model is fitted as in a run;
the share of draws whose interval holds the true value should be .95, within .93 and .97. A draw
without an interval for a parameter does not count for it.
"""

import argparse
import time
from functools import partial

import numpy as np

from benchmarks.ground_truth import draw, one_sequence, planted_params
from hmm_exp.hmm.fit import Search, fit
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.standard_errors import deviations_of, standard_errors
from hmm_exp.parallel import run_all

NAMES = ("a_00", "a_01", "a_10", "a_11", "mean_0", "mean_1", "deviation_0", "deviation_1")
MARKETS = {
    "visits of 50 and 33 bars": [[0.98, 0.02], [0.03, 0.97]],
    "visits of 200 and 100 bars": [[0.995, 0.005], [0.01, 0.99]],
}


def market(transmat) -> GaussianParams:
    """Hourly returns of a calm and a turbulent regime."""
    return planted_params([6e-5, -1.2e-4], [0.002, 0.014], transmat)


def values_of(params: GaussianParams) -> np.ndarray:
    """Transition probabilities, means and deviations in the order of `NAMES`."""
    parts = (params.transmat, params.means, deviations_of(params))
    return np.concatenate([part.ravel() for part in parts])


def covered(truth: GaussianParams, n_bars: int, n_init: int, seed: int) -> np.ndarray:
    """Whether each interval holds the truth, and the same for the sandwich; NaN without, (2, 8)."""
    X, _ = draw(truth, n_bars, np.random.default_rng([seed, n_bars]))
    mean, scale = X.mean(axis=0), X.std(axis=0)
    steps = one_sequence(n_bars)
    search = Search(n_init=n_init, seed=seed, threads=1)
    fitted = fit((X - mean) / scale, steps, 2, search).params
    params = fitted.reordered(np.argsort(fitted.covars[:, 0]))
    values = values_of(truth)
    found = []
    for window in (1, round(3 * np.sqrt(n_bars))):
        errors = standard_errors(params, (X - mean) / scale, steps, window=window)
        parts = errors.in_units(mean, scale)
        ends = [
            np.concatenate([getattr(part, end).ravel() for part in _kinds(parts)])
            for end in ("lower", "upper")
        ]
        inside = (ends[0] <= values) & (values <= ends[1])
        found.append(np.where(np.isnan(ends[0]), np.nan, inside))
    return np.array(found)


def _kinds(errors):
    return errors.transmat, errors.means, errors.deviations


def main() -> None:
    """Print a line per parameter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--bars", type=int, default=2000)
    parser.add_argument("--n-init", type=int, default=4)
    args = parser.parse_args()
    for name, transmat in MARKETS.items():
        began = time.perf_counter()
        one = partial(covered, market(transmat), args.bars, args.n_init)
        found = np.array(run_all(one, range(args.draws)))  # (draws, 2, 8)
        print(f"{name}, {args.draws} draws of {args.bars} bars, {time.perf_counter() - began:.0f} s")
        print("| parameter | information | sandwich with window | draws with an interval |")
        print("|---|---|---|---|")
        for i, parameter in enumerate(NAMES):
            share = np.nanmean(found[:, :, i], axis=0)
            n = int(np.isfinite(found[:, 0, i]).sum())
            print(f"| {parameter} | {share[0]:.3f} | {share[1]:.3f} | {n} |")


if __name__ == "__main__":
    main()
