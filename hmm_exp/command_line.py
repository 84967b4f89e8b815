"""Shared parts of the command lines: one-line errors, common options, exit status.

parser = Parser(description="Do it.", epilog="examples: ...")
add_store_options(parser)
sys.exit(exit_status(do_it, parser.parse_args()))
"""

import argparse
import atexit
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hmm_exp import interrupts
from hmm_exp.errors import HmmExpError, is_from_outside, one_line, refusal
from hmm_exp.interrupts import interrupt_of, listening
from hmm_exp.output import Output, coloured, discard, has_colour, tinted
from hmm_exp.version import __version__

if TYPE_CHECKING:
    from hmm_exp.detector.detector import Detector
    from hmm_exp.market.bars import Bars
    from hmm_exp.market.options import ReadOptions

DONE, REFUSED, BAD_INPUT = 0, 1, 2


VERSION = f"hmm_exp {__version__}"
_FIGURES = (".png", ".svg", ".pdf", ".jpg", ".webp")
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
        line = f"error: {one_line(f'{message} (see --help)')}\n"
        self.exit(BAD_INPUT, tinted(line) if has_colour(sys.stderr) else line)


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


def output_file(text: str) -> Path:
    """Type of an option for a file to write; its folder must exist."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: the folder {path.parent} does not exist")
    return path


def figure_file(text: str) -> Path:
    """Type of an option for a figure to write; its suffix, if any, gives the format."""
    suffix = Path(text).suffix.lower()
    if suffix not in ("", *_FIGURES):
        raise argparse.ArgumentTypeError(f"{text}: must end in {', '.join(_FIGURES)}")
    return output_file(text)


def named(setting: str) -> Callable[[str], str]:
    """Type of an option with the rule of a setting, such as "registry.name"."""

    def read(text: str) -> str:
        from hmm_exp.config import RULES

        if text not in RULES[setting]:
            raise argparse.ArgumentTypeError(f"{text}: must be {RULES[setting]}")
        return text

    return read


def add_model_option(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add `--model`, required unless it has a default."""
    words = "models:/..., runs:/..., a run's id or its start, a folder or a file"
    more = f" (default: {default})" if default else ""
    parser.add_argument("--model", default=default, required=default is None, help=f"{words}{more}")


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


class Reading:
    """Shows what a command read, once the work on it in the block has succeeded.

    After an error only differences from training and warnings precede the line of the error.

    with Reading(detector) as reading:
        result = work_on(reading.bars(path))
    """

    def __init__(self, detector: "Detector | None" = None) -> None:
        self.detector = detector
        self.reports: list[dict[str, Any]] = []

    def take(self, report: dict[str, Any]) -> None:
        """Add the data report of a table."""
        self.reports.append(report)

    def bars(self, path: Path, **options: Any) -> "Bars":
        """Read bars as the detector reads them; options as those of `read_bars`."""
        from hmm_exp.market.load import read_bars

        assert self.detector is not None
        needs = self.detector.recipe.needs
        bars = read_bars(path, self.detector.reading, needs=needs, **options)
        self.take(bars.report)
        return bars

    def __enter__(self) -> "Reading":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        show = show_reading if kind is None else _show_doubts
        for report in self.reports:
            show(report, self.detector)


def show_reading(report: dict[str, Any], detector: "Detector | None" = None) -> None:
    """Print to standard error what was read, differences from training, and warnings."""
    from hmm_exp.market.reading import what_was_read

    print(own_words(what_was_read(report)), file=sys.stderr, flush=True)
    _show_doubts(report, detector)


def _show_doubts(report: dict[str, Any], detector: "Detector | None") -> None:
    """Print differences from training, and warnings."""
    trained = detector.meta.get("columns", {}) if detector else {}
    for role, column in report["columns"].items():
        before = trained.get(role, column)
        if before != column:
            print(
                f"note: {role} is read from {column!r}, but was read from {before!r} in training",
                file=sys.stderr,
            )
    for warning in report["warnings"]:
        print(f"warning: {own_words(warning)}", file=sys.stderr)


_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # lines on standard error where tqdm is
    # Otherwise numba has a terminal's colours reset at exit, also where nothing has a colour.
    "NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING": "1",
    # OpenBLAS wakes its threads at every start and fork; they sleep after 2^4 cycles, not 2^26.
    "OPENBLAS_THREAD_TIMEOUT": "4",
    # More optimisation compiles an eighth longer; the code has the same bits and is not faster.
    "NUMBA_OPT": "1",
}


def quiet_libraries() -> None:
    """Set variables by which libraries send and print nothing, wait asleep and compile sooner.

    What the user has set stays.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a cache it cannot write
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def exit_status(action: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command and return its exit status; errors become one line on standard error."""
    quiet_libraries()
    with (
        listening(),
        redirect_stdout(coloured(sys.stdout)),
        redirect_stderr(coloured(sys.stderr)),
    ):
        return _exit_status(action, args)


def _exit_status(action: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    try:
        status = action(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output has gone, which is no error
        discard(sys.stdout)
        return DONE
    except (Exception, KeyboardInterrupt) as error:
        if interrupt := interrupt_of(error):
            return interrupts.exit_status(interrupt)
        words = refusal(error)
        if not words and not isinstance(error, HmmExpError) and not is_from_outside(error):
            raise
        text = str(error) if isinstance(error, HmmExpError) else words or str(error)
        print(f"error: {own_words(text)}", file=sys.stderr)
        Output(sys.stdout).flush()  # a failing flush at exit would print a second error
        return BAD_INPUT


def run_program(main: Callable[[], None]) -> None:
    """Run the whole of a program whose process ends without freeing its memory piece by piece.

    After MLflow and the charts library that takes Python half a second and more. Threads are joined
    and exit handlers called before: the last of them, registered first, ends the process. One that
    was stopped waits for neither longer than some seconds.
    """
    status = REFUSED  # of an unexpected error, whose traceback Python prints before it ends

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            Output(stream).flush()
        os._exit(status)

    atexit.register(end)
    try:
        main()
        status = DONE
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            status = error.code or DONE
        interrupts.end_soon(status)
        raise


def note(text: str) -> None:
    """Print a line to standard error at once."""
    print(text, file=sys.stderr, flush=True)


_OF_TRAINING = re.compile(r"(?:;|, or) set data\.path(?: to a file in it)?$")  # here no setting


def own_words(error: object) -> str:
    """One-line text of an error, with settings (`data.bad_rows=drop`) as options."""

    def option(setting: re.Match) -> str:
        return f"--{setting[1].replace('_', '-')}" + (f" {setting[2]}" if setting[2] else "")

    setting = r"\bdata\.(\w+_column|symbol_pattern|timezone|\w+(?==))(?:=('[^']*'|\w+))?"
    return one_line(re.sub(setting, option, _OF_TRAINING.sub("", str(error))))
