"""Shared parts of the command lines: one-line errors, common options, exit status.

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
from hmm_exp.version import __version__

if TYPE_CHECKING:
    from hmm_exp.detector.detector import Detector
    from hmm_exp.market.options import ReadOptions

DONE, REFUSED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


VERSION = f"hmm_exp {__version__}"
_COMPLETION = """
completion, after pip install 'hmm_exp[completion]':
  eval "$(register-python-argcomplete {prog})"
"""


class Parser(argparse.ArgumentParser):
    """A parser with one-line errors, preformatted examples, `--version` and completion."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)
        self.add_argument("--version", action="version", version=VERSION, help="print the version")
        if " " not in self.prog:  # a command, not a subcommand
            self.epilog = (self.epilog or "") + _COMPLETION.format(prog=self.prog)

    def parse_args(self, *words: Any, **options: Any) -> Any:
        """Read the words; when a shell asks for completions, answer it and exit."""
        if "_ARGCOMPLETE" in os.environ:
            _complete(self)
        return super().parse_args(*words, **options)

    def error(self, message: str) -> NoReturn:
        """Print a one-line error and exit."""
        self.exit(BAD_INPUT, f"error: {one_line(f'{message} (see --help)')}\n")


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that completes a command."""
    try:
        import argcomplete
    except ImportError:  # the command must not run
        sys.exit(REFUSED)
    argcomplete.autocomplete(parser)


class CommaList(argparse.Action):
    """An option of several texts, with commas or blanks between them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        names = " ".join(values).replace(",", " ").split()
        if not names:
            raise argparse.ArgumentError(self, f"{' '.join(values)!r} names nothing")
        setattr(namespace, self.dest, names)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Type of an option for a whole number between bounds."""

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
    """Type of an option with the rule of a setting, such as "registry.name"."""

    def read(text: str) -> str:
        from hmm_exp.config import RULES

        if text not in RULES[setting]:
            raise argparse.ArgumentTypeError(f"{text}: must be {RULES[setting]}")
        return text

    return read


def add_tracking_uri(parser: argparse.ArgumentParser) -> None:
    """Add `--tracking-uri`, the store."""
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store (default: MLFLOW_TRACKING_URI, else mlflow.db in this folder)",
    )


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Add `--tracking-uri` and `--registry`, the store and the registered model."""
    add_tracking_uri(parser)
    parser.add_argument(
        "--registry",
        type=named("registry.name"),
        default="hmm_regime",
        metavar="NAME",
        help="registered model (default: hmm_regime)",
    )


def add_read_options(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Add the options for reading a file.

    `required` is for commands without a model; otherwise the defaults are those of its training.
    """
    default = "as in training" if not required else None
    options = parser.add_argument_group(
        "reading the file", None if required else "default: as in the model's training"
    )
    add = options.add_argument
    add(
        "--bar-stamp",
        choices=("open", "close"),
        required=required,
        help="whether times in the file are a bar's start (exchanges, TradingView) or its end",
    )
    add(
        "--gaps",
        choices=("split", "bridge"),
        help="treat missing bars as a gap (split, 24/7 markets) or the bars around them as "
        f"consecutive (bridge, markets with sessions) (default: {default or 'split'})",
    )
    add(
        "--bad-rows",
        choices=("error", "drop"),
        help="invalid rows: refuse the file (error) or skip them (drop) "
        f"(default: {default or 'error'})",
    )
    add(
        "--timezone",
        metavar="ZONE",
        help=f"zone of times without one, such as US/Eastern (default: {default or 'UTC'})",
    )
    for kind in ("timestamp", "volume"):
        add(
            f"--{kind}-column",
            metavar="NAME",
            help=f"column of the {kind} (default: {default or 'found by name'})",
        )


def read_options(args: argparse.Namespace, trained: "ReadOptions | None" = None) -> "ReadOptions":
    """The given options; the others as in training, or their defaults."""
    from hmm_exp.market.options import ReadOptions

    names = [field.name for field in fields(ReadOptions)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return replace(trained, **given) if trained else ReadOptions(**given)


def with_read_options(detector: "Detector", args: argparse.Namespace) -> "Detector":
    """Give the detector with the given reading options, the others as in training."""
    return replace(detector, reading=read_options(args, detector.reading))


def show_reading(report: dict[str, Any], detector: "Detector | None" = None) -> None:
    """Print warnings about a table and differences from training to standard error."""
    trained = detector.meta.get("columns", {}) if detector else {}
    for role, column in report["columns"].items():
        before = trained.get(role, column)
        if before != column:
            print(
                f"note: {role} is read from {column!r}, but was read from {before!r} in training",
                file=sys.stderr,
            )
    for warning in report["warnings"]:
        print(f"warning: {one_line(warning)}", file=sys.stderr)


def exit_status(action: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command and return its exit status; errors become one line on standard error."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        status = action(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output has gone, which is no error
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
        Output(sys.stdout).flush()  # a failing flush at exit would print a second error
        return BAD_INPUT


class Output:
    """A standard stream without write errors: text that cannot be written is dropped.

    Attributes
    ----------
    error
        The first error, such as a full disk or a closed pipe; None without one.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        return self._do(lambda: self._stream.write(text))

    def flush(self) -> None:
        """Flush, or drop the text."""
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
    """Redirect a stream to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_OF_TRAINING = re.compile(r"(?:;|, or) set data\.path(?: to a file in it)?$")  # here no setting


def own_words(error: object) -> str:
    """One-line text of an error, with settings (`data.bad_rows=drop`) as options."""

    def option(setting: re.Match) -> str:
        return f"--{setting[1].replace('_', '-')}" + (f" {setting[2]}" if setting[2] else "")

    setting = r"\bdata\.(\w+_column|\w+(?==))(?:=('[^']*'|\w+))?"
    return one_line(re.sub(setting, option, _OF_TRAINING.sub("", str(error))))
