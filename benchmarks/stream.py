"""Time of `update` for one bar of a stream, and its growth.

    python benchmarks/stream.py [--bars 100000]

v1v2 on four timeframes of hourly bars, four states. Asked: median at most 25 microseconds, 99th
percentile under 100, flat over 100,000 bars. Times are of a caller's dict to the regime.
"""

import argparse
import time

import numpy as np
import pandas as pd

from hmm_exp.detector.detector import Detector
from hmm_exp.detector.kernel import constants_of, new_state, run
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.synthetic import make_market

BAR = ["timestamp", "open", "high", "low", "close", "volume"]
TENTHS = 10


def four_states(recipe: Recipe) -> Detector:
    """A detector whose states are as good as any for a clock."""
    random, K, D = np.random.default_rng(0), 4, len(recipe.columns)
    return Detector(
        recipe=recipe,
        scaler_mean=np.zeros(D),
        scaler_scale=random.uniform(0.01, 1, D),
        params=GaussianParams(
            startprob=np.full(K, 1 / K),
            transmat=np.eye(K) * 0.9 + 0.025,
            means=random.normal(size=(K, D)),
            covars=random.uniform(1, 4, (K, D)),
        ),
        labels=("vol-0", "vol-1", "vol-2", "vol-3"),
        step=pd.Timedelta(hours=1),
        reading=ReadOptions("open"),
        name="synthetic",
        min_history=1000,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", type=int, default=100_000)
    n_bars = parser.parse_args().bars
    detector = four_states(Recipe.of_set("v1v2", ["1H", "4H", "12H", "1D"]))
    market = make_market(n_bars=n_bars + 2000)
    stream = detector.stream(market.frame[BAR].iloc[:2000])
    times = np.empty(n_bars)
    for i, bar in enumerate(market.frame[BAR].iloc[2000:].to_dict("records")):
        began = time.perf_counter_ns()
        stream.update(bar)
        times[i] = time.perf_counter_ns() - began
    times /= 1000
    print(f"update, {n_bars:,} bars, microseconds (asked: median 25, 99 % under 100)")
    for name, q in (("median", 50), ("90 %", 90), ("99 %", 99), ("99.9 %", 99.9)):
        print(f"  {name:8}{np.percentile(times, q):8.1f}")
    tenths = [np.median(part) for part in np.array_split(times, TENTHS)]
    print("  median of each tenth of the bars:", *(f"{tenth:.1f}" for tenth in tenths))

    settings, state = constants_of(stream.model), new_state(stream.model)
    rows = np.empty(len(market) + 1, np.int64), np.empty((len(market) + 1, 4))
    began = time.perf_counter()
    run(*settings, *state, market.time, market.ohlcv, *rows)
    seconds = time.perf_counter() - began
    print(f"compiled step alone {seconds / len(market) * 1e6:8.2f} (seen elsewhere: 1.5)")


if __name__ == "__main__":
    main()
