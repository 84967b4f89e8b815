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
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from hmm_exp.errors import HmmExpError, is_from_outside, one_line, refusal

if TYPE_CHECKING:
    from hmm_exp.detector.detector import Detector
    from hmm_exp.market.options import ReadOptions

DONE, REFUSED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line and whose examples keep their lines."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong on one line of standard error and leave."""
        self.exit(BAD_INPUT, f"error: {one_line(f'{message} (see --help)')}\n")


def whole(low: int, high: int) -> Callable[[str], int]:
    """Type of an option that takes a whole number between bounds."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # too many digits for Python, too
            raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text}: must be {low:,} to {high:,}")
        return value

    return read


def named(setting: str) -> Callable[[str], str]:
    """Type of an option that takes what a setting takes, such as "registry.name"."""

    def read(text: str) -> str:
        from hmm_exp.config import RULES

        if text not in RULES[setting]:
            raise argparse.ArgumentTypeError(f"{text}: must be {RULES[setting]}")
        return text

    return read


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
        type=named("registry.name"),
        default="hmm_regime",
        metavar="NAME",
        help="registered model (default: hmm_regime)",
    )


def add_read_options(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Add the options of reading a file.

    `required` is for a command without a model; else what is not given is as in its training.
    """
    default = "as in training" if not required else None
    options = parser.add_argument_group(
        "reading the file", None if required else "default: as in the training of the model"
    )
    add = options.add_argument
    add(
        "--bar-stamp",
        choices=("open", "close"),
        required=required,
        help="what a time in the file marks: the bar's start (exchanges, TradingView) or its end",
    )
    add(
        "--gaps",
        choices=("split", "bridge"),
        help="missing bars are missing (split, 24/7 markets) or neighbours are neighbours "
        f"(bridge, sessions) (default: {default or 'split'})",
    )
    add(
        "--bad-rows",
        choices=("error", "drop"),
        help=f"rows that hold no bar: refuse the file, or leave them out "
        f"(default: {default or 'error'})",
    )
    add(
        "--timezone",
        metavar="ZONE",
        help=f"zone of times that name none, such as US/Eastern (default: {default or 'UTC'})",
    )
    for kind in ("timestamp", "volume"):
        add(
            f"--{kind}-column",
            metavar="NAME",
            help=f"column of the {kind} (default: {default or 'found by name'})",
        )


def read_options(args: argparse.Namespace, trained: "ReadOptions | None" = None) -> "ReadOptions":
    """Options that were given; the others as in training, or else their defaults."""
    from hmm_exp.market.options import ReadOptions

    names = [field.name for field in fields(ReadOptions)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return replace(trained, **given) if trained else ReadOptions(**given)


def with_read_options(detector: "Detector", args: argparse.Namespace) -> "Detector":
    """Give the detector that reads as it did in training, but for the options that were given."""
    return replace(detector, reading=read_options(args, detector.reading))


def show_reading(report: dict[str, Any], detector: "Detector | None" = None) -> None:
    """Print to standard error what is doubtful about a table, and what differs from training."""
    trained = detector.meta.get("columns", {}) if detector else {}
    for role, column in report["columns"].items():
        before = trained.get(role, column)
        if before != column:
            print(
                f"note: {role} is read from {column!r}, in training from {before!r}",
                file=sys.stderr,
            )
    for warning in report["warnings"]:
        print(f"warning: {one_line(warning)}", file=sys.stderr)


def exit_status(action: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Status that a command leaves with; what it cannot do is one line on standard error."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        status = action(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output has gone, and what was shown is not lost
        _discard(sys.stdout)
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        words = refusal(error)
        if not words and not isinstance(error, HmmExpError) and not is_from_outside(error):
            raise
        text = str(error) if isinstance(error, HmmExpError) else words or str(error)
        print(f"error: {own_words(text)}", file=sys.stderr)
        Output(sys.stdout).flush()  # what is left of it would be a second message
        return BAD_INPUT


class Output:
    """A standard stream that never stops the work: what cannot be written is lost.

    Attributes
    ----------
    error
        The first one: the disk is full, or the reader has gone. None while all is written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write as far as it goes."""
        return self._do(lambda: self._stream.write(text))

    def flush(self) -> None:
        """Flush as far as it goes."""
        self._do(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _do(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except OSError as error:
            self.error = self.error or error
            _discard(self._stream)


def _discard(stream: TextIO) -> None:
    """Send what a stream still holds, and what comes, to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_OF_TRAINING = re.compile(r"(?:;|, or) set data\.path(?: to a file in it)?$")  # here no setting


def own_words(error: object) -> str:
    """Text of an error on one line, a setting `data.bad_rows=drop` as `--bad-rows drop`."""

    def option(setting: re.Match) -> str:
        return f"--{setting[1].replace('_', '-')}" + (f" {setting[2]}" if setting[2] else "")

    setting = r"\bdata\.(\w+_column|\w+(?==))(?:=('[^']*'|\w+))?"
    return one_line(re.sub(setting, option, _OF_TRAINING.sub("", str(error))))
