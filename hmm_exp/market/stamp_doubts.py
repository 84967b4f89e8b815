"""What the times of bars betray: ends of bars taken for starts, clocks that were set back."""

import numpy as np
import pandas as pd

from hmm_exp.market.iso import iso

_SECOND = 1_000_000_000  # ns
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_NEARLY_ALL = 0.99  # of the rows
_ODD = 2  # rows, such as the first and one that still runs
_LATEST_CHANGE = 4  # hour by which clocks are set back
_AUTUMNS = (3, 4, 9, 10, 11)  # months, of both hemispheres


def taken_for_starts(stamps: np.ndarray, step_ns: int, bar_stamp: str) -> list[str]:
    """A warning where stamps (T,) are read as starts of bars and are a minute's last second.

    Some exchanges give a bar's last instant, such as 00:59:59.999, as its time; or its last minute.
    """
    at_end = stamps % _MINUTE >= _MINUTE - _SECOND
    if step_ns % _HOUR == 0:
        at_end |= stamps % _HOUR >= _HOUR - _MINUTE
    n_others = int((~at_end).sum())
    few = n_others <= max(_ODD, (1 - _NEARLY_ALL) * len(stamps)) and 2 * n_others < len(stamps)
    if bar_stamp == "close" or step_ns % _MINUTE or not few:
        return []
    return [
        f"times such as {iso(stamps[np.argmax(at_end)])} are the last instants of bars, but "
        "data.bar_stamp=open takes them for the first, so that every bar is known a bar too late: "
        "set data.bar_stamp=close"
    ]


def clocks_set_back(stamps: np.ndarray) -> bool:
    """Whether any of these local times is of the hours in which clocks are set back."""
    times = pd.DatetimeIndex(stamps.view("M8[ns]"))
    at_night = (times.hour < _LATEST_CHANGE) | (times.hour == 23)
    late_in_week = times.day_of_week >= 3
    return bool((at_night & late_in_week & times.month.isin(_AUTUMNS)).any())
