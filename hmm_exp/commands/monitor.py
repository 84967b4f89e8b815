"""Does a model still do what its training promised? Every new bar against it, with an alarm.

    hmm-monitor --bars new.csv --output monitor.json --figure monitor.png

A thin command line over `experiment/watch.py`: a table, JSON, a figure, and an exit status that
says alarm.
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
    add_read_options,
    exit_status,
    show_reading,
    with_read_options,
)
from hmm_exp.files import written_beside

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hmm_exp.detector.detector import Detector
    from hmm_exp.monitor.expectations import Expectations
    from hmm_exp.monitor.monitor import MonitorResult

PRODUCTION = "models:/hmm_regime/Production"
EXAMPLES = """examples:
  hmm-monitor --bars new.csv
  hmm-monitor --bars new.csv --output monitor.json --figure monitor.png
  hmm-monitor --bars new.csv --since "2024-06-01 12:00"
  hmm-monitor --bars new.csv --model runs:/0a1b2c3d4e5f
  hmm-monitor --bars new.csv --model ./model || mail -s "look at it" me

The file holds new bars and, before them, enough for the model's windows. Bars up to the end of
its training are not judged. After an alarm that has been looked into, --since goes on from there.

exit status: 0 as promised; 1 alarm; 2 bad input
"""
ALARM = 1


def report(watched: "MonitorResult", promise: "Expectations") -> dict[str, Any]:
    """Everything but the single bars, as plain values for JSON; times are ISO texts, UTC."""
    alarms, gain = watched.alarms, watched.bars.get("gain")
    return {
        "alarm": bool(alarms),
        "alarm_at": _text(alarms[0].alarm_at) if alarms else None,
        "judged": {
            "first": _text(watched.rows.index[0]),
            "last": _text(watched.rows.index[-1]),
            "rows": len(watched.rows),
        },
        "promise": {
            "first": _text(promise.first),
            "last": _text(promise.last),
            "rows": promise.n_rows,
            "held_out": promise.held_out,
            "false_alarms": promise_in_words(),
        },
        "findings": [
            asdict(f) | {"alarm_at": _text(f.alarm_at), "drift_since": _text(f.drift_since)}
            for f in watched.findings
        ],
        "gain_over_static": None if gain is None or gain.isna().all() else float(gain.mean()),
    }


def promise_in_words() -> str:
    """How rare a false alarm is meant to be; `benchmarks/README.md` has what was measured."""
    from hmm_exp.monitor.cusum import HORIZON
    from hmm_exp.monitor.expectations import CHANCE

    return f"due in {CHANCE:.0%} of stretches of {HORIZON:,}"


def _text(time: "pd.Timestamp | None") -> str | None:
    return None if time is None else time.isoformat()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-monitor",
        description="Hold a model to what its training promised, on bars after it.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--bars", type=Path, required=True, help="bars: CSV, gzip or Parquet")
    add(
        "--model",
        default=PRODUCTION,
        help=f"models:/..., runs:/..., a run's id, a folder or a file (default: {PRODUCTION})",
    )
    add("--since", metavar="TIME", help="judge bars after this (UTC; default: the training's end)")
    add("--output", type=Path, metavar="JSON", help="what was found, to a file")
    add("--figure", type=Path, metavar="PNG", help="a picture of it (or .svg, .pdf)")
    add_read_options(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """MonitorResult, print what was found, write what was asked for; gives the exit status."""
    from hmm_exp.judge.split import instant
    from hmm_exp.market.load import read_bars
    from hmm_exp.monitor.expectations import expectations_of
    from hmm_exp.monitor.monitor import monitor_bars
    from hmm_exp.serving.lookup import find_detector

    since = None if args.since is None else instant(f"--since {args.since}", args.since)
    detector = with_read_options(find_detector(args.model), args)
    promise = expectations_of(detector)
    bars = read_bars(args.bars, detector.reading, needs=detector.recipe.needs)
    show_reading(bars.report, detector)
    watched = monitor_bars(detector, bars, since)
    if args.figure:
        from hmm_exp import figures

        figures.save(_figure(detector, watched), args.figure)
    if args.output:
        _write(report(watched, promise), args.output)
    print(_table(watched), end="\n\n")
    print(_verdict(watched))
    return ALARM if watched.alarms else DONE


def _figure(detector: "Detector", watched: "MonitorResult") -> "Figure":
    from hmm_exp.figures.monitor import watch as draw

    return draw(watched.rows, watched.bars, detector.labels, subject=detector.name)


def _write(content: dict[str, Any], path: Path) -> None:
    """Write JSON beside and rename it."""
    with written_beside(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")


def _table(watched: "MonitorResult") -> str:
    import pandas as pd

    shown = [
        {
            "watched": finding.name,
            "promised": f"{finding.promised:.4f}",
            "seen": f"{finding.seen:.4f}",
            "highest": f"{finding.highest:.0%}",
            "now": f"{finding.now:.0%}",
            "alarm at": f"{finding.alarm_at:%Y-%m-%d %H:%M}" if finding.alarm_at else "",
            "drift since": f"{finding.drift_since:%Y-%m-%d %H:%M}" if finding.drift_since else "",
        }
        for finding in watched.findings
    ]
    return pd.DataFrame(shown).to_string(index=False)


def _verdict(watched: "MonitorResult") -> str:
    rows = watched.rows
    span = f"{rows.index[0]:%Y-%m-%d %H:%M} to {rows.index[-1]:%Y-%m-%d %H:%M}"
    judged = f"{len(rows):,} rows judged, {span}; a false alarm is {promise_in_words()}"
    if not watched.alarms:
        return f"{judged}\nas promised"
    first, *others = watched.alarms
    also = f", {len(others)} more chart{'s' * (len(others) > 1)} later" if others else ""
    return (
        f"{judged}\nALARM at {first.alarm_at:%Y-%m-%d %H:%M} UTC: {first.name} is not as promised "
        f"since {first.drift_since:%Y-%m-%d %H:%M}{also}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
