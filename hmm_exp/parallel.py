"""Run independent pieces of compiled work in threads, with the same bits at any number of them.

What runs here releases the GIL. Each piece is one thread's work from beginning to end, so how many
run at a time changes nothing in any of them. The native engine and its starts call no BLAS, whose
sums would depend on its own threads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    for i, result in _finished(function, items, threads):
        results[i] = result
        if done is not None:
            done(i, result)
    return results


def run_ahead(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int | None = None
) -> Iterator[Result]:
    """Results in the order of `items`: while one is used here, other threads work on the next.

    No more than `threads` results are under way or waiting; with one, everything stays in this
    thread.
    """
    threads = min(threads or cores(), len(items))
    if threads <= 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="hmm_exp")
    try:
        under_way: deque = deque()
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) == threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


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
