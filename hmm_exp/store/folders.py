"""Check the folders that Hydra will make, and remove those of a refused run."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hmm_exp.errors import ConfigError

_new: list[Path] = []  # folders that Hydra will make, innermost first
_own: list[Path] = []  # those of this run alone


def check_folder(option: str, folder: str, inside: str | None = None) -> None:
    """Refuse a folder that cannot be made or written; `inside` is a folder within it.

    The check does not make the folders, since another sweep may be starting in the same place.
    Raises ConfigError if the folder cannot be made or written; the message names `option`.
    """
    try:
        outer = Path(folder).resolve()
        place = (outer / (inside or "")).resolve()
        paths = {place, *place.parents, outer, *outer.parents}
        _new[:] = [path for path in sorted(paths, reverse=True) if not path.exists()]
        _own[:] = [path for path in _new if path in (place, outer)]
        try_folder(outer)
        try_folder(place)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{option}={folder}: cannot be made and written: {reason}") from None


def try_folder(folder: Path) -> None:
    """Raise OSError if a folder cannot be made or written; leave no trace."""
    there = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    with tempfile.TemporaryDirectory(dir=there):
        pass


def remove_run_folder() -> None:
    """Remove the folders that Hydra made for a run, and none that existed before."""
    for path in _own:
        shutil.rmtree(path, ignore_errors=True)
    for path in _new:
        with suppress(OSError):  # not empty
            path.rmdir()
