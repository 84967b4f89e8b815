"""List, show and compare the versions of a registered model, and roll back to an earlier one.

Exit status: 0 done; 2 bad input, or there is nothing to roll back to.
"""

import argparse
import sys
from glob import has_magic
from pathlib import Path

from hmm_exp.command_line import (
    DONE,
    Parser,
    Reading,
    add_read_options,
    add_store_options,
    exit_status,
    read_options,
)
from hmm_exp.errors import ConfigError

EXAMPLES = """examples:
  hmm-registry list                             # all versions, oldest first
  hmm-registry list --registry 'hmm_regime.*'   # of many models those in Production
  hmm-registry show production                  # all records of one version
  hmm-registry diff 3 production                # parameters that differ
  hmm-registry diff 3 4 --bars bars.csv         # and their regimes on these bars
  hmm-registry rollback                         # to the previous version
  hmm-registry rollback --to 2                  # to a named version

Name a version by its number, as production, or by the beginning of its run's id.
exit status: 0 done; 2 bad input, or there is nothing to roll back to
"""
ROLLBACK_EXAMPLES = """examples:
  hmm-registry rollback                                # of hmm_regime, store in this folder
  hmm-registry rollback --to 2                         # to a named version
  hmm-registry rollback --registry my_regimes --tracking-uri http://127.0.0.1:5000

exit status: 0 rolled back; 2 there is nothing to roll back to, or bad input
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-registry", description="Versions of a registered model.", epilog=EXAMPLES
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="versions with their sweep, metrics and reasons")
    show = commands.add_parser("show", help="all records of one version")
    show.add_argument("version")
    diff = commands.add_parser("diff", help="differences between two versions")
    diff.add_argument("old")
    diff.add_argument("new")
    diff.add_argument("--bars", type=Path, metavar="FILE", help="compare the regimes on these bars")
    add_read_options(diff)
    back = commands.add_parser(
        "rollback", help="bring an earlier version back into Production", epilog=ROLLBACK_EXAMPLES
    )
    back.add_argument("--to", metavar="VERSION", help="default: the previous champion")
    for command in (listing, show, diff, back):
        add_store_options(command)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run one subcommand and print its lines."""
    from hmm_exp.registry.versions import Versions
    from hmm_exp.store.store import connect

    needs_models = args.command not in ("list", "show")
    if has_magic(args.registry) and args.command != "list":
        raise ConfigError(f"--registry {args.registry}: {args.command} takes one registered model")
    versions = Versions(connect(args.tracking_uri, artifacts=needs_models), args.registry)
    actions = {"list": _list, "show": _show, "diff": _diff, "rollback": _rollback}
    print(*actions[args.command](versions, args), sep="\n")
    return DONE


def _list(versions, args: argparse.Namespace) -> list[str]:
    from hmm_exp.registry.history import champion_lines, list_lines

    if has_magic(versions.name):
        return champion_lines(versions.client, versions.name)
    return list_lines(versions)


def _show(versions, args: argparse.Namespace) -> list[str]:
    from hmm_exp.registry.history import version_lines

    return version_lines(versions.get(args.version))


def _diff(versions, args: argparse.Namespace) -> list[str]:
    from hmm_exp.market.load import read_bars
    from hmm_exp.registry import history

    old_name, old = history.load_version(versions, args.old)
    new_name, new = history.load_version(versions, args.new)
    lines = history.parameter_lines(old, new, (old_name, new_name))
    if args.bars is None:
        return lines
    needs = {*old.recipe.needs, *new.recipe.needs}
    with Reading(new) as reading:
        bars = read_bars(args.bars, read_options(args, new.reading), needs=needs)
        reading.take(bars.report)
        found = history.compare_regimes(old, new, bars, (old_name, new_name))
    return [*lines, "", *history.difference_lines(found, (old_name, new_name))]


def _rollback(versions, args: argparse.Namespace) -> list[str]:
    from hmm_exp.registry.promotion import rollback

    return rollback(versions.client, versions.name, args.to).lines()


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
