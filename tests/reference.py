"""Slow, readable twins of the compiled kernels: every path through the chain, one by one."""

from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.linalg import expm
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal, multivariate_t

from hmm_exp.hmm.params import GaussianParams


class Enumeration(NamedTuple):
    """All state paths (N, T) and ln p(path, x) of each (N,)."""

    paths: np.ndarray
    log_joint: np.ndarray


def enumerate_paths(startprob, transmat, log_lik, steps) -> Enumeration:
    """Every state path through the rows; m missing bars are summed out by A^(m+1)."""
    T, K = log_lik.shape
    paths = np.array(list(product(range(K), repeat=T)))
    log_joint = np.zeros(len(paths))
    with np.errstate(divide="ignore"):
        for t in range(T):
            if t == 0 or steps[t] == 0:
                log_joint += np.log(startprob)[paths[:, t]]
            else:
                power = np.linalg.matrix_power(transmat, steps[t])
                log_joint += np.log(power)[paths[:, t - 1], paths[:, t]]
            log_joint += log_lik[t, paths[:, t]]
    return Enumeration(paths, log_joint)


def marginal(paths: Enumeration, t: int, n_states: int) -> np.ndarray:
    """p(z_t | all rows), shape (K,)."""
    weight = np.exp(paths.log_joint - logsumexp(paths.log_joint))
    return np.bincount(paths.paths[:, t], weight, n_states)


def filtered_probs(startprob, transmat, log_lik, steps) -> np.ndarray:
    """p(z_t | x_1..t), shape (T, K): the last marginal of every beginning."""
    T, K = log_lik.shape
    rows = [
        marginal(enumerate_paths(startprob, transmat, log_lik[: t + 1], steps[: t + 1]), t, K)
        for t in range(T)
    ]
    return np.stack(rows)


def smoothed_probs(startprob, transmat, log_lik, steps) -> np.ndarray:
    """p(z_t | x_1..T), shape (T, K)."""
    T, K = log_lik.shape
    paths = enumerate_paths(startprob, transmat, log_lik, steps)
    return np.stack([marginal(paths, t, K) for t in range(T)])


def expected_pairs(startprob, transmat, log_lik, steps) -> np.ndarray:
    """Expected one-step transitions, shape (K, K), where every step is 0 or 1."""
    paths = enumerate_paths(startprob, transmat, log_lik, steps)
    weight = np.exp(paths.log_joint - logsumexp(paths.log_joint))
    pairs = np.zeros_like(transmat)
    for t in range(1, len(log_lik)):
        if steps[t] == 1:
            np.add.at(pairs, (paths.paths[:, t - 1], paths.paths[:, t]), weight)
    return pairs


def path_entropy(startprob, transmat, log_lik, steps) -> float:
    """- sum p ln p over all paths given the rows, in nats."""
    paths = enumerate_paths(startprob, transmat, log_lik, steps)
    log_weight = paths.log_joint - logsumexp(paths.log_joint)
    possible = np.isfinite(log_weight)
    return float(-np.sum(np.exp(log_weight[possible]) * log_weight[possible]))


def fill_gaps(log_lik, steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write every missing bar out as a row of zeros: log_lik, steps, place of the old rows."""
    rows, filled, place = [], [], []
    for t, step in enumerate(steps):
        for _ in range(step - 1):
            rows.append(np.zeros(log_lik.shape[1]))
            filled.append(1)
        place.append(len(rows))
        rows.append(log_lik[t])
        filled.append(min(step, 1))
    return np.array(rows), np.array(filled), np.array(place)


def decided(decision, probs: np.ndarray, burn_in: int = 1) -> list[int]:
    """Regime of every row: every past that is possible, one by one; -1 while they disagree."""
    states, most = range(probs.shape[1]), decision.min_bars
    pasts = {(now, last, n) for now in states for last in states for n in range(1, most + 1)}
    regimes = []
    for t, p in enumerate(probs):
        if decision.rule == "argmax":
            pasts = {(int(np.argmax(p)), 0, 0)}
        elif t + 1 >= burn_in:
            pasts = {_after(decision, past, p) for past in pasts}
        now = {regime for regime, _, _ in pasts}
        regimes.append(now.pop() if len(now) == 1 else -1)
    return regimes


def _after(decision, past: tuple[int, int, int], p: np.ndarray) -> tuple[int, int, int]:
    """Regime, most probable state and its rows in a row, after one more row."""
    regime, last, n = past
    top = int(np.argmax(p))
    n = min(n + 1, decision.min_bars) if top == last else 1
    if decision.rule == "min_bars":
        return (top if n == decision.min_bars else regime), top, n
    moves = p[regime] < decision.leave and p[top] > decision.enter
    return (top if moves else regime), top, n


def log_density(params: GaussianParams, X: np.ndarray) -> np.ndarray:
    """ln p(x | k) by scipy, zeros for a row with NaN, shape (T, K)."""
    out = np.zeros((len(X), params.n_states))
    seen = ~np.isnan(X).any(axis=1)
    for k, scale in enumerate(params.full_covars()):
        if params.df is None:
            density = multivariate_normal(params.means[k], scale)
        else:
            density = multivariate_t(params.means[k], scale, df=params.df[k])
        out[seen, k] = density.logpdf(X[seen])
    return out


def bars_to_agreement(params: GaussianParams, log_lik, steps, tolerance) -> int | None:
    """Largest number of bars, over all starting rows, that K certain starts need to agree.

    None when those started at the first row do not agree by the last.
    """
    T, K = log_lik.shape
    worst = 1
    for first in range(T):
        probs = np.eye(K)
        last_apart = first
        for t in range(first + 1, T):
            if steps[t] == 0:
                break
            probs = probs @ np.linalg.matrix_power(params.transmat, steps[t])
            probs = probs * np.exp(log_lik[t] - log_lik[t].max())
            probs /= probs.sum(axis=1, keepdims=True)
            if np.ptp(probs, axis=0).max() > tolerance:
                last_apart = t
        if last_apart == T - 1 and first == 0:
            return None
        worst = max(worst, last_apart - first + 2)
    return worst


def log_likelihood(params: GaussianParams, X, steps) -> float:
    """ln p(x_1..T) in nats by the forward recursion in logs."""
    log_lik = log_density(params, X)
    total, forward = 0.0, np.zeros(params.n_states)
    with np.errstate(divide="ignore"):
        for t in range(len(X)):
            if t == 0 or steps[t] == 0:
                total += logsumexp(forward) if t else 0.0
                forward = np.log(params.startprob) + log_lik[t]
            else:
                power = np.linalg.matrix_power(params.transmat, steps[t])
                forward = logsumexp(forward[:, None] + np.log(power), axis=0) + log_lik[t]
    return float(total + logsumexp(forward))


def moved(params: GaussianParams, logits, shifts, logs, log_df=0.0) -> GaussianParams:
    """A model moved on unconstrained scales.

    Logits (K, K) are added to the logarithms of the transition rows; with L the Cholesky factor of
    a state's covariance, its mean moves by L times its shift (K, D) and the covariance becomes
    L exp(M) L' with the symmetric M of `logs` (K, D, D). The logarithm of df moves by `log_df`.
    """
    with np.errstate(divide="ignore"):
        transmat = softmax(np.log(params.transmat) + logits, axis=1)
    factors = np.linalg.cholesky(params.full_covars())
    means = params.means + np.einsum("kij,kj->ki", factors, shifts)
    covars = np.stack([L @ expm(M) @ L.T for L, M in zip(factors, logs, strict=True)])
    df = None if params.df is None else params.df * np.exp(log_df)
    return GaussianParams(params.startprob, transmat, means, covars, "full", df)


def gradient(function, n_parameters: int, step: float = 1e-3) -> np.ndarray:
    """First derivatives at zero by differences of fourth order, shape of the values + (P,)."""
    unit = step * np.eye(n_parameters)
    columns = [
        8 * (function(e) - function(-e)) - (function(2 * e) - function(-2 * e)) for e in unit
    ]
    return np.stack(columns, axis=-1) / (12 * step)


def hessian(function, n_parameters: int, step: float = 1e-3) -> np.ndarray:
    """Second derivatives at zero by differences of second order, shape (P, P)."""
    unit = step * np.eye(n_parameters)
    result = np.empty((n_parameters, n_parameters))
    for i in range(n_parameters):
        for j in range(i + 1):
            along, across = unit[i] + unit[j], unit[i] - unit[j]
            same = function(along) + function(-along)
            result[i, j] = result[j, i] = (same - function(across) - function(-across)) / 4
    return result / step**2


def strategy_measures(close, time, position, delay, first, cost_bp) -> dict[str, float]:
    """Measures of one strategy, bar after bar: `position` (N,) is decided at every close.

    `time` in nanoseconds; the judged bars begin with `first`.
    """
    held_before, wealth, highest, worst = 0.0, 1.0, 1.0, 0.0
    returns, traded, switches = [], 0.0, 0
    for j in range(first, len(close)):
        held = position[j - delay] if j >= delay else 0.0
        trade = abs(held - held_before)
        net = held * (close[j] / close[j - 1] - 1) - cost_bp / 10_000 * trade
        traded += trade
        switches += (held > 0) != (held_before > 0)
        wealth *= 1 + net
        highest = max(highest, wealth)
        worst = min(worst, wealth / highest - 1)
        returns.append(net)
        held_before = held
    years = (time[-1] - time[first - 1]) / (365.25 * 24 * 3600 * 1e9)
    n = len(returns)
    per_year, mean = n / years, sum(returns) / n
    deviation = (sum((r - mean) ** 2 for r in returns) / (n - 1)) ** 0.5
    downside = (sum(min(r, 0.0) ** 2 for r in returns) / n) ** 0.5
    return {
        "return": wealth ** (1 / years) - 1,
        "volatility": per_year**0.5 * deviation,
        "sharpe": per_year**0.5 * mean / deviation if deviation else float("nan"),
        "sortino": per_year**0.5 * mean / downside if downside else float("nan"),
        "max_drawdown": worst,
        "turnover": traded / years,
        "switches": switches / years,
    }
