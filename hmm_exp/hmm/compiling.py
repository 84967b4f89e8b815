"""How compiled functions of the fitting engine are declared, and where their code is kept.

>>> @entry      # called from Python: cached on disk, releases the GIL
>>> @kernel     # called from compiled code only: becomes part of what calls it
>>> @inlined    # the same, put in place before types are known: for what is called once

A kernel has no wrapper for calls from Python. With arguments that are named tuples of arrays those
wrappers are longer than the kernels.

Numba keeps compiled code beside the file of the entry and looks at the date of that file alone, so
it would go on using an old kernel from another file. Here the folder is named after a digest of all
files of this package: any change in any of them compiles anew. It lies in NUMBA_CACHE_DIR, else in
the user's cache folder, so a read-only installation is cached too.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

config: Any = numba.config
njit: Any = numba.njit  # its type hints lack some options

kernel = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = njit(inline="always")


def entry(function: Callable) -> Any:
    """Compile on first call, or load what an earlier process compiled; no GIL while it runs."""
    usual = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        return njit(cache=True, nogil=True)(function)
    except (RuntimeError, OSError):  # no place to write to
        return njit(nogil=True)(function)
    finally:
        config.CACHE_DIR = usual


def cache_folder() -> Path:
    """Where the compiled code of exactly these sources is kept."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = Path(config.CACHE_DIR) if config.CACHE_DIR else Path(home) / "hmm_exp"
    return base / digest.hexdigest()[:16]
