"""Missing bars: chain steps between neighbouring rows, and the gaps in the data report.

With `gaps="split"` a missing bar is a missing observation, so the chain takes as many steps as
bars would fit. With `gaps="bridge"` (sessions) neighbours are neighbours.
"""

import numpy as np
import pandas as pd

from hmm_exp.market.iso import iso

MAX_MISSING = 24
"""More missing bars than these start a new sequence."""

_WEEK = 7 * 86_400_000_000_000  # ns
_LATEST = 200_000  # bars that show the pattern of a week
_NEVER = 0.1  # share of weeks with a bar, up to which a time of the week counts as closed
_CLOSED_SHARE = 0.4  # of missing bars at closed times: summer time moves some of them
_FAR = 10  # usual closed spells; a longer step is a hole


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


def looks_like_sessions(time_ns: np.ndarray, step_ns: int) -> bool:
    """Whether bars are missing at the same times of the week, as nights and weekends are.

    A time of the week is closed if it has a bar in at most a tenth of at least two weeks. Gaps of
    more than a week do not count. Parameters are those of `chain_steps`.
    """
    time_ns = time_ns[-_LATEST:]
    passed = _bars_passed(time_ns, step_ns)
    before = np.flatnonzero((passed > 1) & (passed * step_ns <= _WEEK))
    counts = passed[before] - 1
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    missing = _by_time_of_week(np.repeat(time_ns[before], counts) + (place + 1) * step_ns, step_ns)
    present = _by_time_of_week(time_ns, step_ns)
    closed = (missing >= 2) & (present <= _NEVER * (missing + present))
    return bool(missing[closed].sum() > _CLOSED_SHARE * missing.sum())


def gap_report(time_ns: np.ndarray, step_ns: int, gaps: str) -> dict:
    """Number of gaps, missing bars in all, the longest gap and where it and the first one start.

    In a session market (`gaps="bridge"`) longer steps are counted but no bar is missing. `sessions`
    is `looks_like_sessions`. `holes` are steps of more than a week and of more than ten usual
    closed spells (the median gap of a session market, else one bar), the longest three of them.
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
        report["longest_after"] = iso(time_ns[longest])
        report["first_after"] = iso(time_ns[longer[0]])
        report["sessions"] = sessions = looks_like_sessions(time_ns, step_ns)
        report |= _holes(time_ns, longer, step_ns, sessions)
    return report


def _holes(time_ns: np.ndarray, longer: np.ndarray, step_ns: int, sessions: bool) -> dict:
    """Number of holes, and the times around the longest ones, in order of time."""
    length = np.diff(time_ns)[longer]
    spell = np.median(length) if sessions else step_ns
    far = np.flatnonzero(length > max(_FAR * spell, _WEEK))
    longest = np.sort(far[np.argsort(-length[far], kind="stable")[:3]])
    return {
        "hole_count": len(far),
        "holes": [
            {
                "days": int(length[i] // (_WEEK // 7)),
                "after": iso(time_ns[longer[i]]),
                "until": iso(time_ns[longer[i] + 1]),
            }
            for i in longest
        ],
    }


def _by_time_of_week(time_ns: np.ndarray, step_ns: int) -> np.ndarray:
    """Number of bars at each time of the week, in units of a bar."""
    return np.bincount(time_ns % _WEEK // step_ns, minlength=-(-_WEEK // step_ns))


def _bars_passed(time_ns: np.ndarray, step_ns: int) -> np.ndarray:
    return np.maximum((np.diff(time_ns) + step_ns // 2) // step_ns, 1)
