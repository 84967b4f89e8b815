"""Monitor the models of many symbols: `hmm-monitor` on a folder, a pattern, a table.

A row for each symbol, of the chart that is or was nearest to its alarm. A symbol that fails costs
only itself.
"""

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from hmm_exp.command_line import BAD_INPUT, DONE, note, own_words
from hmm_exp.commands.monitor import ALARM, false_alarm_rate, report
from hmm_exp.commands.symbols import (
    PanelModels,
    for_each_symbol,
    panel_models,
    symbols_in,
    without,
)
from hmm_exp.errors import counted, few
from hmm_exp.files import written_beside

if TYPE_CHECKING:
    import pandas as pd

    from hmm_exp.detector.detector import Detector
    from hmm_exp.market.bars import Bars


def monitor_panel(args: argparse.Namespace, since: "pd.Timestamp | None") -> int:
    """Monitor each symbol, print a table, write the reports by symbol; return the exit status."""
    found = symbols_in(args)
    models = panel_models(args, [one.symbol for one in found])
    reports: dict[str, dict[str, Any]] = {}

    def take(symbol: str, detector: "Detector", answer: dict[str, Any]) -> None:
        reports[symbol] = answer

    for_each_symbol(partial(_monitored, since), take, found, models)
    if args.output:
        with written_beside(args.output) as part:
            part.write_text(json.dumps(reports, indent=1) + "\n")
    return _conclude(reports, models, [one.symbol for one in found])


def _monitored(
    since: "pd.Timestamp | None", symbol: str, detector: "Detector", bars: "Bars"
) -> dict[str, Any]:
    """Report of a symbol's model on its bars."""
    from hmm_exp.monitor.expectations import expectations_of
    from hmm_exp.monitor.monitor import monitor_bars

    return report(monitor_bars(detector, bars, since), expectations_of(detector))


def _conclude(reports: dict[str, dict[str, Any]], models: PanelModels, found: list[str]) -> int:
    """Print the table, what is missing, and the conclusion; give the exit status."""
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
    ends = f"ALARM for {len(alarms):,} of {counted(n_symbols, 'symbol')}: {few(alarms)}"
    return (
        "highest, now: cumulated shortfall as a share of its alarm threshold, of the chart nearest "
        f"to it\nfor each symbol, a false alarm is {false_alarm_rate()}\n"
        + (ends if alarms else f"{counted(n_symbols, 'symbol')} as expected")
    )
