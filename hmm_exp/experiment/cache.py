"""What is computed once per sweep: files that all processes of the sweep map into memory.

    arrays, about = entry(folder, "features", [digest, recipe], make)

An entry is a folder of plain NumPy arrays and a text that holds what else there is and checksums
of all of it. It is made under a lock, written beside and renamed: one process computes,
the others wait for it and map what it wrote. A damaged entry is made again. The folder belongs to
one sweep and goes with it.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from hmm_exp import __version__

FOLDER = "cache"  # in the folder of a sweep
ABOUT = "about.txt"  # JSON, and its checksum on the last line
PATIENCE = 120.0  # seconds to wait for another process; after that the work is done twice
Content = tuple[dict[str, np.ndarray], dict[str, Any]]


def entry(folder: Path | None, kind: str, key: Any, make: Callable[[], Content]) -> Content:
    """Arrays and what else is to be known: from the cache, or made now and put there.

    Parameters
    ----------
    folder
        None for no cache.
    kind
        What it is, in one word.
    key
        All that the content depends on beside the package version, fit for JSON.
    make
        Gives the arrays by name, none of them of objects, and the rest, fit for JSON.

    Returns
    -------
    arrays
        Writable; a write goes to memory of this process alone.
    about
        The rest.
    """
    if folder is None:
        return make()
    code = hashlib.sha256(json.dumps([__version__, key], sort_keys=True).encode()).hexdigest()
    place = folder / f"{kind}-{code[:24]}"
    content = _mapped(place)
    if content is None:
        with _Lock(place):
            content = _mapped(place)
            if content is None:
                content = make()
                _write(place, content)
    return content


class _Lock:
    """One process at a time where that can be had: the cache is a help, never a condition."""

    def __init__(self, place: Path) -> None:
        self._lock = FileLock(f"{place}.lock", timeout=PATIENCE)

    def __enter__(self) -> None:
        try:
            Path(self._lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except (Timeout, OSError):
            pass

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _mapped(place: Path) -> Content | None:
    """An entry as it lies on disk; None when there is none, or not what was written."""
    try:
        text, checksum = (place / ABOUT).read_text().rsplit("\n", 1)
        if zlib.crc32(text.encode()) != int(checksum):
            return None
        record = json.loads(text)
        arrays = {}
        for name, checksum in record["checksums"].items():
            array = np.load(place / f"{name}.npy", mmap_mode="c", allow_pickle=False)
            if _checksum(array) != checksum:
                return None
            arrays[name] = np.asarray(array)
    except (OSError, ValueError):
        return None
    return arrays, record["about"]


def _write(place: Path, content: Content) -> None:
    """Put an entry in its place, whole or not at all."""
    arrays, about = content
    checksums = {name: _checksum(array) for name, array in arrays.items()}
    beside = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        text = json.dumps({"about": about, "checksums": checksums})
        beside.mkdir()
        for name, array in arrays.items():
            np.save(beside / f"{name}.npy", array, allow_pickle=False)
        (beside / ABOUT).write_text(f"{text}\n{zlib.crc32(text.encode())}")
        shutil.rmtree(place, ignore_errors=True)  # a damaged one
        beside.rename(place)
    except (OSError, TypeError):  # a full disk, another was faster, a report JSON cannot hold
        shutil.rmtree(beside, ignore_errors=True)


def _checksum(array: np.ndarray) -> int:
    """CRC-32 of the numbers in memory order, begun with what they are."""
    numbers = np.ravel(array, order="A").view(np.uint8)
    return zlib.crc32(numbers.data, zlib.crc32(f"{array.dtype}{array.shape}".encode()))
