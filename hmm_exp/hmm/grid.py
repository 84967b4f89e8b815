"""Fits with rising numbers of states, each begun also from the one before.

>>> grid = fit_grid(X, steps, [2, 3, 4], covariance_type="full")
>>> grid.fits[3].log_lik, grid.notes
(-41234.5, {})

At its optimum a model with more states is never less likely than one with fewer. Where it is, EM
has missed the optimum: more starts are made, and what is left of the shortfall is reported.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm.fit import AGREEMENT, Fit, Search, combined, fit, fit_from
from hmm_exp.hmm.split_merge import starts_from

_BARELY = 0.02  # splits so narrow start at the likelihood of the smaller model
_OTHER_SEED = 1_000_003


@dataclass(frozen=True, eq=False)
class Grid:
    """Fits by their number of states, ascending.

    Attributes
    ----------
    fits
        Those that could be made.
    failures
        Why the others could not.
    notes
        What is odd about a fit: it stays less likely than one with fewer states.
    """

    fits: dict[int, Fit] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


def fit_grid(X: np.ndarray, steps: np.ndarray, state_grid: Iterable[int], **options: Any) -> Grid:
    """Fit every number of states; `options` are those of `fit.fit`.

    Raises
    ------
    FitError
        When not one number of states can be fitted.
    """
    grid = Grid()
    smaller: Fit | None = None
    for n_states in sorted(set(state_grid)):
        try:
            fitted, note = fit_larger(X, steps, smaller, n_states=n_states, **options)
        except FitError as error:
            grid.failures[n_states] = str(error)
            continue
        grid.fits[n_states] = smaller = fitted
        if note:
            grid.notes[n_states] = note
    if not grid.fits:
        raise FitError("; ".join(f"{K} states: {why}" for K, why in grid.failures.items()))
    return grid


def fit_larger(
    X: np.ndarray,
    steps: np.ndarray,
    smaller: Fit | None,
    *,
    n_states: int,
    n_init: int = 10,
    seed: int = 0,
    **options: Any,
) -> tuple[Fit, str | None]:
    """Fit `n_states`, begun also from a fit of the same data with fewer states.

    Gives the fit, and a note when it is less likely than the smaller one even after more starts.
    Options and errors are those of `fit.fit`.
    """
    before = None if smaller is None else smaller.params
    given = {"n_states": n_states, "n_init": n_init, **options}
    fitted = fit(X, steps, seed=seed, initial=before, **given)
    if smaller is None or not _falls_short(fitted, smaller):
        return fitted, None
    more = fit(X, steps, seed=seed + _OTHER_SEED, **given)
    fitted = combined(fitted, more)
    if _falls_short(fitted, smaller):
        limits = {name: options[name] for name in _SEARCHED if name in options}
        splits = starts_from(smaller.params, n_states, apart=_BARELY)
        fitted = combined(fitted, fit_from(splits, X, steps, Search(**limits)))
    return fitted, _note(fitted, smaller) if _falls_short(fitted, smaller) else None


_SEARCHED = ("n_iter", "tol", "engine", "threads")


def _falls_short(larger: Fit, smaller: Fit) -> bool:
    return larger.log_lik < smaller.log_lik - AGREEMENT


def _note(larger: Fit, smaller: Fit) -> str:
    return (
        f"{larger.params.n_states} states are {smaller.log_lik - larger.log_lik:.1f} nats less "
        f"likely than {smaller.params.n_states} after {len(larger.starts)} starts: their optimum "
        "was not found"
    )
