"""What the times of bars betray: ends of bars taken for starts, clocks that were set back."""

import numpy as np
import pandas as pd

from hmm_exp.market.iso import iso

_SECOND = 1_000_000_000  # ns
_MINUTE = 60 * _SECOND
_NEARLY_ALL = 0.99  # of the rows
_LATEST_CHANGE = 4  # hour of a Sunday by which clocks are set back
_AUTUMNS = (3, 4, 9, 10, 11)  # months, of both hemispheres


def taken_for_starts(stamps: np.ndarray, step_ns: int, bar_stamp: str) -> list[str]:
    """A warning where stamps (T,) are read as starts of bars and end within a minute's last second.

    Some exchanges give a bar's last instant, such as 00:59:59.999, as its time.
    """
    at_end = stamps % _MINUTE >= _MINUTE - _SECOND
    if bar_stamp == "close" or step_ns % _MINUTE or not at_end.mean() >= _NEARLY_ALL:
        return []
    return [
        f"times such as {iso(stamps[0])} are the last instants of bars, but data.bar_stamp=open "
        "takes them for the first: every bar is known a bar too late; set data.bar_stamp=close"
    ]


def clocks_set_back(stamps: np.ndarray) -> bool:
    """Whether all of these local times are of the hours in which clocks are set back."""
    times = pd.DatetimeIndex(stamps.view("M8[ns]"))
    early_on_sundays = (times.day_of_week == 6) & (times.hour < _LATEST_CHANGE)
    return bool((early_on_sundays & times.month.isin(_AUTUMNS)).all())
