"""Log densities of the states at every row, by a row-wise compiled kernel.

>>> log_density(params, X)          # (T, K), nats

ln N(x; m, S) = -(D ln 2 pi + ln det S + z'z) / 2 with L z = x - m and S = L L' (Cholesky), solved
forward in a fixed order. For Student-t states (Kotz & Nadarajah 2004, equation 1.1)

    ln t(x; m, S, df) = ln G((df + D)/2) - ln G(df/2) - (D ln(pi df) + ln det S) / 2
                        - (df + D)/2 ln(1 + z'z / df),       G the gamma function.

A row's bits depend on that row alone, not on the number of rows.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.errors import FitError
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.parallel import run_ahead, run_all

LONG = 1 << 17  # a series of more rows is shared among cores, this many rows at a time
_IN_CACHE = 1 << 14  # rows whose densities stay in a core's cache until they are used


class Density(NamedTuple):
    """K Gaussian or Student-t densities in the form of the kernel, computed once per model.

    Attributes
    ----------
    means
        Shape (K, D).
    factor
        Lower Cholesky factor of every covariance, its diagonal inverted, shape (K, D, D).
    log_norm
        Log density at the mean, shape (K,).
    df
        Degrees of freedom, shape (K,); empty for Gaussian states.
    diagonal
        Whether the factors are diagonal.
    """

    means: np.ndarray
    factor: np.ndarray
    log_norm: np.ndarray
    df: np.ndarray
    diagonal: bool


def density_of(params: GaussianParams) -> Density:
    """Prepare the state densities of a model. Raises FitError for a singular covariance."""
    try:
        factor = np.linalg.cholesky(params.full_covars())
    except np.linalg.LinAlgError:
        raise FitError("a state's covariance matrix is not positive definite") from None
    D = params.n_features
    diagonal = np.arange(D)
    spread = factor[:, diagonal, diagonal]  # (K, D)
    log_norm = -0.5 * D * np.log(2 * np.pi) - np.log(spread).sum(axis=1)
    factor[:, diagonal, diagonal] = 1.0 / spread
    df = np.zeros(0)
    if params.df is not None:
        from scipy.special import gammaln  # normal states can do without

        df = params.df
        log_norm += gammaln(0.5 * (df + D)) - gammaln(0.5 * df) - 0.5 * D * np.log(0.5 * df)
    is_diagonal = params.covariance_type in ("diag", "spherical")
    return Density(params.means, factor, log_norm, df, is_diagonal)


def log_density(params: GaussianParams, X: np.ndarray) -> np.ndarray:
    """ln p(x_t | z_t = k) in nats, shape (T, K); a row with any NaN is missing and gets zeros."""
    X = np.ascontiguousarray(X, dtype=np.float64)
    out = np.empty((len(X), params.n_states))
    density = density_of(params)
    write = log_density_kernel(density)
    run_all(lambda rows: write(X[rows], density, out[rows]), _pieces(len(X), LONG))
    return out


def log_density_pieces(params: GaussianParams, X: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield slices of rows with their log densities; for a long X other threads work ahead.

    The same bits as `log_density`, without its (T, K) array.
    """
    density = density_of(params)
    write = log_density_kernel(density)

    def piece(rows: slice) -> tuple[slice, np.ndarray]:
        own = np.ascontiguousarray(X[rows], dtype=np.float64)
        out = np.empty((len(own), params.n_states))
        write(own, density, out)
        return rows, out

    yield from run_ahead(piece, _pieces(len(X), _IN_CACHE), None if len(X) > LONG else 1)


def log_density_kernel(density: Density) -> Callable:
    """Compiled loop over the rows; two of them, as a branch slows a Gaussian one by a twentieth."""
    return _student_t_rows if density.df.size else _gaussian_rows


def _pieces(n_rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


@entry(inline="always")
def log_density_row(X, t, density, out, z):
    """Write ln p(X[t] | k) into out[t, k] for every k; z (D,) is scratch."""
    if density.df.size == 0:
        _gaussian_row(X, t, density, out, z)
    else:
        _student_t_row(X, t, density, out, z)


@entry(inline="always")
def _gaussian_row(X, t, density, out, z):
    K, D = density.means.shape
    missing = False
    for i in range(D):
        missing |= np.isnan(X[t, i])
    for k in range(K):
        if density.diagonal:
            distance = _scaled_distance(X, t, density, k)
        else:
            distance = _whitened_distance(X, t, density, k, z)
        out[t, k] = 0.0 if missing else density.log_norm[k] - 0.5 * distance


@entry(inline="always")
def _student_t_row(X, t, density, out, z):
    K, D = density.means.shape
    missing = False
    for i in range(D):
        missing |= np.isnan(X[t, i])
    for k in range(K):
        if density.diagonal:
            distance = _scaled_distance(X, t, density, k)
        else:
            distance = _whitened_distance(X, t, density, k, z)
        fall = 0.5 * (density.df[k] + D) * math.log1p(distance / density.df[k])
        out[t, k] = 0.0 if missing else density.log_norm[k] - fall


@entry(inline="always")
def _scaled_distance(X, t, density, k):
    """Squared Mahalanobis distance of row t from state k for independent features."""
    distance = 0.0
    for i in range(density.means.shape[1]):
        z = (X[t, i] - density.means[k, i]) * density.factor[k, i, i]
        distance += z * z
    return distance


@entry(inline="always")
def _whitened_distance(X, t, density, k, z):
    """The same for any covariance: solve L z = x - m forward."""
    distance = 0.0
    for i in range(density.means.shape[1]):
        rest = X[t, i] - density.means[k, i]
        for j in range(i):
            rest -= density.factor[k, i, j] * z[j]
        z[i] = rest * density.factor[k, i, i]
        distance += z[i] * z[i]
    return distance


@entry
def _gaussian_rows(X, density, out):
    z = np.empty(X.shape[1])
    for t in range(X.shape[0]):
        _gaussian_row(X, t, density, out, z)


@entry
def _student_t_rows(X, density, out):
    z = np.empty(X.shape[1])
    for t in range(X.shape[0]):
        _student_t_row(X, t, density, out, z)
