r"""A strategy table in words and as tables of texts, for the terminal and the report.

>>> print(measures_shown(table.rows).to_string(index=False))
>>> print(*in_words(table.rows), sep="\n")
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from hmm_exp.judge.strategy import HOLD, STRATEGIES
from hmm_exp.judge.strategy_gains import MEASURES
from hmm_exp.judge.strategy_table import EQUAL
from hmm_exp.judge.wording import signed, without_sign_of_zero
from hmm_exp.market.iso import iso

LEVEL = 0.05  # of the family
_MEASURES = {  # title and form
    "return": ("return", "{:.1%}"),
    "volatility": ("volatility", "{:.1%}"),
    "sharpe": ("Sharpe", "{:.2f}"),
    "sortino": ("Sortino", "{:.2f}"),
    "max_drawdown": ("drawdown", "{:.1%}"),
    "turnover": ("turnover", "{:.1f}"),
    "switches": ("switches", "{:.1f}"),
}
_TITLES = {"return": "mean return", "sharpe": "Sharpe"}
_UNKNOWN = "n/a"


def measures_shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, risk and trading of every strategy, a year, as texts."""
    shown = _names(rows)
    for name, (title, form) in _MEASURES.items():
        shown[title] = [_number(form, value) for value in rows[name]]
        shown[title] = shown[title].str.replace("%", " %")
    return shown.assign(note=rows["note"])


def differences_shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Differences from buy and hold with intervals and adjusted p-values, as texts."""
    others = rows[rows["strategy"] != HOLD]
    shown = _names(others)
    for name in MEASURES:
        pairs = [(_value(row, name), _p_value(row, name)) for _, row in others.iterrows()]
        shown[f"{_TITLES[name]} minus hold (95 %)"] = [value for value, _ in pairs]
        shown[f"p, {_TITLES[name]}"] = [p for _, p in pairs]
    return shown


class Sentences(NamedTuple):
    """The sentences below a table."""

    invested: str  # the states in which the regime rows invest
    verdict: str  # whether anything beats buy and hold
    judged: str  # the judged bars and the costs


def in_words(rows: pd.DataFrame) -> Sentences:
    """The sentences of a table."""
    return Sentences(_invested(rows), verdict(rows), _judged(rows))


def verdict(rows: pd.DataFrame) -> str:
    """Sentence: which strategies beat buy and hold, all rows and both measures counted.

    A row that equals buy and hold has no difference to count.
    """
    found = [one for _, row in rows.iterrows() for one in _differences(row)]
    n = len(found)
    if won := [one.text for one in found if one.p < LEVEL]:
        lost = rows.loc[rows["strategy"] == HOLD, "return"].iloc[0] < 0.0
        note = " (buy and hold lost money, so any time in cash gains on its mean)" if lost else ""
        words = f"better than buy and hold, with all {n} differences counted"
        return f"{words}: {'; '.join(won)}{note}"
    if not found:
        return "no strategy beats buy and hold: all equal it, or cash"
    below, above = sum(one.high < 0 for one in found), sum(one.low > 0 for one in found)
    if below == n:
        return f"no strategy beats buy and hold: all {n} differences lie below zero"
    covering = n - above - below
    which = f"all {n}" if covering == n else f"{covering} of {n}"
    parts = [f"{which} differences cover zero"]
    parts += [f"{below} {_lie(below)} below it"] if below else []
    if above:
        p = min(one.p for one in found)
        luck = f"no more than the best of {n} does by luck (smallest adjusted p {p:.2f})"
        parts.append(f"{above} {_lie(above)} above it, {luck}")
    return f"no strategy beats buy and hold: {', '.join(parts)}"


def _lie(count: int) -> str:
    return "lies" if count == 1 else "lie"


class _Difference(NamedTuple):
    """A difference from buy and hold: its interval, adjusted p-value and words."""

    low: float
    high: float
    p: float
    text: str


def _differences(row: pd.Series) -> Iterator[_Difference]:
    """Every known difference of a row that is not buy and hold itself."""
    for name in MEASURES:
        low, high, p = (float(row[f"{name}_{end}"]) for end in ("low", "high", "p"))
        if np.isfinite(p) and row["note"] != EQUAL:
            title = f"{STRATEGIES[row['strategy']]} at delay {row['delay']}"
            value = _value(row, name)
            yield _Difference(low, high, p, f"{title}, {_TITLES[name]} {value}, p = {p:.3f}")


def _value(row: pd.Series, measure: str) -> str:
    """A difference with its interval: +2.1 % (-3.0 to +7.2)."""
    values = [row[f"{measure}_{end}"] for end in ("difference", "low", "high")]
    if row["note"] == EQUAL:
        return "equal"
    if not np.isfinite(values).all():
        return _UNKNOWN
    scale, digits, unit = (100.0, 1, " %") if measure == "return" else (1.0, 2, "")
    value, low, high = (signed(scale * value, digits) for value in values)
    return f"{value}{unit} ({low} to {high})"


def _p_value(row: pd.Series, measure: str) -> str:
    p = row[f"{measure}_p"]
    return f"{p:.3f}" if np.isfinite(p) and row["note"] != EQUAL else ""


def _number(form: str, value: float) -> str:
    return without_sign_of_zero(form.format(value)) if np.isfinite(value) else _UNKNOWN


def _names(rows: pd.DataFrame) -> pd.DataFrame:
    """Strategy and delay of every row."""
    delays = ["" if row.strategy == HOLD else str(row.delay) for row in rows.itertuples()]
    names = [STRATEGIES[name] for name in rows["strategy"]]
    return pd.DataFrame({"strategy": names, "delay": delays}, index=rows.index)


def _invested(rows: pd.DataFrame) -> str:
    found = rows[rows["strategy"] == "regime"]
    each = [
        f"{row['invested'] or 'none'} at delay {row['delay']}"
        + (f" ({row['note']})" if row["note"] else "")
        for _, row in found.iterrows()
    ]
    walk = " of the last refit" if "refit" in rows["part"].iloc[0] else ""
    return f"invested states{walk}, by their later return on train: {'; '.join(each)}"


def _judged(rows: pd.DataFrame) -> str:
    row = rows.iloc[0]
    first, last = (iso(pd.to_datetime(row[name], utc=True)) for name in ("first", "last"))
    return (
        f"judged: {row['part']}, {row['bars']:,} bars, {first} to {last}; {row['cost_bp']:g} basis "
        "points for each trade, one way; returns run across gaps"
    )
