"""Bring back the version that was in Production before.

Exit status: 0 rolled back; 2 there is nothing to roll back to, or bad input.
"""

import argparse
import os
import sys
from typing import NoReturn

EXAMPLES = """examples:
  python scripts/rollback.py                          # of hmm_regime, store in this folder
  python scripts/rollback.py --registry my_regimes --tracking-uri http://127.0.0.1:5000

exit status: 0 rolled back; 2 there is nothing to roll back to, or bad input
"""
BAD_INPUT = 2


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message} (see --help)\n")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = _Parser(
        description="Bring back the version that was in Production before; the newer is archived.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store (default: MLFLOW_TRACKING_URI, else mlflow.db in this folder)",
    )
    add("--registry", default="hmm_regime", metavar="NAME", help="registered model (hmm_regime)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    args = parse(argv)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from hmm_exp.errors import HmmExpError
    from hmm_exp.tracking import registry, store

    try:
        champion = registry.rollback(store.connect(args.tracking_uri), args.registry)
    except HmmExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    print(
        f"rolled back: models:/{args.registry}/{registry.STAGE} is version {champion.version} "
        f"(run {champion.run_id})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
