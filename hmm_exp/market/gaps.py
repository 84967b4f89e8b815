"""Missing bars: chain steps between neighbouring rows, and the gaps in the data report.

With `gaps="split"` a missing bar is a missing observation, so the chain takes as many steps as
bars would fit. With `gaps="bridge"` (sessions) neighbours are neighbours.
"""

import numpy as np
import pandas as pd

from hmm_exp.market.bars import moment

MAX_MISSING = 24
"""More missing bars than these start a new sequence."""


def usual_step(time_ns: np.ndarray) -> int:
    """The most common difference of increasing stamps, the shortest of equally common ones."""
    steps, counts = np.unique(np.diff(time_ns), return_counts=True)
    return int(steps[np.argmax(counts)])


def chain_steps(time_ns: np.ndarray, step_ns: int, gaps: str) -> np.ndarray:
    """Chain steps from the previous row to each row.

    Parameters
    ----------
    time_ns
        Increasing `available_at` in nanoseconds, shape (T,).
    step_ns
        Length of one bar in nanoseconds.
    gaps
        "split" or "bridge".

    Returns
    -------
    int64, shape (T,): 0 at the first row of a sequence, 1 at the usual neighbour, m + 1 after m
    missing bars. More than `MAX_MISSING` of them start a new sequence. A stamp off the grid counts
    as the nearest one on it.
    """
    steps = np.ones(len(time_ns), dtype=np.int64)
    steps[:1] = 0
    if gaps == "split":
        passed = _bars_passed(time_ns, step_ns)
        steps[1:] = np.where(passed > MAX_MISSING + 1, 0, passed)
    return steps


def gap_report(time_ns: np.ndarray, step_ns: int, gaps: str) -> dict:
    """Number of gaps, missing bars in all, the longest gap and where it and the first one start.

    In a session market (`gaps="bridge"`) longer steps are counted but no bar is missing.
    """
    passed = _bars_passed(time_ns, step_ns)
    longer = np.flatnonzero(passed > 1)
    report = {"mode": gaps, "count": len(longer)}
    if gaps == "split":
        report["missing_bars"] = int((passed[longer] - 1).sum())
        report["new_sequences"] = int((passed > MAX_MISSING + 1).sum())
    if len(longer):
        longest = int(np.argmax(np.diff(time_ns)))
        report["longest"] = str(pd.Timedelta(time_ns[longest + 1] - time_ns[longest], unit="ns"))
        report["longest_after"] = moment(time_ns[longest])
        report["first_after"] = moment(time_ns[longer[0]])
    return report


def _bars_passed(time_ns: np.ndarray, step_ns: int) -> np.ndarray:
    return np.maximum((np.diff(time_ns) + step_ns // 2) // step_ns, 1)
