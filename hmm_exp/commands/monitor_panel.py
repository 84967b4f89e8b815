"""Monitor the models of many symbols: `hmm-monitor` on a folder, a pattern, a table.

A row for each symbol, of the chart that is or was nearest to its alarm. A symbol that fails costs
only itself.
"""

import argparse
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmm_exp.command_line import BAD_INPUT, DONE, Reading, note, own_words
from hmm_exp.commands.monitor import ALARM, false_alarm_rate, report
from hmm_exp.commands.progress import Progress
from hmm_exp.commands.symbols import (
    PanelModels,
    cut_tables,
    in_order,
    panel_models,
    symbols_in,
    without,
)
from hmm_exp.errors import HmmExpError
from hmm_exp.files import written_beside

if TYPE_CHECKING:
    import pandas as pd

    from hmm_exp.detector.detector import Detector
    from hmm_exp.market.panel import PanelSymbol


def monitor_panel(args: argparse.Namespace, since: "pd.Timestamp | None") -> int:
    """Monitor each symbol, print a table, write the reports by symbol; return the exit status."""
    found = symbols_in(args)
    models = panel_models(args, [one.symbol for one in found])
    pairs = [(one, models.detectors[one.symbol]) for one in found if one.symbol in models.detectors]
    reports: dict[str, dict[str, Any]] = {}
    with cut_tables([one for one, _ in pairs]) as cache, Progress("symbols") as progress:
        work = partial(_monitored, since, cache)
        for place, answer in enumerate(in_order(work, pairs), 1):
            progress.clear()
            try:
                with answer.reading:
                    reports[answer.symbol] = answer.result()
            except HmmExpError as error:
                models.failed[answer.symbol] = error
            progress(place, place / len(pairs))
    if args.output:
        with written_beside(args.output) as part:
            part.write_text(json.dumps(reports, indent=1) + "\n")
    return _conclude(reports, models, [one.symbol for one in found])


@dataclass
class _Monitored:
    """What was read of a symbol, and its report or the error."""

    symbol: str
    reading: Reading
    report: dict[str, Any] | None = None
    error: HmmExpError | None = None

    def result(self) -> dict[str, Any]:
        """The report. Raises the error."""
        if self.error is not None:
            raise self.error
        assert self.report is not None
        return self.report


def _monitored(
    since: "pd.Timestamp | None",
    cache: Path | None,
    pair: tuple["PanelSymbol", "Detector"],
) -> _Monitored:
    """Read the bars of a symbol and monitor its model on them."""
    from hmm_exp.monitor.expectations import expectations_of
    from hmm_exp.monitor.monitor import monitor_bars

    one, detector = pair
    rows = replace(one.rows, cache=cache) if one.rows else None
    answer = _Monitored(one.symbol, Reading(detector))
    try:
        expected = expectations_of(detector)
        bars = answer.reading.bars(Path(one.path), name=one.symbol, symbol=rows)
        return replace(answer, report=report(monitor_bars(detector, bars, since), expected))
    except HmmExpError as error:
        return replace(answer, error=error)


def _conclude(reports: dict[str, dict[str, Any]], models: PanelModels, found: list[str]) -> int:
    """Print the table, what is missing, and the conclusion; give the exit status."""
    from hmm_exp.config.checks import few

    rows = sorted((_row(*pair) for pair in reports.items()), key=_nearest_first)
    alarms = [row["symbol"] for row in rows if row["alarm at"]]
    if rows:
        print(_table(rows), _notes(len(rows), alarms), sep="\n\n")
    for symbol, error in models.failed.items():
        note(f"{symbol}: {own_words(error)}")
    for line in [
        *without("symbol", "model", [s for s in found if s not in {**reports, **models.failed}]),
        *without("model", "bars", [s for s in models.detectors if s not in found]),
    ]:
        note(line)
    if models.failed:
        n_all = len(reports) + len(models.failed)
        note(f"error: {len(models.failed)} of {n_all} symbols failed: {few(models.failed)}")
    if alarms:
        return ALARM
    return BAD_INPUT if models.failed else DONE


def _row(symbol: str, report: dict[str, Any]) -> dict[str, Any]:
    """The chart of a symbol that alarmed first, or that was nearest to its threshold."""
    charts = report["findings"]
    alarmed = sorted((c for c in charts if c["alarm_at"]), key=lambda c: str(c["alarm_at"]))
    chart = alarmed[0] if alarmed else max(charts, key=lambda c: float(c["highest"]))
    return {
        "symbol": symbol,
        "rows": report["judged"]["rows"],
        "series": chart["name"],
        "highest": chart["highest"],
        "now": chart["now"],
        "alarm at": chart["alarm_at"] or "",
        "drift since": chart["drift_since"] or "",
    }


def _nearest_first(row: dict[str, Any]) -> tuple[bool, str, float, str]:
    """Alarms by their time, then the others by how near they came."""
    return not row["alarm at"], row["alarm at"], -row["highest"], row["symbol"]


def _table(rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    from hmm_exp.judge.wording import percent

    shown = [row | {name: percent(row[name]) for name in ("highest", "now")} for row in rows]
    return pd.DataFrame(shown).to_string(index=False)


def _notes(n_symbols: int, alarms: list[str]) -> str:
    from hmm_exp.config.checks import few
    from hmm_exp.market.bars import counted

    ends = f"ALARM for {len(alarms):,} of {counted(n_symbols, 'symbol')}: {few(alarms)}"
    return (
        "highest, now: cumulated shortfall as a share of its alarm threshold, of the chart nearest "
        f"to it\nfor each symbol, a false alarm is {false_alarm_rate()}\n"
        + (ends if alarms else f"{counted(n_symbols, 'symbol')} as expected")
    )
