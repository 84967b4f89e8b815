"""False alarms of the monitor on stationary markets, and its delay when volatility rises.

    python benchmarks/monitor.py [--markets 100] [--bars 8760]

A model is fitted once on the synthetic market and monitored on others. Without change: rows drawn
from its states and returns from its densities (with expectations from as many rows as the run held
out), and synthetic markets of the same law with other seeds. With a change: the latter, with every
price move after some time larger by a factor. The design rate is a false alarm in 5 % of stretches
of 1,000 bars, or one in 20,000 bars; the delay counts bars from the change.
"""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd

from hmm_exp.config import Config, DataConfig, ModelConfig, checked
from hmm_exp.detector.detector import Detector
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.features.build import FeatureTable
from hmm_exp.judge.volatility_baselines import BarSeries
from hmm_exp.market.bars import Bars
from hmm_exp.market.synthetic import make_market
from hmm_exp.monitor.cusum import HORIZON
from hmm_exp.monitor.expectations import Observations, expectations_of, make_expectations
from hmm_exp.monitor.monitor import MonitorResult, monitor_bars

CHANGE = 2_000  # bars after the settled ones at which a market moves
FACTORS = (1.25, 1.5, 2.0)
PRICES = ["open", "high", "low", "close"]


def trained(n_states: int) -> Detector:
    """The default run on the synthetic market."""
    config = Config(
        data=DataConfig(name="synthetic", bar_stamp="open"),
        model=replace(ModelConfig(), n_states=n_states),
    )
    return run(prepare(checked(config))).detector


def drawn(detector: Detector, n_rows: int, seed: int) -> tuple[FeatureTable, Bars]:
    """Rows of the model's own features and bars whose returns are drawn from its densities."""
    random, params = np.random.default_rng(seed), detector.params
    states = np.empty(n_rows, np.int64)
    states[0] = random.choice(params.n_states, p=params.stationary())
    steps = np.cumsum(params.transmat, axis=1)
    for t, u in enumerate(random.random(n_rows - 1), start=1):
        states[t] = min(np.searchsorted(steps[states[t - 1]], u), params.n_states - 1)
    roots = np.linalg.cholesky(params.full_covars())
    noise = random.standard_normal((n_rows, params.n_features))
    scaled = params.means[states] + np.einsum("tij,tj->ti", roots[states], noise)
    time = pd.date_range("2025-01-01", periods=n_rows, freq="h", tz="UTC", name="available_at")
    frame = pd.DataFrame(
        scaled * detector.scaler_scale + detector.scaler_mean,
        index=time.as_unit("ns"),
        columns=list(detector.recipe.columns),
    )
    table = FeatureTable(
        frame=frame,
        timestamp=pd.Series(time, index=time),
        steps=np.append(0, np.ones(n_rows - 1, np.int64)),
        warmup_rows=0,
        n_missing=0,
        recipe=detector.recipe,
    )
    yardstick = expectations_of(detector).yardstick
    assert yardstick is not None
    probs = detector.filtered(table).probs
    after = np.array([random.choice(params.n_states, p=p / p.sum()) for p in probs])
    returns = yardstick.loc[after] + yardstick.scale[after] * random.standard_t(
        yardstick.df, n_rows
    )
    close = 100 * np.exp(np.append(0, returns[:-1].cumsum()))
    return table, replace(make_market(2), frame=frame.assign(close=close), states=None)


class Given(Detector):
    """A detector that takes rows as they are, beside the bars they would come from."""

    rows: FeatureTable

    def observe(self, source):
        """The rows given."""
        return self.rows


def from_the_model(detector: Detector, n_markets: int, n_bars: int) -> list[MonitorResult]:
    """The promise made on a draw as long as the run's rows, held on a draw of `n_bars`."""
    held_out = expectations_of(detector).n_rows
    found = []
    for seed in range(n_markets):
        table, bars = drawn(detector, 3 * held_out, 2 * seed)
        end = table.available_at[2 * held_out]
        returns = np.append(np.diff(np.log(bars.frame["close"])), np.nan)
        fitted_on = (table.available_at[0], end)
        series = BarSeries(returns)
        seen = Observations(table, detector.filtered(table), table.available_at, series)
        promise = make_expectations(detector.params, seen, fitted_on)
        assert promise is not None
        given = Given(**(vars(detector) | {"expectations": promise.to_dict()}))
        table, bars = drawn(detector, n_bars, 2 * seed + 1)
        object.__setattr__(given, "rows", table)
        found.append(monitor_bars(given, bars))
    return found


def markets(
    detector: Detector, n_markets: int, n_bars: int, factor: float = 1.0
) -> list[MonitorResult]:
    """Synthetic markets of other seeds, their moves larger by `factor` from a bar on."""
    found = []
    for seed in range(1000, 1000 + n_markets):
        market = make_market(n_bars=n_bars + detector.min_history, seed=seed)
        found.append(
            monitor_bars(detector, _moved(market, factor, detector.min_history + CHANGE), _ever)
        )
    return found


_ever = pd.Timestamp("1970-01-01", tz="UTC")


def _moved(market: Bars, factor: float, start: int) -> Bars:
    """Every price from `start` on as far from the close before it as `factor` says."""
    frame = market.frame.copy()
    log = np.log(frame[PRICES].to_numpy())
    before = np.append(log[0, 0], log[:-1, 3])
    moves = log - before[:, None]
    moves[start:] *= factor
    close = log[0, 0] + np.cumsum(moves[:, 3])
    frame[PRICES] = np.exp(moves + np.append(log[0, 0], close[:-1])[:, None])
    return replace(market, frame=frame, states=None)


def quiet_row(name: str, found: list[MonitorResult]) -> dict:
    """How often each kind of chart cried, within HORIZON bars and at all."""
    row: dict = {"quiet": name}
    kinds = {"likelihood": "log-lik", "score": "next-bar", "shares": "time in"}
    for kind, begins in kinds.items():
        row[kind] = f"{np.mean([_cried(w, begins, HORIZON) for w in found]):.1%}"
    row["any"] = f"{np.mean([_cried(w, '', HORIZON) for w in found]):.1%}"
    n_bars = len(found[0].rows)
    row["any, all bars"] = f"{np.mean([_cried(w, '', n_bars) for w in found]):.1%}"
    return row


def _cried(watched: MonitorResult, begins: str, within: int) -> bool:
    last = watched.rows.index[min(within, len(watched.rows)) - 1]
    return any(f.name.startswith(begins) and f.alarm_at <= last for f in watched.alarms)


def moved_row(factor: float, found: list[MonitorResult]) -> dict:
    """Bars from the change to the first alarm of those that had not cried before."""
    delays = []
    for watched in found:
        at = [watched.rows.index.get_indexer([f.alarm_at])[0] - CHANGE for f in watched.alarms]
        if all(delay >= 0 for delay in at):
            delays.append(min(at, default=np.inf))
    first = [w.alarms[0].name for w in found if w.alarms]
    shares = {n: f"{first.count(n) / max(len(first), 1):.0%}" for n in sorted(set(first))}
    return {
        "moves times": factor,
        "seen within 1,000": f"{np.mean(np.array(delays) <= HORIZON):.0%}",
        "median delay": np.median(delays),
        "90 % within": np.quantile(delays, 0.9, method="higher"),
        "first to cry": shares,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=100)
    parser.add_argument("--bars", type=int, default=8760)
    parser.add_argument("--states", type=int, default=3)
    args = parser.parse_args()
    detector = trained(args.states)
    quiet = [
        quiet_row("drawn from the model", from_the_model(detector, args.markets, args.bars)),
        quiet_row("synthetic markets", markets(detector, args.markets, args.bars)),
    ]
    print(f"{args.markets} markets of {args.bars:,} bars, {args.states} states; false alarms")
    print(pd.DataFrame(quiet).to_string(index=False), end="\n\n")
    moved = [moved_row(f, markets(detector, args.markets, args.bars, f)) for f in FACTORS]
    print(pd.DataFrame(moved).to_string(index=False))


if __name__ == "__main__":
    main()
