"""Hard faults of a fitted model, each described in one line.

>>> hard_faults(params, occupancy, n_rows=8000, status="tolerance")
['state 2 holds 0.40% of the rows (least 1.00%)']

A high likelihood can have a bad reason: a state that explains a handful of rows, a covariance
collapsed onto a line, two equal states. A model with a hard fault is never chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hmm_exp.errors import FitError, counted
from hmm_exp.hmm.params import GaussianParams, n_covariance_parameters

_AT_FLOOR = 1e-4  # relative; a Cholesky pivot at a floor of 1e-8 is no more accurate


@dataclass(frozen=True)
class HealthLimits:
    """Limits beyond which a number is a fault."""

    min_occupancy: float = 0.01  # least share of the rows in a state
    # Least expected dwell time of a state, in rows. Rows drawn independently from K states with
    # weights w have expected dwell times 1 / (1 - w), and at least one of them is at most 2.
    min_dwell: float = 2.5
    # Least rows of a state per parameter of its own (mean, covariance, transition row).
    rows_per_parameter: float = 10.0
    max_condition_number: float = 1e6  # largest ratio of a covariance's extreme eigenvalues
    # Least variance of a feature in a state, in squared units of the scaled observations. A smaller
    # one describes a few nearly equal rows.
    min_covar: float = 1e-3
    min_distance: float = 0.02  # least Bhattacharyya distance between two states, in nats


def hard_faults(
    params: GaussianParams,
    occupancy: np.ndarray,
    n_rows: int,
    status: str,
    limits: HealthLimits | None = None,
    covar_floor: np.ndarray | None = None,
    features: Sequence[str] | None = None,
) -> list[str]:
    """Describe every fault; empty for a healthy model.

    Parameters
    ----------
    params
        States in the order of their names.
    occupancy
        Mean posterior probability of every state over the observed train rows, shape (K,).
    n_rows
        Observed train rows.
    status
        End of EM: "tolerance", "cap" or "fall".
    covar_floor
        `Fit.covar_floor`, shape (D,), to report features held up by it.
    features
        Names of the D features; None numbers them.
    """
    limits = limits or HealthLimits()
    names = features or [f"feature {d}" for d in range(params.n_features)]
    return [
        *_convergence_faults(status),
        *_occupancy_faults(params, np.asarray(occupancy), n_rows, limits),
        *_chain_faults(params, limits),
        *_covariance_faults(params, limits, names),
        *([] if covar_floor is None else _floor_faults(params, covar_floor, names)),
        *_distance_faults(params, limits),
    ]


def expected_dwell(transmat: np.ndarray) -> np.ndarray:
    """Expected length of a visit in rows, 1 / (1 - a_kk), shape (K,); inf if absorbing."""
    with np.errstate(divide="ignore"):
        return 1.0 / np.maximum(1.0 - np.diagonal(transmat), 0.0)


def condition_numbers(params: GaussianParams) -> np.ndarray:
    """Ratio of the extreme eigenvalues of every covariance, shape (K,); inf if singular."""
    eigenvalues = np.linalg.eigvalsh(params.full_covars())
    least = np.maximum(eigenvalues[:, 0], 0.0)
    with np.errstate(divide="ignore"):
        return eigenvalues[:, -1] / least


def floor_hits(params: GaussianParams, covar_floor: np.ndarray) -> np.ndarray:
    """Whether a feature's variance given the features before it is at the floor, shape (K, D)."""
    factor = np.linalg.cholesky(params.full_covars())
    given_before = np.diagonal(factor, axis1=1, axis2=2) ** 2
    return given_before <= covar_floor * (1 + _AT_FLOOR)


def bhattacharyya(params: GaussianParams) -> np.ndarray:
    """Bhattacharyya distance between the densities of all pairs of states, in nats, (K, K).

    Of Student-t states that of Gaussians with their scale matrices, whatever their df:
    d'S^-1 d / 8 + ln(det S / sqrt(det S_i det S_j)) / 2, with S the mean of the two covariances
    and d the difference of the means (Bhattacharyya 1943; Kailath 1967).
    """
    means, covars = params.means, params.full_covars()
    difference = means[:, None] - means[None]  # (K, K, D)
    middle = (covars[:, None] + covars[None]) / 2  # (K, K, D, D)
    solved = np.linalg.solve(middle, difference[..., None])[..., 0]
    log_det = np.linalg.slogdet(covars)[1]
    apart = np.linalg.slogdet(middle)[1] - (log_det[:, None] + log_det[None]) / 2
    return (difference * solved).sum(axis=-1) / 8 + apart / 2


def _convergence_faults(status: str) -> list[str]:
    reasons = {
        "cap": "the cap on iterations was reached",
        "fall": "the objective fell",
        "failed": "EM broke down",
    }
    return [] if status == "tolerance" else [f"not converged: {reasons.get(status, status)}"]


def _occupancy_faults(
    params: GaussianParams, occupancy: np.ndarray, n_rows: int, limits: HealthLimits
) -> list[str]:
    own = _own_parameters(params)
    needed = limits.rows_per_parameter * own
    faults = []
    for k, share in enumerate(occupancy):
        if share < limits.min_occupancy:
            faults.append(
                f"state {k} holds {share:.2%} of the rows (least {limits.min_occupancy:.2%})"
            )
        if share * n_rows < needed:
            faults.append(
                f"state {k} rests on {counted(round(share * n_rows), 'row')} "
                f"for its {own} parameters (least {needed:.0f})"
            )
    return faults


def _own_parameters(params: GaussianParams) -> int:
    """Parameters estimated from the rows of one state: mean, own covariance, df, transitions."""
    K, D = params.means.shape
    kind = params.covariance_type
    covariance = 0 if kind == "tied" else n_covariance_parameters(kind, 1, D)
    return D + covariance + (params.df is not None) + K - 1


def _chain_faults(params: GaussianParams, limits: HealthLimits) -> list[str]:
    faults = [
        f"state {k} is expected to last {dwell:.2f} rows (least {limits.min_dwell:g})"
        for k, dwell in enumerate(expected_dwell(params.transmat))
        if dwell < limits.min_dwell
    ]
    try:
        params.stationary()
    except FitError as error:
        faults.append(str(error))
    return faults


def _covariance_faults(
    params: GaussianParams, limits: HealthLimits, names: Sequence[str]
) -> list[str]:
    variances = np.diagonal(params.full_covars(), axis1=1, axis2=2)
    faults = []
    for k, condition in enumerate(condition_numbers(params)):
        if condition > limits.max_condition_number:
            faults.append(
                f"the covariance of state {k} has condition number {condition:.2g} "
                f"(most {limits.max_condition_number:.2g})"
            )
        if variances[k].min() < limits.min_covar:
            faults.append(
                f"{names[variances[k].argmin()]} of state {k} has variance "
                f"{variances[k].min():.2g} (least {limits.min_covar:g})"
            )
    return faults


def _floor_faults(
    params: GaussianParams, covar_floor: np.ndarray, names: Sequence[str]
) -> list[str]:
    return [
        f"{names[d]} of state {k} is held up by the covariance floor, {covar_floor[d]:.2g}: it is "
        "constant there, or follows from the features before it"
        for k, d in np.argwhere(floor_hits(params, covar_floor))
    ]


def _distance_faults(params: GaussianParams, limits: HealthLimits) -> list[str]:
    try:
        distance = bhattacharyya(params)
    except np.linalg.LinAlgError:
        return ["two states have no distance: their covariances are singular"]
    pairs = zip(*np.triu_indices(params.n_states, 1), strict=True)
    return [
        f"states {i} and {j} are nearly the same: Bhattacharyya distance {distance[i, j]:.3g} "
        f"(least {limits.min_distance:g})"
        for i, j in pairs
        if not distance[i, j] >= limits.min_distance
    ]
