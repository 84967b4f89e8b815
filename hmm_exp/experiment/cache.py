"""Arrays computed once per sweep, in files that all its processes map into memory.

    arrays, about = entry(folder, "features", [digest, recipe], make)

An entry is a folder of NumPy arrays and a text with the other values and checksums of all. It is
made under a lock, written to a temporary folder and renamed: one process computes, the others wait
and map its files. A damaged entry is made again. The sweep deletes the folder at its end.
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

from hmm_exp.version import __version__

FOLDER = "cache"  # in the folder of a sweep
ABOUT = "about.txt"  # JSON, and its checksum on the last line
PATIENCE = 120.0  # seconds to wait for another process; after that the work is done twice
Content = tuple[dict[str, np.ndarray], dict[str, Any]]


def entry(folder: Path | None, kind: str, key: Any, make: Callable[[], Content]) -> Content:
    """Arrays and other values from the cache, or made now and stored there.

    Parameters
    ----------
    folder
        None for no cache.
    kind
        Kind of content, in one word.
    key
        Everything the content depends on except the package version, fit for JSON.
    make
        Returns the arrays by name, none of objects, and the other values, fit for JSON.

    Returns
    -------
    arrays
        Writable; a write goes to memory of this process alone.
    about
        The other values.
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
    """Lock of one entry; a process that cannot have it goes on without."""

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
    """Map an entry from disk; None when it is missing or damaged."""
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
    """Write an entry, whole or not at all."""
    arrays, about = content
    checksums = {name: _checksum(array) for name, array in arrays.items()}
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        text = json.dumps({"about": about, "checksums": checksums})
        part.mkdir()
        for name, array in arrays.items():
            np.save(part / f"{name}.npy", array, allow_pickle=False)
        (part / ABOUT).write_text(f"{text}\n{zlib.crc32(text.encode())}")
        shutil.rmtree(place, ignore_errors=True)  # a damaged one
        part.rename(place)
    except (OSError, TypeError):  # full disk, another process was faster, not fit for JSON
        shutil.rmtree(part, ignore_errors=True)


def _checksum(array: np.ndarray) -> int:
    """CRC-32 of dtype, shape and the numbers in memory order."""
    numbers = np.ravel(array, order="A").view(np.uint8)
    return zlib.crc32(numbers.data, zlib.crc32(f"{array.dtype}{array.shape}".encode()))
