"""Make the report of a sweep, of a panel or of a run, as one self-contained HTML file.

    python -m hmm_exp.report --sweep latest

Exit status: 0 done, 2 bad input.
"""

import argparse
import sys

from hmm_exp.command_line import (
    DONE,
    Parser,
    add_tracking_uri,
    exit_status,
    named,
    output_file,
)

EXAMPLES = """examples:
  python -m hmm_exp.report --sweep latest                  # logged on the sweep's parent run
  python -m hmm_exp.report --sweep 20260411-093000-1a2b --output report.html
  python -m hmm_exp.report --run 0a1b2c3d --output run.html
  hmm-report --sweep latest                                # the same, where it is installed

A sweep writes its report when it ends, unless tracking.report=false.
exit status: 0 done; 2 bad input
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-report",
        description="Make the report of a sweep, a panel or one run, as one HTML file.",
        epilog=EXAMPLES,
    )
    about = parser.add_mutually_exclusive_group(required=True)
    about.add_argument(
        "--sweep",
        type=named("sweep_id"),
        metavar="ID",
        help="id of a sweep or panel, or its beginning; latest is the newest",
    )
    about.add_argument("--run", metavar="ID", help="id of a finished run or its beginning")
    parser.add_argument(
        "--output",
        type=output_file,
        metavar="FILE",
        help="file to write (default: artifact report.html of the run or the sweep's parent run)",
    )
    add_tracking_uri(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Make the report and print where it is."""
    from hmm_exp.report.log import make_report, read_any, read_run
    from hmm_exp.store.store import connect

    client = connect(args.tracking_uri)
    subject = read_any(client, args.sweep) if args.sweep else read_run(client, args.run)
    print(f"report: {make_report(client, subject, args.output)}")
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
