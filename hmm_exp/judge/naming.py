"""Name states by what differs: by volatility, and by a feature where the volatility is about equal.

>>> means = np.array([[0.97, 0.0048], [1.08, 0.0052], [1.02, 0.0148]])
>>> spread = np.array([[0.03, 0.003], [0.04, 0.003], [0.08, 0.009]])
>>> traits = state_traits(means, spread, ["close_over_vwap_1H", "high_low_range_pct_current_1H"], 1)
>>> state_names(traits)
('vol-0 below VWAP', 'vol-1 above VWAP', 'vol-2')

Neighbours in the order of volatility are about equal if the means of the ordering column differ by
less than half a within-state standard deviation: Cohen (1988, Statistical Power Analysis, section
2.2) calls d = .5 "visible to the naked eye". The feature with the largest such distance then tells
them apart, if its distance is larger than that of the volatility.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hmm_exp.features.recipe import FEATURES, column_timeframe
from hmm_exp.hmm.states import labels

LEAST_DISTANCE = 0.5  # within-state standard deviations
LEAST_RATIO = 1.25  # of two standard deviations of returns, where no column measures volatility

Traits = tuple[str, ...] | None  # words of every state, "" without one; None where volatility tells

# Words for a low and a high mean, and the value between them where there is one.
_WORDS: dict[str, tuple[str, str, float | None]] = {
    "close_logret_current": ("falling", "rising", 0.0),
    "log_volume_delta_current": ("falling volume", "rising volume", 0.0),
    "close_parkinson_{w}": ("low range of {w} bars", "high range of {w} bars", None),
    "close_ret_zscore_{w}": ("below trend", "above trend", 0.0),
    "volume_rvol_{w}": ("low volume", "high volume", None),
    "close_over_vwap": ("below VWAP", "above VWAP", 1.0),
    "close_log_ratio_vwap": ("below VWAP", "above VWAP", 0.0),
    "high_low_range_pct_current": ("narrow bars", "wide bars", None),
    "close_open_pct_current": ("falling", "rising", 0.0),
    "log_range_current": ("narrow bars", "wide bars", None),
}


def state_traits(
    means: np.ndarray,
    spread: np.ndarray,
    columns: Sequence[str],
    ordered_by: int | np.ndarray | None,
) -> Traits:
    """Words for the states that volatility does not tell apart.

    Parameters
    ----------
    means, spread
        Mean and standard deviation of every feature in every state, raw units, shape (K, D);
        states by rising volatility.
    columns
        Names of the features, D of them.
    ordered_by
        Place of the column that orders the states; without one the standard deviation of returns
        in every state, shape (K,); None if that is unknown, too.

    Returns
    -------
    tuple of str or None
        None if all neighbours differ in volatility.
    """
    equal = [_about_equal(means, spread, ordered_by, k) for k in range(len(means) - 1)]
    if not any(equal):
        return None
    words = [""] * len(means)
    for start, stop in _runs(equal):
        for k, word in enumerate(
            _words(means[start:stop], spread[start:stop], columns, ordered_by)
        ):
            words[start + k] = word
    return tuple(words)


def state_names(*models: Traits, n_states: int | None = None) -> tuple[str, ...]:
    """Labels of successive models of the same states: one set for all of them.

    The last model decides whether volatility alone names the states. A state keeps the words for
    another feature only if every model gives it the same. `n_states` is needed if the last model
    has no words.
    """
    last = models[-1]
    if last is None:
        assert n_states is not None
        return labels(n_states)
    shared = [
        word if all(other is not None and other[k] == word for other in models) else ""
        for k, word in enumerate(last)
    ]
    return tuple(f"vol-{k} {word}".rstrip() for k, word in enumerate(shared))


def _about_equal(
    means: np.ndarray, spread: np.ndarray, ordered_by: int | np.ndarray | None, k: int
) -> bool:
    if ordered_by is None:
        return False
    if isinstance(ordered_by, np.ndarray):
        return bool(ordered_by[k + 1] < LEAST_RATIO * ordered_by[k])
    pair = slice(k, k + 2)
    return bool(_distances(means[pair], spread[pair])[ordered_by] < LEAST_DISTANCE)


def _distances(means: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Range of the means of every feature in within-state standard deviations, shape (D,)."""
    within = np.sqrt((spread**2).mean(axis=0))
    return np.ptp(means, axis=0) / np.maximum(within, np.finfo(float).tiny)


def _runs(equal: Sequence[bool]) -> list[tuple[int, int]]:
    """Start and stop of the longest stretches of states that equal their neighbours."""
    edges = np.flatnonzero(np.diff([0, *map(int, equal), 0]))
    return [(int(start), int(stop) + 1) for start, stop in pairwise(edges)][::2]


def _words(
    means: np.ndarray,
    spread: np.ndarray,
    columns: Sequence[str],
    ordered_by: int | np.ndarray | None,
) -> list[str]:
    """Words of states of about equal volatility, by the feature that differs most; "" if none."""
    distances, least = _distances(means, spread), LEAST_DISTANCE
    if isinstance(ordered_by, int):
        least = max(least, distances[ordered_by])
        distances[ordered_by] = 0.0
    column = int(distances.argmax())
    if distances[column] <= least:
        return [""] * len(means)
    return _by_thirds(means[:, column], *_words_of(columns[column], columns))


def _by_thirds(values: np.ndarray, low: str, high: str, between: float | None) -> list[str]:
    """The low words for the lowest third of the range of values, the high words for the highest.

    Values on one side of `between` are all low, or all high, and differ in degree.
    """
    if between is not None and values.min() >= between:
        low, high = f"less {high}", f"more {high}"
    elif between is not None and values.max() <= between:
        low, high = f"more {low}", f"less {low}"
    place = (values - values.min()) / np.ptp(values)
    return [low if x < 1 / 3 else high if x > 2 / 3 else "" for x in place]


def _words_of(column: str, columns: Sequence[str]) -> tuple[str, str, float | None]:
    """Words of a column; with its timeframe where the columns have several."""
    name = column.partition(" ")[0]  # a title may add " less hour mean"
    timeframe = column_timeframe(name)
    stem = name.removesuffix(f"_{timeframe}")
    low, high, between = _known_words(stem)
    several = len({column_timeframe(other.partition(" ")[0]) for other in columns}) > 1
    suffix = f" {timeframe}" if several and timeframe else ""
    return f"{low}{suffix}", f"{high}{suffix}", between


def _known_words(stem: str) -> tuple[str, str, float | None]:
    """Words of a feature, also with the length of its window in the name; of any other its name."""
    for feature in FEATURES:
        before, window, _ = feature.template.partition("{w}")
        length = stem.removeprefix(before)
        if stem == feature.template or (window and stem.startswith(before) and length.isdigit()):
            low, high, between = _WORDS[feature.template]
            return low.format(w=length), high.format(w=length), between
    return f"low {stem}", f"high {stem}", None
