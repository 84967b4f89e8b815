"""The strategy table on markets whose truth is known: false gains, and gains that are found.

    python benchmarks/strategy.py [--markets 200] [--bars 3000]

Every market goes the whole way at zero cost: file, log range, two states fitted on the first half,
invested states, positions, and the test of the family on the last 40 % of the bars.

Without regimes: independent Student-t returns (5 degrees of freedom) of 1 % with a drift of .04 %,
and the same normal. A gain is significant for the family (adjusted p below .05) in at most 5 % of
such markets if the test keeps its level. With regimes: two states as in a published daily market
(means .06 % and -.0881 %, deviations .757 % and 1.63 %, mean visits 417 and 43 bars), the same with
three times the means, and with visits of 100 bars and means that differ more.
"""

import argparse
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hmm_exp.config import Config, DataConfig, FeaturesConfig, ModelConfig, SplitConfig, checked
from hmm_exp.errors import FitError
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.market.bars import Bars
from hmm_exp.market.synthetic import MarketPlan, bars_of, tail_factors, unit_moves

LEVEL = 0.05


@dataclass(frozen=True)
class Law:
    """A market of one or two regimes: means and deviations of log returns, chances to leave."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    leave: tuple[float, ...] = (0.0,)
    df: float | None = None  # of Student-t returns; None for normal ones


WITHOUT = {
    "Student-t with drift": Law((0.0004,), (0.01,), df=5.0),
    "normal with drift": Law((0.0004,), (0.01,)),
}
DAILY = Law((0.0006, -0.000881), (0.00757, 0.0163), (0.0024, 0.0232))
WITH = {
    "published daily means": DAILY,
    "three times the means": replace(DAILY, means=(0.0018, -0.00264)),
    "visits of 100 bars, means +-.002": Law((0.002, -0.002), (0.00757, 0.0163), (0.01, 0.01)),
    "visits of 100 bars, means +-.001": Law((0.001, -0.001), (0.00757, 0.0163), (0.01, 0.01)),
}


def market(law: Law, n_bars: int, seed: int) -> Bars:
    """Bars of a law."""
    rng = np.random.default_rng(seed)
    states = np.zeros(n_bars, np.int64)
    for t in range(1, n_bars):
        leaves = rng.random() < law.leave[states[t - 1]]
        states[t] = 1 - states[t - 1] if leaves else states[t - 1]
    usual = np.array(law.deviations)[states]
    scale = usual * tail_factors(rng, n_bars, law.df) if law.df else usual
    plan = MarketPlan(states, usual, scale, np.array(law.means)[states], unit_moves(rng, n_bars))
    return bars_of(plan, rng, seed)


def smallest_p(bars: Bars, folder: Path) -> tuple[float, float]:
    """Smallest adjusted p-values of the regime rows and of all rows, by the whole path."""
    path = folder / "bars.parquet"
    bars.frame.reset_index(drop=True).to_parquet(path)
    config = Config(
        data=DataConfig(kind="bars", path=str(path), bar_stamp="open"),
        features=FeaturesConfig(name="range"),
        model=replace(ModelConfig(), n_states=2, n_init=2),
        split=replace(SplitConfig(), train=0.5, val=0.1, test=0.4),
    )
    config.strategy.cost_bp = 0.0
    try:
        result = run(prepare(checked(config)))
    except FitError:  # a chain that never forgets: no model and no gain
        return math.nan, math.nan
    assert result.strategies is not None
    rows = result.strategies.rows.set_index("strategy")[["return_p", "sharpe_p"]]
    regime = rows[rows.index.str.startswith("regime")]
    return float(np.nanmin(regime, initial=1.0)), float(np.nanmin(rows, initial=1.0))


def main() -> None:
    """Print the share of markets with a gain that is significant for the family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=200)
    parser.add_argument("--bars", type=int, default=3000)
    args = parser.parse_args()
    print(f"share of {args.markets} markets with an adjusted p below {LEVEL}")
    print(f"{'market':36} {'regime rows':>12} {'all rows':>10} {'no model':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name, law in (WITHOUT | WITH).items():
            found = [
                smallest_p(market(law, args.bars, seed), Path(folder))
                for seed in range(args.markets)
            ]
            p = np.array(found)
            regime, every = (p < LEVEL).mean(axis=0)
            failed = int(np.isnan(p[:, 0]).sum())
            print(f"{name:36} {regime:12.3f} {every:10.3f} {failed:10}", flush=True)


if __name__ == "__main__":
    main()
