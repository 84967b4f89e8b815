"""Bring back the version that was in Production before; `registry.py rollback` under a short name.

Exit status: 0 rolled back; 2 there is nothing to roll back to, or bad input.
"""

import argparse
import sys

from hmm_exp.command_line import DONE, Parser, add_store_options, exit_status

EXAMPLES = """examples:
  python scripts/rollback.py                          # of hmm_regime, store in this folder
  python scripts/rollback.py --to 2                   # to a named version
  python scripts/rollback.py --registry my_regimes --tracking-uri http://127.0.0.1:5000

exit status: 0 rolled back; 2 there is nothing to roll back to, or bad input
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description="Bring back the version that was in Production before; the newer is archived.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--to", metavar="VERSION", help="default: the one before")
    add_store_options(parser)
    return parser.parse_args(argv)


def roll_back(args: argparse.Namespace) -> int:
    """Roll back and say which version is served."""
    from hmm_exp.tracking import registry, store

    client = store.connect(args.tracking_uri)
    print(*registry.rollback(client, args.registry, args.to).lines(), sep="\n")
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(roll_back, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
