"""EM runs of this process that are under way, for progress displays.

>>> under_way()             # from another thread, at any time
[EMRunProgress(place=3, of=10, n_iter=57, log_lik=-41234.5)]

The compiled loop keeps its iteration count and likelihoods in arrays. A display reads these arrays
while the loop runs, which neither slows the fit nor changes its bits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np  # a display is imported on the way to `--help`


@dataclass(frozen=True)
class EMRunProgress:
    """Progress of one EM run.

    Attributes
    ----------
    place, of
        Index of the start, from 0, and number of starts.
    n_iter
        Iterations so far; None if the engine does not report them.
    log_lik
        Log-likelihood in nats after the last but one iteration; None before that.
    """

    place: int
    of: int
    n_iter: int | None = None
    log_lik: float | None = None

    def __str__(self) -> str:
        words = [f"start {self.place + 1} of {self.of}"]
        words += [] if self.n_iter is None else [f"iteration {self.n_iter}"]
        words += [] if self.log_lik is None else [f"log-likelihood {self.log_lik:.1f}"]
        return ", ".join(words)


@dataclass(eq=False)
class _RunState:
    place: int
    of: int
    counts: "np.ndarray | tuple[float, ...]" = ()
    history: "np.ndarray | tuple[float, ...]" = ()


_under_way: list[_RunState] = []  # append and remove are each one step of the interpreter
_mine: ContextVar[_RunState | None] = ContextVar("em_run", default=None)


@contextmanager
def visible_run(place: int, of: int) -> Iterator[None]:
    """Make the EM run of this thread visible in `under_way` until it ends."""
    run = _RunState(place, of)
    token = _mine.set(run)
    _under_way.append(run)
    try:
        yield
    finally:
        _under_way.remove(run)
        _mine.reset(token)


def follow(counts: "np.ndarray", history: "np.ndarray") -> None:
    """Register the arrays of this thread's run: its count (first element) and its likelihoods."""
    if run := _mine.get():
        # In this order: a reader of the counts finds the history.
        run.history, run.counts = history, counts


def under_way() -> list[EMRunProgress]:
    """EM runs of this process that are under way, the oldest first."""
    return [_seen(run) for run in list(_under_way)]


def _seen(run: _RunState) -> EMRunProgress:
    if not len(run.counts):
        return EMRunProgress(run.place, run.of)
    n_iter = int(run.counts[0])
    log_lik = float(run.history[n_iter - 1]) if n_iter else None
    return EMRunProgress(run.place, run.of, n_iter, log_lik)
