"""What the command lines share: complaints of one line, store options, exit status.

parser = Parser(description="Do it.", epilog="examples: ...")
add_store_options(parser)
sys.exit(exit_status(do_it, parser.parse_args()))
"""

import argparse
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from hmm_exp.errors import HmmExpError

DONE, REFUSED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line and whose examples keep their lines."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong on one line of standard error and leave."""
        self.exit(BAD_INPUT, f"error: {message} (see --help)\n")


def add_tracking_uri(parser: argparse.ArgumentParser) -> None:
    """Add `--tracking-uri`: which store."""
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store (default: MLFLOW_TRACKING_URI, else mlflow.db in this folder)",
    )


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Add `--tracking-uri` and `--registry`: which store, which registered model in it."""
    add_tracking_uri(parser)
    parser.add_argument(
        "--registry",
        default="hmm_regime",
        metavar="NAME",
        help="registered model (default: hmm_regime)",
    )


def add_bad_rows(parser: argparse.ArgumentParser) -> None:
    """Add `--bad-rows`: what to do about rows that hold no bar."""
    parser.add_argument(
        "--bad-rows",
        choices=("error", "drop"),
        default="error",
        help="rows that hold no bar: refuse the file, or leave them out (default: error)",
    )


def exit_status(action: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Status that a command leaves with; what it cannot do is one line on standard error."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        return action(args)
    except BrokenPipeError:  # the reader of our output has gone, and what was shown is not lost
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (HmmExpError, OSError) as error:
        print(f"error: {_own_words(str(error))}", file=sys.stderr)
        return BAD_INPUT


def _own_words(text: str) -> str:
    """The text on one line, a setting `data.bad_rows=drop` as the option `--bad-rows drop`."""

    def option(setting: re.Match) -> str:
        return f"--{setting[1].replace('_', '-')} {setting[2]}"

    return re.sub(r"\bdata\.(\w+)=(\w+)", option, " ".join(text.split()))
