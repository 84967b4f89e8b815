"""The regimes of a panel as a matrix, symbols by days, and what the symbols have in common.

>>> found = regime_map({"BTC": btc_days, "ETH": eth_days})
>>> found.turbulent / found.scaled  # share of symbols in their most turbulent regime, by day

Regimes of different numbers of states share one scale: regime i of K has the position i / (K - 1),
from 0 (calm) to 1 (turbulent). A single regime has no place on it; it is drawn in the middle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import binom

UNKNOWN, NO_BAR = -1, -2  # regimes of a day: none is decided; the symbol has no bar
PARTS = ("train", "val", "test")
CLOSED = 7  # days: a longer hole stays on the time axis, and parts the days before and after it
LEVEL = 0.05  # chance that a panel of independent symbols shows any unusual day
_ALONE = 1.0  # distance of two symbols without a common day


@dataclass(frozen=True, eq=False)
class SymbolDays:
    """The winner of a symbol by UTC day, T days in time order.

    Attributes
    ----------
    labels
        Names of the K regimes, calm to turbulent.
    day
        Dates, datetime64[D].
    close
        Last close of each day, float32.
    regime
        Decided regime that most bars of the day have, `UNKNOWN` if none is decided.
    split
        Part of the day's last bar, such as `train`.
    """

    labels: Sequence[str]
    day: np.ndarray
    close: np.ndarray
    regime: np.ndarray
    split: np.ndarray


@dataclass(frozen=True)
class CommonRise:
    """A day on which unusually many symbols changed into a more turbulent regime."""

    day: np.datetime64
    rows: list[int]  # the symbols that changed
    compared: int  # symbols whose regime is known on this day and before
    expected: float  # number of changes if every symbol changed at its own average rate

    @property
    def share(self) -> float:
        """Share of the compared symbols that changed."""
        return len(self.rows) / self.compared


@dataclass(frozen=True, eq=False)
class RegimeMap:
    """Regimes of N symbols on D days.

    Attributes
    ----------
    symbols
        Names of the rows.
    n_states
        Number of regimes of each symbol, shape (N,).
    days
        All days on which any symbol has a bar, and those of holes longer than `CLOSED` days.
    regimes
        Regime of each symbol and day, shape (N, D), or `UNKNOWN`, or `NO_BAR`; int8.
    """

    symbols: list[str]
    n_states: np.ndarray
    days: np.ndarray
    regimes: np.ndarray

    @cached_property
    def known(self) -> np.ndarray:
        """Whether a regime is known, shape (N, D)."""
        return self.regimes >= 0

    @cached_property
    def positions(self) -> np.ndarray:
        """Position on the scale from 0 (calm) to 1 (turbulent), shape (N, D); NaN if unknown."""
        highest = np.maximum(self.n_states - 1, 1)[:, None].astype(np.float32)
        place = np.where(self._scaled[:, None], self.regimes / highest, 0.5)
        return np.where(self.known, place, np.nan).astype(np.float32)

    @cached_property
    def scaled(self) -> np.ndarray:
        """Symbols of several regimes whose regime is known, by day, shape (D,)."""
        return (self.known & self._scaled[:, None]).sum(axis=0)

    @cached_property
    def turbulent(self) -> np.ndarray:
        """Those of `scaled` that are in their most turbulent regime, shape (D,)."""
        return ((self.positions == 1.0) & self._scaled[:, None]).sum(axis=0)

    @cached_property
    def calm(self) -> np.ndarray:
        """Those of `scaled` that are in their calmest regime, shape (D,)."""
        return ((self.positions == 0.0) & self._scaled[:, None]).sum(axis=0)

    @property
    def _scaled(self) -> np.ndarray:
        return self.n_states > 1


def regime_map(symbols: Mapping[str, SymbolDays]) -> RegimeMap:
    """Put the days of several symbols on one time axis."""
    days = _axis([one.day for one in symbols.values()])
    regimes = np.full((len(symbols), len(days)), NO_BAR, dtype=np.int8)
    for row, one in zip(regimes, symbols.values(), strict=True):
        row[np.searchsorted(days, one.day)] = one.regime
    n_states = np.array([len(one.labels) for one in symbols.values()], dtype=np.int64)
    return RegimeMap([*symbols], n_states, days, regimes)


def _axis(days: Sequence[np.ndarray]) -> np.ndarray:
    """Days with bars in time order, and every day of a hole that is longer than `CLOSED`."""
    if not days:
        return np.array([], dtype="M8[D]")
    known = np.unique(np.concatenate(days).astype("M8[D]"))
    wide = np.flatnonzero(np.diff(known).astype(int) > CLOSED)
    holes = [np.arange(known[i] + 1, known[i + 1]) for i in wide]
    return np.sort(np.concatenate([known, *holes]))


def similar_order(found: RegimeMap) -> list[int]:
    """Rows of the map in an order that puts similar symbols next to each other.

    The distance of two symbols is the root mean square difference of their positions on the days
    that both have. The order is that of average linkage with the leaves in their best order
    (Bar-Joseph, Gifford & Jaakkola 2001, Bioinformatics 17).
    """
    n_symbols = len(found.symbols)
    if n_symbols < 3:
        return [*range(n_symbols)]
    place, known = np.nan_to_num(found.positions), found.known.astype(np.float32)
    squares = np.square(place) @ known.T
    common = known @ known.T
    total = np.maximum(squares + squares.T - 2.0 * place @ place.T, 0.0)
    distance = np.where(common > 0, np.sqrt(total / np.maximum(common, 1.0)), _ALONE)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return [int(row) for row in leaves_list(tree)]


def common_rises(found: RegimeMap) -> list[CommonRise]:
    r"""Days on which unusually many symbols changed into a more turbulent regime, in time order.

    A symbol's regime is compared with its last known one, at most `CLOSED` days before. If symbols
    changed independently of each other, each at its own average rate, the number of changes of a
    day would have the mean $\mu$, and a number $k \geq \mu + 1$ or more at most the chance that a
    binomial of n trials and mean $\mu$ gives it (Hoeffding 1956, Annals of Mathematical Statistics
    27). A day is unusual if this chance is below `LEVEL` over the number of days that
    have two compared symbols or more. The rates are averages over all days, later ones included.
    """
    compared, rose = _changes(found)
    n_compared, n_rose = compared.sum(axis=0), rose.sum(axis=0)
    rate = rose.sum(axis=1) / np.maximum(compared.sum(axis=1), 1)
    expected = rate @ compared
    n_days = max(int((n_compared > 1).sum()), 1)
    share = expected / np.maximum(n_compared, 1)
    chance = binom.sf(n_rose - 1, n_compared, np.minimum(share, 1.0))
    unusual = (n_rose > 1) & (n_rose >= expected + 1.0) & (chance < LEVEL / n_days)
    return [
        CommonRise(
            found.days[d],
            [int(row) for row in np.flatnonzero(rose[:, d])],
            int(n_compared[d]),
            float(expected[d]),
        )
        for d in np.flatnonzero(unusual)
    ]


def _changes(found: RegimeMap) -> tuple[np.ndarray, np.ndarray]:
    """Whether a symbol is compared on a day, and whether its regime rose then; both (N, D)."""
    n_days = len(found.days)
    compared = np.zeros(found.regimes.shape, dtype=bool)
    rose = compared.copy()
    if n_days < 2:
        return compared, rose
    last = np.maximum.accumulate(np.where(found.known, np.arange(n_days), -1), axis=1)[:, :-1]
    before = np.take_along_axis(found.regimes, np.maximum(last, 0), axis=1)
    near = (found.days[1:] - found.days[np.maximum(last, 0)]).astype(int) <= CLOSED
    several = (found.n_states > 1)[:, None]
    compared[:, 1:] = found.known[:, 1:] & (last >= 0) & near & several
    rose[:, 1:] = compared[:, 1:] & (found.regimes[:, 1:] > before)
    return compared, rose
