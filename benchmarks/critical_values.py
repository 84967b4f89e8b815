r"""Make the table `MULTIPLIERS` of `hmm_exp/judge/gains.py`: python -m benchmarks.critical_values

For every number of bars n and every kind of worthless gain (mean zero) below, simulate series,
divide their means by the formula of `hac_error` with its window, and take the quantile that the
statistic exceeds in `level` of them, the larger of both signs. The table holds the worst kind.
Takes about two minutes on one core. With --check, print the level that each kind reaches instead.
"""

import sys
from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

from hmm_exp.judge.gains import bound_multiplier, window

BARS = (100, 200, 500, 1000, 2000, 5000, 20_000)
LEVELS = (0.05, 0.025, 0.01)
DRAWS = 20_000  # series of each kind and length; a fourth of it for the longest
BATCH = 2_000_000  # numbers held at once

Kind = Callable[[np.random.Generator, int, int], np.ndarray]


def normal(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """Independent."""
    return rng.standard_normal((draws, n))


def fat(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """Independent Student-t with three degrees of freedom."""
    return rng.standard_t(3, (draws, n))


def skewed(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """Independent chi-square with one degree of freedom: skewness 2.8."""
    return rng.standard_normal((draws, n)) ** 2 - 1.0


def autoregressive(phi: float) -> Kind:
    """First-order autoregression."""

    def kind(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
        shocks = rng.standard_normal((draws, n + 100))
        return lfilter([1.0], [1.0, -phi], shocks, axis=1)[:, 100:]

    return kind


def clustered(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """Uncorrelated, with a volatility that wanders: log AR(1) of persistence .98."""
    log_volatility = lfilter([1.0], [1.0, -0.98], rng.standard_normal((draws, n + 300)), axis=1)
    return np.exp(0.1 * log_volatility[:, 300:]) * rng.standard_normal((draws, n))


def regimes(dwell: float, ratio: float) -> Kind:
    """A mean that switches sign every `dwell` bars, under t noise of five degrees of freedom.

    `ratio` is that of long-run variance to variance, with an autocorrelation of share * rho^j.
    """
    rho = 1.0 - 2.0 / dwell
    share = (ratio - 1.0) / ((1.0 + rho) / (1.0 - rho) - 1.0)

    def kind(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
        flips = np.cumsum(rng.random((draws, n)) < 1.0 / dwell, axis=1)
        sign = 1.0 - 2.0 * ((flips + rng.integers(0, 2, (draws, 1))) % 2)
        noise = rng.standard_t(5, (draws, n)) * np.sqrt(3.0 / 5.0)
        return np.sqrt(share) * sign + np.sqrt(1.0 - share) * noise

    return kind


KINDS: dict[str, Kind] = {
    "normal": normal,
    "fat": fat,
    "skewed": skewed,
    "AR .3": autoregressive(0.3),
    "AR .7": autoregressive(0.7),
    "AR .9": autoregressive(0.9),
    "clustered": clustered,
    "regimes 50": regimes(50.0, 5.0),
}


def statistics(kind: Kind, n: int, draws: int, seed: int) -> np.ndarray:
    """Means over their errors, shape (draws,)."""
    rng = np.random.default_rng(seed)
    batch = max(BATCH // n, 1)
    sizes = [min(batch, draws - done) for done in range(0, draws, batch)]
    return np.concatenate([_studentised(kind(rng, size, n), window(n)) for size in sizes])


def _studentised(series: np.ndarray, width: int) -> np.ndarray:
    """The statistic of every row, by cumulative sums."""
    n = series.shape[1]
    mean = series.mean(axis=1, keepdims=True)
    deviation = np.pad(series - mean, ((0, 0), (0, width - 1)))
    sums = np.pad(np.cumsum(deviation, axis=1), ((0, 0), (width, 0)))
    inside = sums[:, width:] - sums[:, :-width]
    return mean[:, 0] * n / np.sqrt((inside**2).sum(axis=1) / width)


def main() -> None:
    """Print the table, or with --check the levels that it keeps."""
    check = "--check" in sys.argv
    for n in BARS:
        drawn = {
            name: statistics(kind, n, min(DRAWS, 100_000_000 // n), seed=n + len(name))
            for name, kind in KINDS.items()
        }
        for level in LEVELS:
            if check:
                limit = bound_multiplier(n, level)
                found = {k: max((t > limit).mean(), (t < -limit).mean()) for k, t in drawn.items()}
                text = "  ".join(f"{name} {share:.3f}" for name, share in found.items())
            else:
                found = {
                    name: max(np.quantile(t, 1.0 - level), np.quantile(-t, 1.0 - level))
                    for name, t in drawn.items()
                }
                worst = max(found, key=lambda name: found[name])
                text = f"{found[worst]:.2f} ({worst}; normal {found['normal']:.2f})"
            print(f"n={n:<6} level={level:<6} {text}", flush=True)


if __name__ == "__main__":
    main()
