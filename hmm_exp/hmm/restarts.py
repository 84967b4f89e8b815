"""EM runs from many starts, in threads, and which of them run until convergence.

All starts run until convergence ("polished"). On long series every start gets a short run, and the
best few are polished.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm.em.progress import visible_run
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.starts import StartingPoint
from hmm_exp.parallel import run_all

LONG = 200_000  # rows from which on short runs preselect the starts
SHORT_RUN = 30  # iterations; ranks of starts hardly change after 25 to 40
N_POLISHED = 3

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, eq=False)
class Start:
    """Record of the EM run from one start."""

    # Kind of start: see `starts.starting_points`; "given", "split", "merged" or "released" if it
    # comes from another solution.
    kind: str
    log_lik: float  # log-likelihood in nats where EM ended; -inf if it failed
    objective: float  # the same plus the log prior, which EM maximises
    # Objective after 0, 1, 2, ... iterations, shape (n_iter + 1,); empty if it failed.
    history: np.ndarray
    log_lik_history: np.ndarray  # log-likelihood after the same iterations
    # "tolerance", "cap" or "fall" (see `fit.Fit`), "short" after a short run only, or "failed".
    status: str
    reason: str = ""  # why it failed, else empty

    @property
    def converged(self) -> bool:
        """Whether EM stopped because its gains fell below the tolerance."""
        return self.status == "tolerance"

    @property
    def polished(self) -> bool:
        """Whether EM ran to its end."""
        return self.status not in ("failed", "short")

    @property
    def n_iter(self) -> int:
        """Number of iterations."""
        return max(len(self.history) - 1, 0)


@dataclass(frozen=True, eq=False)
class EMRun:
    """Final parameters of an EM run, and its record."""

    params: GaussianParams
    start: Start


RunStart = Callable[[StartingPoint, int], EMRun]


def run_all_starts(
    points: Sequence[StartingPoint],
    run: RunStart,
    *,
    n_iter: int,
    n_rows: int,
    threads: int | None,
    progress: Progress | None,
) -> list[EMRun]:
    """Run EM from all points, at most `n_iter` iterations each; results in their order.

    Whenever the run of a start ends, in a long series the short one, `progress` is called in this
    thread with the index of the start, the number of starts and the log-likelihood reached.
    """
    preselect = n_rows >= LONG and len(points) > N_POLISHED and n_iter > SHORT_RUN
    first = SHORT_RUN if preselect else n_iter

    def report(i: int, ended: EMRun) -> None:
        if progress is not None:
            progress(i, len(points), ended.start.log_lik)

    runs = _run_each(run, points, first, threads, report)
    return _polished(runs, run, n_iter - first, threads) if preselect else runs


def _run_each(
    run: RunStart,
    points: Sequence[StartingPoint],
    n_iter: int,
    threads: int | None,
    report: Callable[[int, EMRun], None] | None = None,
) -> list[EMRun]:
    """Run EM from all points, each visible in `progress` meanwhile; a failed start is kept."""

    def attempt(place: int) -> EMRun:
        point = points[place]
        with visible_run(place, len(points)):
            try:
                return run(point, n_iter)
            except FitError as error:
                none = np.empty(0)
                failed = Start(point.kind, -np.inf, -np.inf, none, none, "failed", str(error))
                return EMRun(point.params, failed)

    return run_all(attempt, range(len(points)), threads, report)


def _polished(runs: list[EMRun], run: RunStart, n_iter: int, threads: int | None) -> list[EMRun]:
    """Continue the best of the short runs."""
    unfinished = [i for i, one in enumerate(runs) if one.start.status == "cap"]
    unfinished.sort(key=lambda i: -runs[i].start.objective)
    best = unfinished[:N_POLISHED]
    points = [StartingPoint(runs[i].start.kind, runs[i].params) for i in best]
    continued = _run_each(run, points, n_iter, threads)
    for i in unfinished:
        runs[i] = replace(runs[i], start=replace(runs[i].start, status="short"))
    for i, more in zip(best, continued, strict=True):
        runs[i] = _joined(runs[i], more)
    return runs


def _joined(short: EMRun, more: EMRun) -> EMRun:
    """A short run and its continuation as one run."""
    if more.start.status == "failed":
        return more
    history = np.r_[short.start.history[:-1], more.start.history]
    log_liks = np.r_[short.start.log_lik_history[:-1], more.start.log_lik_history]
    return replace(more, start=replace(more.start, history=history, log_lik_history=log_liks))
