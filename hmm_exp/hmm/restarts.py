"""Many climbs, side by side in threads, and which of them are carried to the end.

All starts are polished, that is runs until nothing is left to gain. On long series that would be
wasteful: there every start gets a short run, and the best few are polished.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm.em.progress import visible
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.starts import StartingPoint
from hmm_exp.parallel import run_all

LONG = 200_000  # observed rows from which on starts are sorted out by short runs
SHORT_RUN = 30  # iterations; ranks of starts hardly change after 25 to 40
N_POLISHED = 3

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, eq=False)
class Start:
    """What became of one start.

    Attributes
    ----------
    kind
        How it was found: see `starts.starting_points`; "given", "split" or "merged" when it was
        made from another solution.
    log_lik
        Log-likelihood in nats where EM ended; -inf for a start that failed.
    objective
        The same plus the log prior: what EM climbs.
    history
        Objective after 0, 1, 2, ... iterations, shape (n_iter + 1,); empty for a start that failed.
    log_lik_history
        Log-likelihood at the same places.
    status
        "tolerance", "cap" or "fall" (see `fit.Fit`), "short" when a short run was all it got, or
        "failed".
    reason
        Why it failed, else empty.
    """

    kind: str
    log_lik: float
    objective: float
    history: np.ndarray
    log_lik_history: np.ndarray
    status: str
    reason: str = ""

    @property
    def converged(self) -> bool:
        """Whether the run ended because there was next to nothing left to gain."""
        return self.status == "tolerance"

    @property
    def polished(self) -> bool:
        """Whether EM carried it to an end."""
        return self.status not in ("failed", "short")

    @property
    def n_iter(self) -> int:
        """Iterations made."""
        return max(len(self.history) - 1, 0)


@dataclass(frozen=True, eq=False)
class EMRun:
    """Parameters where a run ended, and its record."""

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
    """RunStart from all points, at most `n_iter` iterations each, in their order.

    `progress` is called in this thread with the place of a start, the number of starts, and the
    log-likelihood reached, whenever one has ended.
    """
    sorted_out = n_rows >= LONG and len(points) > N_POLISHED and n_iter > SHORT_RUN
    first = SHORT_RUN if sorted_out else n_iter

    def report(i: int, runs: EMRun) -> None:
        if progress is not None:
            progress(i, len(points), runs.start.log_lik)

    runs = _attempts(run, points, first, threads, report)
    return _polished(runs, run, n_iter - first, threads) if sorted_out else runs


def _attempts(
    run: RunStart,
    points: Sequence[StartingPoint],
    n_iter: int,
    threads: int | None,
    report: Callable[[int, EMRun], None] | None = None,
) -> list[EMRun]:
    """RunStart from all points; each run can be seen while it is under way."""

    def attempt(place: int) -> EMRun:
        with visible(place, len(points)):
            return _attempt(run, points[place], n_iter)

    return run_all(attempt, range(len(points)), threads, report)


def _attempt(run: RunStart, point: StartingPoint, n_iter: int) -> EMRun:
    """One run; a start that fails is kept with its reason."""
    try:
        return run(point, n_iter)
    except FitError as error:
        nothing = np.empty(0)
        failed = Start(point.kind, -np.inf, -np.inf, nothing, nothing, "failed", str(error))
        return EMRun(point.params, failed)


def _polished(runs: list[EMRun], run: RunStart, n_iter: int, threads: int | None) -> list[EMRun]:
    """Carry on with the best of the short runs."""
    unfinished = [i for i, one in enumerate(runs) if one.start.status == "cap"]
    unfinished.sort(key=lambda i: -runs[i].start.objective)
    best = unfinished[:N_POLISHED]
    points = [StartingPoint(runs[i].start.kind, runs[i].params) for i in best]
    continued = _attempts(run, points, n_iter, threads)
    for i in unfinished:
        runs[i] = replace(runs[i], start=replace(runs[i].start, status="short"))
    for i, more in zip(best, continued, strict=True):
        runs[i] = _joined(runs[i], more)
    return runs


def _joined(short: EMRun, more: EMRun) -> EMRun:
    """A short run and what it went on to, as one run."""
    if more.start.status == "failed":
        return more
    history = np.r_[short.start.history[:-1], more.start.history]
    log_liks = np.r_[short.start.log_lik_history[:-1], more.start.log_lik_history]
    return replace(more, start=replace(more.start, history=history, log_lik_history=log_liks))
