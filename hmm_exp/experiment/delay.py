"""How long a planted switch stays unseen: bars until the filtered label follows.

A planted visit is a stay in one true regime. Its delay is the number of bars from its first to the
first whose label names that regime, 0 when that is the same bar. A visit that ends before that is
missed. One that the end of the data cuts short before it was seen is left out; so is the very
first, which begins with no switch. A label that happens to be right already counts as seen at once,
so one that always flickers has no delay: read it beside the switches per 1000 bars.

>>> detection_delay(planted=np.array([0, 0, 1, 1, 1, 0]), labels=np.array([0, 0, 0, 1, 1, 1]))
DetectionDelay(n_switches=1, missed_share=0.0, median_bars=1.0, mean_bars=1.0)
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DetectionDelay:
    """Delays of all planted switches.

    Attributes
    ----------
    n_switches
        Switches that were seen or missed.
    missed_share
        Share of them that the label never followed; None without a switch.
    median_bars, mean_bars
        Delay of those that were seen; None when none was.
    """

    n_switches: int
    missed_share: float | None
    median_bars: float | None
    mean_bars: float | None

    def metrics(self) -> dict[str, float]:
        """Flat names of a run record; what does not exist is left out."""
        named = {
            "detection_delay_median": self.median_bars,
            "detection_delay_mean": self.mean_bars,
            "missed_switch_share": self.missed_share,
        }
        return {name: value for name, value in named.items() if value is not None}


def detection_delay(planted: np.ndarray, labels: np.ndarray) -> DetectionDelay:
    """Delays of the filtered label behind planted regimes.

    Parameters
    ----------
    planted
        True regime of consecutive bars, shape (N,).
    labels
        Filtered label of the same bars in the planted numbering (see `named_as_planted`), shape
        (N,); negative where none.
    """
    first = np.flatnonzero(np.diff(planted)) + 1
    end = np.append(first, len(planted))[1:]
    right = np.append(np.flatnonzero(labels == planted), len(planted))
    found = right[np.searchsorted(right, first)]
    seen = found < end
    known = seen | (end < len(planted))
    if not known.any():
        return DetectionDelay(0, None, None, None)
    missed = float(1.0 - seen[known].mean())
    if not seen.any():
        return DetectionDelay(int(known.sum()), missed, None, None)
    delay = (found - first)[seen]
    return DetectionDelay(int(known.sum()), missed, float(np.median(delay)), float(delay.mean()))


def named_as_planted(planted: np.ndarray, states: np.ndarray) -> np.ndarray:
    """States renamed after the planted regime that they fall on most often, shape (N,).

    For models with another number of states than were planted; several states may share a name,
    and a regime that no state is named after is always missed. Of equals the calmer regime wins.

    Parameters
    ----------
    planted
        True regime of every bar, shape (N,).
    states
        Filtered state of every bar, shape (N,); a negative one stays as it is.
    """
    known = states >= 0
    if not known.any():
        return states.copy()
    counts = np.zeros((states.max() + 1, planted.max() + 1), dtype=np.int64)
    np.add.at(counts, (states[known], planted[known]), 1)
    return np.where(known, counts.argmax(axis=1)[np.where(known, states, 0)], states)
