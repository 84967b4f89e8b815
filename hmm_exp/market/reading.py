"""What was read from a table, in one line, and whether its last bar may still be open.

>>> what_was_read(bars.report)
'dax.csv: 8,846 of 9,012 rows, 1D, 1988-2022; 166 bad rows dropped; 1,894 gaps, looks like a ...'
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.market.bars import Bars
from hmm_exp.market.iso import iso

_LONG = pd.Timedelta(days=3 * 365)  # spans that years describe
_DAY = pd.Timedelta(days=1)
_LITTLE = 0.10  # of the usual volume; a last bar below it may still be open
_BARS_COMPARED = 60  # days before a daily bar
_DAYS_COMPARED = 30  # days before a shorter bar, at its time of day
_FEWEST = 15  # bars to compare with


def what_was_read(report: dict[str, Any]) -> str:
    """Rows read and kept, length of a bar, span, gaps and quiet bars, with the settings that help.

    Parameters
    ----------
    report
        Of bars (`Bars.report`) or of a feature table (`read_features`), with `calendar_report` as
        `report["calendar"]` if there is one. `report["part"]` names the part of a long file.
    """
    return "; ".join([_rows(report), *_left_out(report), *_gaps(report), *_quiet(report)])


def _rows(report: dict[str, Any]) -> str:
    name = Path(report["file"]).name if "file" in report else report["name"]
    if "symbol" in report and not name.endswith(f"={report['symbol']}"):
        name += f" {report['symbol']}"
    name += " market" if "seed" in report else ""
    name += f" ({report['part']})" if "part" in report else ""
    used, read = report["rows_used"], report["rows_read"]
    rows = f"{used:,} of {read:,} rows" if used < read else f"{read:,} rows"
    return f"{name}: {rows}, {report['step']}, {_span(report['first'], report['last'])}"


def _span(first: str, last: str) -> str:
    if pd.Timestamp(last) - pd.Timestamp(first) >= _LONG:
        return f"{first[:4]}-{last[:4]}"
    return f"{first[:10]} to {last[:10]}"


def _left_out(report: dict[str, Any]) -> Iterator[str]:
    dropped = sum(report["dropped"].values())
    if dropped:
        yield f"{_many(dropped, 'bad row')} dropped"
    if repeated := report["rows_read"] - report["rows_used"] - dropped:
        yield f"{_many(repeated, 'repeated row')} removed"


def _gaps(report: dict[str, Any]) -> Iterator[str]:
    """Gaps by the calendar, or by what they look like; then the holes."""
    gaps = report["gaps"]
    bridges = gaps["mode"] == "bridge"
    if "calendar" in report:
        yield _by_calendar(report["calendar"], bridges)
    elif gaps["count"]:
        text = _many(gaps["count"], "gap")
        if bridges:
            yield f"{text} bridged"
        elif gaps["sessions"]:
            yield f"{text}, looks like a session market: data.gaps=bridge"
        else:
            yield f"{text} with {_many(gaps['missing_bars'], 'missing bar')}"
    for hole in gaps.get("holes", []):
        verb = "bridged " if bridges else ""
        after, until = _time(hole["after"]), _time(hole["until"])
        yield f"hole of {hole['days']:,} days {verb}from {after} to {until}"
    if (more := gaps.get("hole_count", 0) - len(gaps.get("holes", []))) > 0:
        yield f"{_many(more, 'more hole')}"


def _by_calendar(found: dict[str, Any], bridges: bool) -> str:
    text = f"{found['calendar']}: {_many(found['closed'], 'step')} over closed times"
    if found["closed"] and not bridges:
        text += " (data.gaps=bridge)"
    if found["outages"]:
        missing = _many(found["missing"], f"missing {found['unit']}")
        text += f", {_many(found['outages'], 'outage')} with {missing}"
        text += (
            f"{', bridged too' if bridges else ''}, first after {_time(found['first_outages'][0])}"
        )
    if found["outside"]:
        text += f", {_many(found['outside'], 'bar')} while the exchange is closed"
    return text


def _time(moment: str) -> str:
    """A date alone for midnight, as daily bars have it."""
    return moment.removesuffix("T00:00:00Z")


def _quiet(report: dict[str, Any]) -> Iterator[str]:
    if zero := report.get("zero_volume_bars"):
        yield f"{_many(zero, 'bar')} without volume"
    if rows := report.get("missing_rows"):
        yield f"{_many(rows, 'row')} with a missing value"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def unclosed_hint(bars: Bars) -> str | None:
    """Words for a last bar that may not be closed: its volume is far below what is usual.

    A bar shorter than a day is compared with the bars at its time of day (UTC) in the 30 days
    before, a daily bar with the 60 before it. The hint needs a volume below a tenth of their median
    and below all of them, and at least 15 of them. None otherwise, and for longer bars.
    """
    volume = bars.frame["volume"].to_numpy()
    if not len(bars) or bars.step > _DAY:
        return None
    if bars.step == _DAY:
        before, usual = volume[:-1][-_BARS_COMPARED:], f"the usual volume of {_BARS_COMPARED} bars"
    else:
        day = _DAY.as_unit("ns").value
        age = bars.time[-1] - bars.time[:-1]
        before = volume[:-1][(age % day == 0) & (age <= _DAYS_COMPARED * day)]
        usual = "its hour's usual volume"
    if len(before) < _FEWEST or not volume[-1] < min(_LITTLE * np.median(before), before.min()):
        return None
    share = 100 * volume[-1] / np.median(before)
    return (
        f"the last bar, which closes at {iso(bars.time[-1])}, has {share:.0f} % of {usual}: it may "
        "not be closed yet"
    )
