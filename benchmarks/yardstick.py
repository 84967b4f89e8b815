"""Time to fit the densities of the return forecast and to score a million bars.

    python benchmarks/yardstick.py [--bars 1000000] [--states 4]

Asked at a million bars: at most 2 s for the scores of model and baselines. Compiled code is loaded
before the clock starts; the least of three is shown.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from hmm_exp.judge.gains import estimate_gain
from hmm_exp.judge.return_forecasts import fit_baselines, fit_return_densities, score_bars
from hmm_exp.judge.volatility_baselines import BarSeries


def market(n_bars: int, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    """State probabilities (N, K) and next returns (N,) that follow them."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(n_states, 0.3), n_bars)
    state = (probs.cumsum(axis=1) > rng.random((n_bars, 1))).argmax(axis=1)
    return probs, 0.002 * 2.0**state * rng.standard_t(4.0, n_bars)


def seconds(work: Callable[[], object]) -> float:
    """Least of three."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    """Print a line for each piece of work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", type=int, default=1_000_000)
    parser.add_argument("--states", type=int, default=4)
    args = parser.parse_args()
    probs, returns = market(args.bars, args.states)
    hour = np.arange(args.bars + 1) % 24
    series = BarSeries(returns, np.abs(np.roll(returns, 1)), hour[:-1], hour[1:])
    yardstick, baselines = fit_return_densities(probs, returns), fit_baselines(series)
    scores = score_bars(yardstick, baselines, probs, series)
    gain = (scores["model"] - scores["ewma"]).to_numpy()
    estimate_gain(gain[:1000])
    works: dict[str, Callable[[], object]] = {
        "scores of model and baselines": lambda: score_bars(yardstick, baselines, probs, series),
        "a gain's error, bound and interval": lambda: estimate_gain(gain),
        f"fit of {args.states} densities": lambda: fit_return_densities(probs, returns),
        "fit of the baselines": lambda: fit_baselines(series),
    }
    for name, work in works.items():
        print(f"{args.bars:,} bars: {name} {seconds(work):.2f} s", flush=True)


if __name__ == "__main__":
    main()
