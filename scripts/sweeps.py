"""List, show, clean and close the sweeps of a store.

Exit status: 0 done, 2 bad input.
"""

import argparse
import os
import sys

EXAMPLES = """examples:
  python scripts/sweeps.py list                            # every sweep, its cells by status
  python scripts/sweeps.py show latest                     # leaderboard and what did not finish
  python scripts/sweeps.py clean                           # what would be removed
  python scripts/sweeps.py clean --yes                     # remove it
  python scripts/sweeps.py close 20260102-030405-abcd      # its machines are gone: resume it then

clean removes the runs of cells that failed or were killed, and finished cells that a later one of
the same fingerprint in the same sweep supersedes, with their artifacts. Runs that are still alive,
winners, and runs behind a registered model stay.
"""
BAD_INPUT = 2


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="List, show, clean and close the sweeps of a store.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store (default: MLFLOW_TRACKING_URI, else mlflow.db in this folder)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every sweep, newest first, with its cells by status")
    show = commands.add_parser("show", help="one sweep: leaderboard, and what did not finish")
    show.add_argument("sweep", help="its id, or latest")
    clean = commands.add_parser("clean", help="remove failed and superseded runs")
    clean.add_argument("--sweep", metavar="ID", help="of one sweep only")
    clean.add_argument("--yes", action="store_true", help="remove; without it, only say what")
    close = commands.add_parser("close", help="end what a sweep left running on machines now gone")
    close.add_argument("sweep", help="its id")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Do what was asked."""
    from hmm_exp.tracking import housekeeping
    from hmm_exp.tracking.store import connect

    client = connect(args.tracking_uri)
    if args.command == "list":
        print(housekeeping.sweeps_table(client))
    elif args.command == "show":
        print(housekeeping.sweep_text(client, args.sweep))
    elif args.command == "close":
        closed = housekeeping.close_elsewhere(client, args.sweep)
        print(*(f"closed {housekeeping.in_words(run)}" for run in closed), sep="\n")
    else:
        doomed = housekeeping.removable(client, args.sweep)
        for run in doomed:
            print(f"{'removing' if args.yes else 'would remove'} {housekeeping.in_words(run)}")
        if args.yes:
            housekeeping.remove(client, doomed)
        rest = "" if args.yes or not doomed else "; add --yes to remove them"
        print(f"{len(doomed)} runs{rest}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    args = parse(argv)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from hmm_exp.errors import HmmExpError

    try:
        run(args)
    except HmmExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
