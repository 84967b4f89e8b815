"""Information criteria (lower is better), and the one-state null model.

>>> criteria(log_lik, params.n_parameters(), n_rows, path_entropy)["bic"]
182301.4

AIC = -2L + 2p (Akaike 1974), BIC = -2L + p ln n (Schwarz 1978), HQC = -2L + 2p ln ln n (Hannan &
Quinn 1979), ICL = BIC + 2H with H the entropy of the posterior over state paths (after Biernacki,
Celeux & Govaert 2000, for mixtures). They rank models of the same observations only.
"""

import math

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.params import COVARS_PRIOR, GaussianParams
from hmm_exp.hmm.starts import shape_covars


def criteria(
    log_lik: float, n_parameters: int, n_rows: int, path_entropy: float
) -> dict[str, float]:
    """The criteria `aic bic hqc icl`.

    Parameters
    ----------
    log_lik
        Log-likelihood L in nats.
    n_rows
        Observed rows n, without missing ones. HQC needs at least three.
    path_entropy
        H in nats.
    """
    deviance, p = -2.0 * log_lik, n_parameters
    bic = deviance + p * math.log(n_rows)
    return {
        "aic": deviance + 2.0 * p,
        "bic": bic,
        "hqc": deviance + 2.0 * p * math.log(math.log(n_rows)),
        "icl": bic + 2.0 * path_entropy,
    }


def bic_next(scores: np.ndarray, n_states: int) -> float | None:
    """BIC of the next return: -2 sum of its log scores + p ln n.

    Neighbouring returns share no window, so n counts independent evidence. p = 2K + 1 + K(K - 1):
    location and scale of every state, the degrees of freedom, and the transitions.

    Parameters
    ----------
    scores
        Log predictive density of the next return on train, nats, NaN where not scored.

    Returns
    -------
    float or None
        None without a scored bar.
    """
    scored = scores[np.isfinite(scores)]
    p = 2 * n_states + 1 + n_states * (n_states - 1)
    return float(-2.0 * scored.sum() + p * math.log(len(scored))) if len(scored) else None


def single_gaussian(
    X: np.ndarray, covariance_type: str = "diag", min_covar: float = 1e-3
) -> tuple[float, int]:
    """Log-likelihood in nats and number of parameters of one state, the null of every cell.

    The optimum of the one-state model under the prior of all fits. `min_covar` is added to the
    variances only if the covariance is singular. Rows with NaN are left out. Raises FitError if no
    row is complete.
    """
    X = np.asarray(X, dtype=np.float64)
    X = X[~np.isnan(X).any(axis=1)]
    params = _one_state(X, covariance_type, min_covar)
    return float(log_density(params, X).sum()), params.n_parameters()


def _one_state(X: np.ndarray, covariance_type: str, min_covar: float) -> GaussianParams:
    n, D = X.shape
    if n == 0:
        raise FitError("no row is complete")
    mean = X.mean(axis=0)
    centred = X - mean
    prior = COVARS_PRIOR * (np.ones((D, D)) if covariance_type in ("full", "tied") else np.eye(D))
    covariance = (np.einsum("ti,tj->ij", centred, centred) + prior) / n
    singular = np.linalg.eigvalsh(covariance)[0] <= 0
    covars = shape_covars(covariance[None], covariance_type, min_covar if singular else 0.0)
    return GaussianParams(np.ones(1), np.ones((1, 1)), mean[None], covars, covariance_type)
