"""Reasons why a run has no score of the next return.

>>> unscored = {"ewma": "all 700 returns equal 0"}
>>> why_no_gain(unscored, "ewma")
'the EWMA Student-t cannot be fitted: all 700 returns equal 0'
>>> why_no_gain(unscored, "static")                  # None: this gain is known
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import pandas as pd

from hmm_exp.errors import FitError, one_line
from hmm_exp.judge.wording import listed

Fitted = TypeVar("Fitted")
Unscored = dict[str, str]  # reason by missing item: RETURN, or a key of FORECASTS

RETURN = "return"
FORECASTS = {
    "model": "the state densities",
    "static": "the static Student-t",
    "ewma": "the EWMA Student-t",
    "range_ewma": "the range EWMA Student-t",
    "ewma_hour": "the EWMA Student-t by hour",
    "range_ewma_hour": "the range EWMA Student-t by hour",
}
OTHERS = ("range_ewma", "ewma_hour", "range_ewma_hour")  # need highs and lows, or hours


def fitted(
    name: str, unscored: Unscored, fit: Callable[..., Fitted], *data: object
) -> Fitted | None:
    """Fit a forecast; on failure put the reason into `unscored` and return None."""
    try:
        return fit(*data)
    except FitError as error:
        unscored[name] = one_line(error)
        return None


def why_no_return(frame: pd.DataFrame, timeframe: str) -> str:
    """Reason why a given feature table has no next-bar return.

    Parameters
    ----------
    frame
        The table.
    timeframe
        Timeframe of its rows, such as "1H".
    """
    column = f"close_logret_current_{timeframe}"
    if column in frame.columns:
        return f"no next-bar return is known: {column} has no value on two neighbouring rows"
    return (
        f"no next-bar return is known: the table has no column {column}, add it (hmm-features "
        "with --features v1v2 or returns writes it)"
    )


def why_no_gain(unscored: Mapping[str, str], baseline: str) -> str | None:
    """Reason why the gain over a baseline, such as "static", is unknown; None if it is known."""
    missing = next((name for name in (RETURN, "model", baseline) if name in unscored), None)
    return None if missing is None else _sentence([missing], unscored[missing])


def unusual(unscored: Mapping[str, str]) -> list[str]:
    """Names of the missing items that every data set should have."""
    return [name for name in (RETURN, *FORECASTS) if name in unscored and name not in OTHERS]


def in_words(unscored: Mapping[str, str]) -> list[str]:
    """One line per reason, naming all items it affects; of the unusual ones alone."""
    names = unusual(unscored)
    reasons = dict.fromkeys(unscored[name] for name in names)
    return [_sentence([n for n in names if unscored[n] == why], why) for why in reasons]


def in_fits(fits: Sequence[tuple[str, Unscored]]) -> Unscored:
    """Combine the reasons of the fits of a walk forward.

    Parameters
    ----------
    fits
        Time as text and reasons of every fit, in time order. A reason that all share stands alone.
    """
    unscored: Unscored = {}
    for name in (RETURN, *FORECASTS):
        failed = [(time, missing[name]) for time, missing in fits if name in missing]
        if failed:
            time, last = failed[-1]
            always = len(failed) == len(fits) and len({reason for _, reason in failed}) == 1
            where = "" if always else f"in {len(failed)} of {len(fits)} fits, last at {time}: "
            unscored[name] = where + last
    return unscored


def _sentence(names: list[str], reason: str) -> str:
    if names == [RETURN]:
        return reason
    return f"{listed([FORECASTS[name] for name in names])} cannot be fitted: {reason}"
