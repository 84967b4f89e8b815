"""Panels of simulated gains whose truth is known: false promotions, power, and seconds.

    nice python -m benchmarks.panel_fdr [--panels 200] [--only worthless factor]

A symbol's gain per bar has heavy tails (Student-t, 5 degrees of freedom), a volatility that wanders
(log AR(1) of persistence .98), a deviation of .5 nats, and 4,000 test bars of one hour. A third of
the symbols starts up to 2,000 bars later, and every symbol misses 1 % of its bars. A symbol has one
gain, of mean zero where it is worthless: a second gain can only make its p-value larger.

worthless    50 independent symbols without a gain; share of panels that promote any (at most 5 %)
factor       the same, where half of the variance of each symbol is one common series
planted      50 symbols, 10 with a mean gain of .01, .02 or .03 nats, half as many panels; mean
             share of false ones among the promoted (at most 5 %), and share of the planted ones
             that is promoted
agreement    panels of one symbol at a rate of 2.5 %, with a mean gain of 0 and of .02, compared
             with the sign of the lower bound of 2.5 %
time         500 symbols x 4,000 bars x 10,000 draws: CPU seconds on one core, and growth of memory
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from hmm_exp.judge.gains import estimate_gain, hac_error
from hmm_exp.judge.panel import (
    bound_p_value,
    calendar_of,
    judge_panel,
    promotions,
    symbol_p_value,
)

N_SYMBOLS, N_BARS, DEVIATION = 50, 4000, 0.5
HOURS = pd.date_range("2024-01-01", periods=N_BARS, freq="h", tz="UTC")
MEANS = (0.01, 0.02, 0.03)
N_PLANTED = 10
RATE = 0.05


def noise(rng: np.random.Generator, n_series: int) -> np.ndarray:
    """Series of mean zero and unit deviation with heavy tails and clusters, (n_series, N_BARS)."""
    shocks = rng.standard_normal((n_series, N_BARS + 300))
    log_volatility = 0.1 * lfilter([1.0], [1.0, -0.98], shocks, axis=1)[:, 300:]
    variance = 0.01 / (1.0 - 0.98**2)
    tails = rng.standard_t(5, (n_series, N_BARS)) * np.sqrt(3.0 / 5.0)
    return np.exp(log_volatility - variance) * tails


def panel(rng: np.random.Generator, means: np.ndarray, common: float) -> dict[str, pd.DataFrame]:
    """Gains of a panel; `common` is the share of the variance that all symbols have in common."""
    own, factor = noise(rng, len(means)), noise(rng, 1)
    gains = np.sqrt(1.0 - common) * own + np.sqrt(common) * factor
    return {
        f"S{i:03d}": _with_gaps(rng, mean + DEVIATION * gain)
        for i, (mean, gain) in enumerate(zip(means, gains, strict=True))
    }


def _with_gaps(rng: np.random.Generator, gain: np.ndarray) -> pd.DataFrame:
    first = rng.integers(N_BARS // 2) if rng.random() < 1.0 / 3.0 else 0
    there = (rng.random(N_BARS) > 0.01) & (np.arange(N_BARS) >= first)
    return pd.DataFrame({"return_gain": gain[there]}, index=HOURS[there])


def decisions(gains: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """`judge_panel`, without draws for symbols whose `bound_p_value` is above the rate.

    Their p-value is at least that large. Neither method promotes a symbol of a p-value above the
    rate, and its exact size changes no q up to the rate.
    """
    calendar = calendar_of(table.index for table in gains.values())
    found = {}
    for symbol, table in gains.items():
        gain = table["return_gain"].to_numpy()
        found[symbol] = bound_p_value(gain.mean() / hac_error(gain), len(gain))
        if found[symbol] <= RATE:
            found[symbol] = symbol_p_value(table, calendar)
    return promotions(pd.Series(found), RATE)


def worthless(n_panels: int, common: float = 0.0) -> str:
    """Share of panels without a gain that promote a symbol."""
    any_bh, any_by, low = [], [], []
    for seed in range(n_panels):
        table = decisions(panel(np.random.default_rng(seed), np.zeros(N_SYMBOLS), common))
        any_bh.append(table["promoted"].any())
        any_by.append((table["q_by"] <= RATE).any())
        low += [(table["p"] <= limit).mean() for limit in (0.05, 0.01, 0.001)]
    shares = np.reshape(low, (-1, 3)).mean(axis=0)
    return (
        f"{n_panels} panels: {np.mean(any_bh):.1%} promote a symbol, {np.mean(any_by):.1%} by BY; "
        f"p up to .05, .01, .001 in {shares[0]:.2%}, {shares[1]:.2%}, {shares[2]:.3%} of symbols"
    )


def planted(n_panels: int) -> str:
    """Mean share of false promotions, and power, where a fifth of the symbols gains."""
    means = np.zeros(N_SYMBOLS)
    means[:N_PLANTED] = np.resize(MEANS, N_PLANTED)
    false, found, found_by = [], [], []
    for seed in range(n_panels):
        table = decisions(panel(np.random.default_rng(10_000 + seed), means, 0.0))
        promoted = table["promoted"].to_numpy()
        false.append(promoted[N_PLANTED:].sum() / max(promoted.sum(), 1))
        found.append(promoted[:N_PLANTED])
        found_by.append(table["q_by"].to_numpy()[:N_PLANTED] <= RATE)
    power, mine = np.mean(found, axis=0), means[:N_PLANTED]
    by_mean = ", ".join(f"{mean:g}: {power[mine == mean].mean():.1%}" for mean in MEANS)
    return (
        f"{n_panels} panels: false share {np.mean(false):.2%}; "
        f"power {power.mean():.1%} ({by_mean}), {np.mean(found_by):.1%} by BY"
    )


def agreement(n_symbols: int) -> str:
    """Decisions of panels of one symbol, compared with those of the lower bound."""
    parts = []
    for mean in (0.0, 0.02):
        same, above, promoted = [], [], []
        symbols = panel(np.random.default_rng(20_000), np.full(n_symbols, mean), 0.0)
        for symbol, gains in symbols.items():
            estimate = estimate_gain(gains["return_gain"].to_numpy(), n_draws=1)
            assert estimate is not None
            above.append(estimate.bound > 0.0)
            promoted.append(judge_panel({symbol: gains}, 0.025)["promoted"].iloc[0])
            same.append(above[-1] == promoted[-1])
        parts.append(
            f"mean {mean:g}: the same in {np.mean(same):.1%}, "
            f"bound above zero {np.mean(above):.1%}, promoted {np.mean(promoted):.1%}"
        )
    return "; ".join(parts)


class _Drawn(Mapping[str, pd.DataFrame]):
    """A panel whose symbols are drawn when they are asked for, as if read from files."""

    def __init__(self, n_symbols: int) -> None:
        self.names = [f"S{i:03d}" for i in range(n_symbols)]

    def __getitem__(self, symbol: str) -> pd.DataFrame:
        rng = np.random.default_rng(int(symbol[1:]))
        return _with_gaps(rng, DEVIATION * noise(rng, 1)[0])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def seconds(n_symbols: int) -> str:
    """CPU seconds and growth of memory of a large panel."""
    judge_panel(_Drawn(5))  # compiles, and touches the memory that any panel needs
    before, began = _peak_megabytes(), time.process_time()
    judge_panel(_Drawn(n_symbols))
    spent = time.process_time() - began
    return f"{n_symbols} symbols: {spent:.1f} s of CPU, memory +{_peak_megabytes() - before:.0f} MB"


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print one line for each part."""
    parts: dict[str, Callable[[int], str]] = {
        "worthless": worthless,
        "factor": lambda n: worthless(n, 0.5),
        "planted": lambda n: planted(max(n // 2, 1)),
        "agreement": lambda n: agreement(10 * n),
        "time": lambda n: seconds(500),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panels", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args()
    for name in options.only:
        print(f"{name:12s}{parts[name](options.panels)}", flush=True)


if __name__ == "__main__":
    main()
