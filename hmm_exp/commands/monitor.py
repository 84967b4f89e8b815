"""Check on new bars that a model still behaves as expected after its training.

    hmm-monitor --bars new.csv --output monitor.json --figure monitor.png

A thin command line over `hmm_exp.monitor`: a table, JSON, a figure, and exit status 1 on an alarm.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmm_exp.command_line import (
    DONE,
    Parser,
    Reading,
    add_model_option,
    add_read_options,
    exit_status,
    figure_file,
    output_file,
    with_read_options,
)
from hmm_exp.commands.symbols import add_symbol_options, names_symbols
from hmm_exp.files import written_beside

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hmm_exp.detector.detector import Detector
    from hmm_exp.monitor.expectations import Expectations
    from hmm_exp.monitor.monitor import MonitorResult

EXAMPLES = """examples:
  hmm-monitor --bars new.csv
  hmm-monitor --bars new.csv --output monitor.json --figure monitor.png
  hmm-monitor --bars new.csv --since "2024-06-01 12:00"
  hmm-monitor --bars new.csv --model runs:/0a1b2c3d4e5f
  hmm-monitor --bars 'lake/*.parquet' --model 'models:/hmm_regime.*/Production'
  hmm-monitor --bars new.csv --model ./model || mail -s "look at it" me

The file holds the new bars and, before them, enough bars for the model's windows. Only bars after
its training are monitored. After you have looked into an alarm, --since restarts from a later bar.

Many symbols: one row for each, of the chart that alarmed or came nearest to it; --output holds the
results by symbol. A symbol that cannot be monitored is named at the end.

exit status: 0 as expected; 1 alarm; 2 bad input
"""
ALARM = 1


def report(result: "MonitorResult", expected: "Expectations") -> dict[str, Any]:
    """Summary as plain values for JSON, without the single bars; times are ISO texts, UTC."""
    alarms, gains = result.alarms, result.gains
    return {
        "alarm": bool(alarms),
        "alarm_at": _text(alarms[0].alarm_at) if alarms else None,
        "judged": {
            "first": _text(result.rows.index[0]),
            "last": _text(result.rows.index[-1]),
            "rows": len(result.rows),
        },
        "promise": {
            "first": _text(expected.first),
            "last": _text(expected.last),
            "rows": expected.n_rows,
            "held_out": expected.held_out,
            "false_alarms": false_alarm_rate(),
        },
        "findings": [
            asdict(f) | {"alarm_at": _text(f.alarm_at), "drift_since": _text(f.drift_since)}
            for f in result.findings
        ],
        "gain_over_static": gains.get("static"),
        "gains": gains,
    }


def false_alarm_rate() -> str:
    """Nominal rate of false alarms; `benchmarks/README.md` reports the measured one."""
    from hmm_exp.monitor.cusum import HORIZON
    from hmm_exp.monitor.expectations import CHANCE

    return f"expected in {CHANCE:.0%} of stretches of {HORIZON:,} rows"


def _text(time: "pd.Timestamp | None") -> str | None:
    from hmm_exp.market.iso import iso

    return None if time is None else iso(time)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-monitor",
        description="Check on new bars that a model still behaves as expected after its training.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--bars", type=Path, required=True, help="bars: CSV, gzip or Parquet; or many symbols")
    add_model_option(parser, "models:/hmm_regime/Production")
    add("--since", metavar="TIME", help="monitor bars after this (UTC; default: end of training)")
    add("--output", type=output_file, metavar="JSON", help="write the results to this file")
    add("--figure", type=figure_file, metavar="PNG", help="draw them in this file (or .svg, .pdf)")
    add_symbol_options(parser)
    add_read_options(parser)
    args = parser.parse_args(argv)
    if args.figure and names_symbols(args):
        parser.error("--figure draws one symbol: give its --bars and its --model")
    return args


def run(args: argparse.Namespace) -> int:
    """Monitor the bars, print the table and the verdict, write the files; return exit status."""
    from hmm_exp.judge.split import instant
    from hmm_exp.monitor.expectations import expectations_of
    from hmm_exp.monitor.monitor import monitor_bars
    from hmm_exp.serving.load import find_detector

    since = None if args.since is None else instant(f"--since {args.since}", args.since)
    if names_symbols(args):
        from hmm_exp.commands.monitor_panel import monitor_panel

        return monitor_panel(args, since)
    detector = with_read_options(find_detector(args.model), args)
    expected = expectations_of(detector)
    with Reading(detector) as reading:
        result = monitor_bars(detector, reading.bars(args.bars), since)
    if args.figure:
        from hmm_exp import figures

        figures.save(_figure(detector, result), args.figure)
    if args.output:
        content = json.dumps(report(result, expected), indent=1)
        with written_beside(args.output) as part:
            part.write_text(content + "\n")
    print(_table(result), _verdict(result), sep="\n\n")
    return ALARM if result.alarms else DONE


def _figure(detector: "Detector", result: "MonitorResult") -> "Figure":
    from hmm_exp.figures.monitor import monitor as draw

    return draw(result.rows, result.bars, detector.labels, subject=detector.name)


def _table(result: "MonitorResult") -> str:
    """One line per control chart."""
    import pandas as pd

    from hmm_exp.judge.wording import percent

    shown = [
        {
            "series": finding.name,
            "expected": f"{finding.promised:.4f}",
            "observed": f"{finding.seen:.4f}",
            "highest": percent(finding.highest),
            "now": percent(finding.now),
            "alarm at": _text(finding.alarm_at) or "",
            "drift since": _text(finding.drift_since) or "",
        }
        for finding in result.findings
    ]
    return pd.DataFrame(shown).to_string(index=False)


def _verdict(result: "MonitorResult") -> str:
    from hmm_exp.judge.wording import signed

    rows = result.rows
    span = f"{_text(rows.index[0])} to {_text(rows.index[-1])}"
    notes = (
        "highest, now: cumulated shortfall as a share of its alarm threshold\n"
        f"a false alarm is {false_alarm_rate()}\n"
        f"{len(rows):,} rows monitored, {span}"
    )
    if result.gains:
        worded = result.worded_gains
        over = [
            worded[name].text if name in worded else f"over {name} {signed(gain)}"
            for name, gain in result.gains.items()
        ]
        notes += "\n  ".join(["\nforecast of the next bar, gain in nats per bar:", *over])
    if not result.alarms:
        return f"{notes}\nas expected"
    first, *others = result.alarms
    also = f"; {len(others)} more alarm{'s' * (len(others) > 1)} later" if others else ""
    return (
        f"{notes}\nALARM at {_text(first.alarm_at)}: {first.name} differs from its "
        f"expectation since {_text(first.drift_since)}{also}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
