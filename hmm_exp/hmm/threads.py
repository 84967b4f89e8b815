"""Independent pieces of compiled work side by side, with the same bits at any number of threads.

What runs here releases the GIL. Each piece is one thread's work from beginning to end, so how many
run at a time changes nothing in any of them. Sums made by BLAS do depend on its own threads, which
is why it is held at one meanwhile.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = Lock()
_inside = 0
_limits: Any = None


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    threads: int | None = None,
    done: Callable[[int, Result], None] | None = None,
) -> list[Result]:
    """Results of `function` for all items, in their order.

    Parameters
    ----------
    threads
        Most pieces at a time; None takes all cores. With one, everything stays in this thread.
    done
        Called in this thread with the place of an item and its result whenever one is finished.
    """
    threads = min(threads or cores(), len(items))
    results: list[Any] = [None] * len(items)
    with one_blas_thread():
        for i, result in _finished(function, items, threads):
            results[i] = result
            if done is not None:
                done(i, result)
    return results


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP at one thread; the last to leave restores what was before the first.

    threadpoolctl's limits are the process's own, so that two of them in two threads would restore
    each other's.
    """
    global _inside, _limits
    with _lock:
        if _inside == 0:
            _limits = threadpool_limits(limits=1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limits.restore_original_limits()


def _finished(function: Callable, items: Sequence, threads: int) -> Iterator[tuple[int, Any]]:
    """Place and result of every item, in the order in which they are ready."""
    if threads <= 1:
        for i, item in enumerate(items):
            yield i, function(item)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="hmm_exp")
    try:
        futures = {pool.submit(function, item): i for i, item in enumerate(items)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)
