"""List, show, clean and close the sweeps of a store; repair a store that was moved.

Exit status: 0 done, 2 bad input.
"""

import argparse
import shutil
import sys
from typing import TYPE_CHECKING

from hmm_exp.command_line import DONE, Parser, add_tracking_uri, exit_status, named

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXAMPLES = """examples:
  hmm-sweeps list                            # every sweep, with its cells by status
  hmm-sweeps show latest                     # leaderboard and unfinished cells
  hmm-sweeps clean                           # list what would be removed
  hmm-sweeps clean --yes                     # remove it
  hmm-sweeps close 20260102-030405-abcd      # if its machines are gone; then it can be resumed
  hmm-sweeps relocate                        # after moving or copying the store

clean removes failed and killed cells, finished cells superseded by a later one with the same
fingerprint in the same sweep, their artifacts, and caches of killed sweeps. It keeps running
sweeps, winners, and the runs of registered models.
relocate points a moved SQLite store at the artifacts in the mlruns folder next to it.
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-sweeps",
        description="List, show, clean and close sweeps; repair a store that was moved.",
        epilog=EXAMPLES,
    )
    add_tracking_uri(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every sweep, newest first, with its cells by status")
    show = commands.add_parser("show", help="one sweep: leaderboard and unfinished cells")
    show.add_argument(
        "sweep", type=named("sweep_id"), help="its id or the beginning; latest is the newest"
    )
    cleaning = commands.add_parser("clean", help="remove failed and superseded runs")
    cleaning.add_argument("--sweep", type=named("sweep_id"), metavar="ID", help="of one sweep only")
    cleaning.add_argument("--yes", action="store_true", help="remove; without it, only list them")
    close = commands.add_parser("close", help="mark runs left on machines that are gone as ended")
    close.add_argument("sweep", type=named("sweep_id"), help="its id or the beginning")
    commands.add_parser("relocate", help="point a moved store at the artifacts next to it")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from hmm_exp.store.store import connect
    from hmm_exp.sweep import housekeeping
    from hmm_exp.tracking.runs import sweep_named

    client = connect(args.tracking_uri, artifacts=args.command == "clean")
    if getattr(args, "sweep", None):
        args.sweep = sweep_named(client, args.sweep)
    if args.command == "relocate":
        print(*housekeeping.relocate_store(client), sep="\n")
    elif args.command == "list":
        print(housekeeping.sweeps_table(client))
    elif args.command == "show":
        print(housekeeping.sweep_text(client, args.sweep))
    elif args.command == "close":
        closed = housekeeping.close_elsewhere(client, args.sweep)
        lines = [f"closed {housekeeping.in_words(run)}" for run in closed]
        print(*(lines or ["no run was left running"]), sep="\n")
    else:
        clean(client, args.sweep, args.yes)
    return DONE


def clean(client: "MlflowClient", sweep: str | None, sure: bool) -> None:
    """List what can be removed, and remove it if `sure`."""
    from hmm_exp.sweep import housekeeping

    doomed, awaited = housekeeping.removable(client, sweep)
    caches = housekeeping.leftover_caches(client, sweep)
    for line in [*map(housekeeping.in_words, doomed), *(f"cache {place}" for place in caches)]:
        print(f"{'removing' if sure else 'would remove'} {line}")
    if sure:
        housekeeping.remove(client, doomed)
        for place in caches:
            shutil.rmtree(place, ignore_errors=True)
    rest = "" if sure or not (doomed or caches) else "; add --yes to remove them"
    print(f"{len(doomed)} runs, {len(caches)} caches{rest}")
    if awaited:
        print(f"{len(awaited)} runs are kept: their sweep is still running")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
