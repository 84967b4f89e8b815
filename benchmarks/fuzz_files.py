"""Files of bars for `fuzz.py`, read whole and in pieces, compared with the original bars."""

import sys
from collections.abc import Callable
from pathlib import Path

from forks import MISREAD, Case
from hostile_files import case_of, reading

from hmm_exp.errors import HmmExpError, one_line

_STATUS = {name: status for status, name in MISREAD.items()}


def file_cases(seed: int) -> Callable[[int], Case]:
    """Files of bars, whole and damaged."""

    def case(number: int) -> Case:
        file = case_of(seed, number)
        name = f"bars{file.suffix}"
        return Case(file.name, {name: file.content}, lambda: _read(Path(name), file))

    return case


def _read(path: Path, file) -> None:
    """Read a file; leave with 2 where it is refused, with a status of its own where misread."""
    try:
        found = reading(path, file)
    except HmmExpError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    if found != "right":
        print(found, file=sys.stderr)
        sys.exit(_STATUS[found.split(":")[0]])
