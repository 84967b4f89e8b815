r"""One model for all symbols against a model of each: differences of scores on validation.

>>> one = against_own("BTC", scores, own)      # the same bars under the pooled and the own model
>>> found = PoolComparison.of([one, ...])
>>> print(found.sentence)
one model for all forecasts validation about as well as the models of each symbol: +0.0003 nats ...

*By symbol.* The difference of the two models' log scores on every validation bar that both score,
with the interval of `gains.py`.

*In the mean.* Symbols share time, so their differences are no independent evidence. With d_si the
difference of symbol s at instant i, n_s its bars, S symbols and T instants, the series

    g_i = m + (T / S) sum_s (d_si - m_s) / n_s,     m_s = mean_i d_si,     m = mean_s m_s

has the mean m. Where all symbols have all instants, it is the average over symbols at each instant.
Its error under autocorrelation is that of Driscoll & Kraay (1998, Review of Economics and
Statistics 80): whatever the dependence of symbols at one instant and at instants nearby, it is in
the averages. Akgun, Pirotte, Urga & Yang (2024, International Journal of Forecasting 40) test equal
predictive ability in panels this way. Every symbol has the same weight; the interval is about these
symbols, not about others.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hmm_exp.errors import counted
from hmm_exp.judge.gains import MIN_BARS, GainEstimate, estimate_gain
from hmm_exp.judge.wording import BETTER, WORSE, WordedGain, signed

COLUMNS = (
    *("symbol", "gain_val", "gain_test", "own_gain_val"),
    *("difference", "low", "high", "word"),
)
OWN_MODELS = "the models of each symbol"


class PanelMean:
    """Mean over symbols of a gain per bar, whose error counts the time that symbols share.

    Symbols are added one by one; memory is that of one series.
    """

    def __init__(self) -> None:
        self._deviations = pd.Series(dtype=np.float64)
        self._means: list[float] = []

    def add(self, gain: pd.Series) -> None:
        """Add a symbol: gain per bar, index its instants, NaN where not scored.

        A symbol with fewer than `MIN_BARS` scored bars does not count.
        """
        gain = gain.dropna()
        if len(gain) < MIN_BARS:
            return
        mean = float(gain.mean())
        self._deviations = self._deviations.add((gain - mean) / len(gain), fill_value=0.0)
        self._means.append(mean)

    @property
    def n_symbols(self) -> int:
        """Symbols that count."""
        return len(self._means)

    def series(self) -> pd.Series:
        """The series whose mean is that of the symbols, by instant; empty without a symbol."""
        if not self._means:
            return self._deviations
        scale = len(self._deviations) / len(self._means)
        return float(np.mean(self._means)) + scale * self._deviations

    def estimate(self) -> GainEstimate | None:
        """The mean with its interval; None without a symbol. `n_bars` counts instants."""
        return estimate_gain(self.series().to_numpy())


@dataclass(frozen=True, eq=False)
class AgainstOwn:
    """A symbol under the pooled model and under its own."""

    symbol: str
    # `gain_val`, `gain_test`: of the pooled model over the static Student-t, nats per bar; and that
    # of its own model. NaN where there are no scores.
    gain_val: float
    gain_test: float
    own_gain_val: float
    difference: pd.Series  # pooled less own score on validation, nats; empty without an own model
    estimate: GainEstimate | None  # of its mean; None with fewer than `MIN_BARS` bars

    @property
    def worded(self) -> WordedGain | None:
        """The difference in words."""
        return None if self.estimate is None else WordedGain.of(OWN_MODELS, self.estimate)

    @property
    def row(self) -> tuple[str, float, float, float, float, float, float, str]:
        """Values of `COLUMNS`."""
        worded = self.worded
        found = (worded.mean, worded.low, worded.high) if worded else (np.nan,) * 3
        gains = (self.gain_val, self.gain_test, self.own_gain_val)
        return (self.symbol, *gains, *found, worded.word if worded else "")


def against_own(symbol: str, scores: pd.DataFrame, own: pd.DataFrame | None) -> AgainstOwn:
    """Compare two models' scores of one symbol.

    Parameters
    ----------
    scores, own
        Of the pooled model and of the symbol's own: index `available_at`, columns `split`,
        `model_score` and `static_score`, nats; `own` is None without such a model. Bars count that
        are validation of both.
    """
    difference = pd.Series(dtype=np.float64)
    if own is not None:
        pair = [table.loc[table["split"] == "val", "model_score"] for table in (scores, own)]
        pooled, alone = pair[0].align(pair[1], join="inner")
        difference = (pooled - alone).dropna()
    return AgainstOwn(
        symbol,
        _gain(scores, "val"),
        _gain(scores, "test"),
        np.nan if own is None else _gain(own, "val"),
        difference,
        estimate_gain(difference.to_numpy()),
    )


@dataclass(frozen=True, eq=False)
class PoolComparison:
    """A pooled model against the models of each symbol, on validation."""

    table: pd.DataFrame  # columns `COLUMNS`, one row a symbol
    mean: GainEstimate | None  # difference in the mean over symbols; None without own models
    n_compared: int  # symbols with a difference

    @classmethod
    def of(cls, symbols: Iterable[AgainstOwn]) -> "PoolComparison":
        """Gather the symbols, which may come one by one."""
        mean, rows = PanelMean(), []
        for one in symbols:
            mean.add(one.difference)
            rows.append(one.row)
        return cls(pd.DataFrame(rows, columns=[*COLUMNS]), mean.estimate(), mean.n_symbols)

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        if self.mean is None:
            return "one model for all is not compared: no symbol has scores of a model of its own"
        worded = WordedGain.of(OWN_MODELS, self.mean)
        n_better, n_worse = (int((self.table["word"] == word).sum()) for word in (BETTER, WORSE))
        return (
            f"one model for all forecasts validation {worded.against}: {signed(worded.mean)} nats "
            f"per bar, 95 % interval {signed(worded.low)} to {signed(worded.high)} (better on "
            f"{counted(n_better, 'symbol')}, worse on {n_worse} of {self.n_compared:,})"
        )


def _gain(scores: pd.DataFrame, split: str) -> float:
    """Mean gain over the static Student-t on a part, nats per bar; NaN without scores."""
    rows = scores["split"] == split
    return float((scores["model_score"] - scores["static_score"])[rows].mean())
