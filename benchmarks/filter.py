"""Time of the filter against hmmlearn, its growth with length, and features of a long file.

    python benchmarks/filter.py [--rows 1000000] [--without-hmmlearn]

K=4, D=6, diagonal covariances, density included. Asked at 1 million rows: 15 times faster than
hmmlearn's `predict_proba` by default and 5 times than with `implementation="scaling"` (it smooths
as well, there is no filter to compare with); linear to 10 million rows with at most two arrays of
T x K beyond the input. Features of 1 million one-minute bars with 5min, 1H and 4H: 0.5 s.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from hmm_exp.features.build import build_features
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.inference import filter_rows
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.market.synthetic import make_market

K, D = 4, 6


def four_states() -> GaussianParams:
    """States that overlap somewhat."""
    random = np.random.default_rng(0)
    return GaussianParams(
        startprob=np.full(K, 1 / K),
        transmat=np.eye(K) * 0.9 + 0.025,
        means=random.normal(size=(K, D)),
        covars=random.uniform(0.5, 2, (K, D)),
    )


def drawn(params: GaussianParams, n_rows: int) -> np.ndarray:
    """Rows of the model, shape (T, D)."""
    random = np.random.default_rng(1)
    states = np.repeat(random.integers(0, K, n_rows // 10 + 1), 10)[:n_rows]
    return params.means[states] + random.normal(size=(n_rows, D)) * np.sqrt(params.covars)[states]


def best_of(n_times: int, work: Callable[[], object]) -> float:
    """Shortest seconds of some runs."""
    seconds = []
    for _ in range(n_times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def one_sequence(n_rows: int) -> np.ndarray:
    """Chain steps as a feature table has them."""
    return np.r_[0, np.ones(n_rows - 1, dtype=np.int64)]


def filtered(params: GaussianParams, X: np.ndarray, steps: np.ndarray) -> object:
    """What is measured: rows to filtered probabilities."""
    return filter_rows(params, X, steps, params.stationary())


def against_hmmlearn(params: GaussianParams, X: np.ndarray, with_hmmlearn: bool) -> None:
    """Print seconds of both sides and their ratios."""
    steps = one_sequence(len(X))
    filtered(params, X[:10], steps[:10])
    ours = best_of(5, lambda: filtered(params, X, steps))
    print(f"filter of {len(X):,} rows      {ours:8.3f} s")
    if not with_hmmlearn:
        return
    for implementation, asked in (("log", 15), ("scaling", 5)):
        model = params.to_hmmlearn()
        model.implementation = implementation
        theirs = best_of(2, lambda model=model: model.predict_proba(X))
        print(
            f"hmmlearn predict_proba, {implementation:8}{theirs:8.3f} s   "
            f"{theirs / ours:5.1f} times as long (asked: {asked})"
        )


def growth(params: GaussianParams, n_rows: int) -> None:
    """Print seconds and memory at ten times the rows."""
    X = drawn(params, 10 * n_rows)
    steps = one_sequence(len(X))
    seconds = best_of(2, lambda: filtered(params, X, steps))
    tracemalloc.start()  # numpy tells it of its arrays
    filtered(params, X, steps)
    arrays = tracemalloc.get_traced_memory()[1] / (8 * len(X) * K)
    print(
        f"filter of {len(X):,} rows     {seconds:8.3f} s   {seconds / len(X) * 1e9:.0f} ns a row, "
        f"{arrays:.1f} arrays of T x K beyond the input, a vector of T among them (asked: 2)"
    )


def features(n_rows: int) -> None:
    """Print seconds of all features of one-minute bars."""
    market, minute = make_market(n_bars=n_rows), pd.Timedelta(minutes=1)
    opened = pd.date_range("2021-01-01", periods=n_rows, freq=minute, tz="UTC", unit="ns")
    frame = market.frame.assign(timestamp=opened)
    frame.index = (opened + minute).rename("available_at")
    bars = replace(market, frame=frame, step=minute, states=None)
    recipe = Recipe.of_set("v1v2", ["1min", "5min", "1H", "4H"])
    build_features(replace(bars, frame=frame.iloc[:60_000]), recipe)
    seconds = best_of(3, lambda: build_features(bars, recipe))
    print(f"{len(recipe.columns)} features of {n_rows:,} bars {seconds:8.3f} s   (asked: 0.5)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--without-hmmlearn", action="store_true")
    args = parser.parse_args()
    params = four_states()
    against_hmmlearn(params, drawn(params, args.rows), not args.without_hmmlearn)
    features(args.rows)
    growth(params, args.rows)


if __name__ == "__main__":
    main()
