"""Decorators for compiled functions, and the cache folder of their code.

>>> @entry      # called from Python: cached on disk, releases the GIL
>>> @kernel     # called from compiled code only: becomes part of what calls it
>>> @inlined    # the same, put in place before types are known: for what is called once

A kernel has no wrapper for calls from Python. With arguments that are named tuples of arrays those
wrappers are longer than the kernels.

Numba keeps compiled code beside the file of the entry and looks at the date of that file alone, so
it would go on using an old kernel from another file: after an update a stream would differ from the
batch in its last bits. Here the folder is named after a digest of all files of the package that
hold compiled functions: a change in any of them compiles all anew. It lies in NUMBA_CACHE_DIR, else
in the user's cache folder, so a read-only installation is cached too.
"""

import hashlib
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import extending, types
from numba.core import cgutils, event

from hmm_exp.owner import is_dead, this_process

config: Any = numba.config
config.DISABLE_JIT = 0  # vectors of SIMD lanes exist in compiled code alone
# Its type hints lack some options. Divisions by zero give inf or nan, as numpy's do, instead of an
# exception, which would be a branch and a path of its own for every division.
njit: Any = partial(numba.njit, error_model="numpy")
intrinsic: Any = extending.intrinsic  # its type hints lack the calls

inlined = njit(inline="always", _nrt=False)

_KEPT = 4  # folders of other versions of the engine; a lost one costs a compilation
_TOGETHER = 30.0  # seconds within which processes of one sweep begin to compile
_log = logging.getLogger("hmm_exp.hmm")


def entry(function: Callable | None = None, **options: Any) -> Any:
    """Compile on first call, or load what an earlier process compiled; no GIL while it runs.

    `options` are further ones of `numba.njit`.
    """
    if function is None:
        return partial(entry, **options)
    unlocked = {"nogil": True, "no_cfunc_wrapper": True}  # nothing calls it from C
    usual, folder = config.CACHE_DIR, cache_folder()
    config.CACHE_DIR = str(folder)
    try:
        compiled = njit(cache=True, **unlocked, **options)(function)
        if not Path(compiled._cache.cache_path).is_relative_to(folder):
            raise OSError("beside the source, where a change in another file would not be seen")
        compiled._cache.save_overload = partial(_save, compiled._cache.save_overload)
        return compiled
    except (RuntimeError, OSError):  # no place to write to
        return njit(**unlocked, **options)(function)
    finally:
        config.CACHE_DIR = usual


def kernel(function: Callable | None = None, *, allocates: bool = False, **options: Any) -> Any:
    """Compile as a part of the compiled code that calls it.

    A kernel that makes no array needs no reference counts, which are a third of the code before
    LLVM removes them. `options` are further ones of `numba.njit`.
    """
    if function is None:
        return partial(kernel, allocates=allocates, **options)
    bare = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return njit(_nrt=allocates, **bare, **options)(function)


def part(function: Callable) -> Any:
    """Compile apart from the compiled code that calls it, see `address` and `call`.

    LLVM takes far longer for one large function than for its parts, and a kernel is compiled once
    more in whatever calls it. A part allocates nothing and gives a float64.
    """
    return entry(function, _nrt=False, no_cpython_wrapper=True)


def address(dispatcher: Any, *arguments: Any) -> int:
    """Address of a part for arguments of these types, compiled or loaded on first use."""
    kinds = tuple(numba.typeof(argument) for argument in arguments)
    dispatcher.compile(types.float64(*kinds))
    code = dispatcher.overloads[kinds]
    return code.library.get_pointer_to_function(code.fndesc.llvm_func_name)


def layout(value: Any) -> Any:
    """What numba's type of an array, a number or a nested tuple depends on, to look it up by.

    `numba.typeof` takes forty times as long.
    """
    if isinstance(value, tuple):
        return type(value), *map(layout, value)
    if isinstance(value, np.ndarray):
        return value.dtype.char, value.ndim, value.flags.num
    return type(value)


@intrinsic
def call(typingctx, address, arguments):
    """Call a part at its address with a tuple of arguments; compiled code only."""

    def codegen(context, builder, signature, args):
        kinds = signature.args[1].types
        values = cgutils.unpack_tuple(builder, args[1])
        convention = context.call_conv
        kind = convention.get_function_type(types.float64, kinds)
        at = builder.inttoptr(args[0], kind.as_pointer())
        status, result = convention.call_function(builder, at, types.float64, kinds, values)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    return types.float64(address, arguments), codegen


def get_ready() -> None:
    """Let numba import what it needs once a process has compiled code, which takes .3 s."""
    njit(lambda: None)()


def _save(save: Callable[..., None], *arguments: Any) -> None:
    """Keep compiled code on disk; on a full one the next process compiles it again."""
    with suppress(OSError):
        save(*arguments)


def announce(dispatcher: Any) -> bool:
    """Announce in one line that the next call of an entry compiles it, for this machine.

    Goes to the logger `hmm_exp.hmm` at level INFO, and of processes that begin together one says
    it. Folders of old versions are removed then. Gives whether this process said it, and others can
    use what it compiles.
    """
    if dispatcher.signatures or _is_cached(dispatcher):
        return False
    try:
        if _is_said():
            return False
    except OSError:
        _say_that_nothing_is_kept(cache_folder())
        return False
    _log.info("compiling the fitting engine, once on this machine (10 to 30 s) ...")
    prune(cache_folder().parent)
    return True


class _CompileListener(event.Listener):
    """Numba listener that reports when the outermost of nested compilations starts and ends."""

    def __init__(self, notify: Callable[[bool], None]) -> None:
        self._notify, self._depth = notify, 0

    def on_start(self, event: Any) -> None:
        self._depth += 1
        if self._depth == 1:
            self._notify(True)

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._notify(False)


def when_compiling(notify: Callable[[bool], None]) -> None:
    """Call `notify(True)` when this process starts to compile and `notify(False)` when it ends."""
    event.register("numba:compile", _CompileListener(notify))


def prune(base: Path) -> None:
    """Remove all but the newest folders of compiled code in `base`."""
    with suppress(OSError):
        folders = [path for path in base.iterdir() if re.fullmatch("[0-9a-f]{16}", path.name)]
        for old in sorted(folders, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)


@cache
def cache_folder() -> Path:
    """Where the compiled code of exactly these sources is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = Path(config.CACHE_DIR or home) / "hmm_exp"
    return base / digest_of(Path(__file__).parent)


def digest_of(package: Path) -> str:
    """Digest of the files of a package that declare compiled functions, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        text = source.read_bytes()
        if source.name == Path(__file__).name or b"hmm_exp.compiling import" in text:
            digest.update(text)
    return digest.hexdigest()[:16]


def _is_cached(dispatcher: Any) -> bool:
    """Whether an earlier process of this Python left compiled code of the entry."""
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    name = f"*.{dispatcher.py_func.__name__}-*.{version}*.nbi"
    return any(cache_folder().rglob(name))


@cache
def _say_that_nothing_is_kept(folder: Path) -> None:
    """Announce a compilation, once, where each process has to compile."""
    why = f"each time anew, as {folder} cannot be written"
    _log.info("compiling the fitting engine (10 to 30 s), %s ...", why)


def _is_said() -> bool:
    """Whether a living process has just announced a compilation; if not, this one does.

    Raises OSError if compiled code cannot be kept.
    """
    mark = cache_folder() / "compiling"
    mark.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):  # there is none, or another was quicker with the old mark
        since = abs(time.time() - mark.stat().st_mtime)
        if since > _TOGETHER or is_dead(mark.read_text() or this_process()):
            mark.unlink()
    try:
        with mark.open("x") as file:
            file.write(this_process())
    except FileExistsError:
        return True
    return False
