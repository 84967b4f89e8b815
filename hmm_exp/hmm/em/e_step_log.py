"""The E step in the log domain, row by row: slow, readable and without underflow.

The tests compare the vectorised `e_step` with it. EM falls back to it for a model whose
probabilities leave the range of a float64 (forbidden transitions, observations hundreds of standard
deviations from every reachable state).

Forward, with b_j the log density and logarithms throughout,

    a_t(j) = b_j(x_t) + ln p_t(j) - c_t,    p_t(j) = sum_i exp a_t-1(i) A_ij,

normalised by c_t, so that the log-likelihood is the sum of c_t (Rabiner 1989, equations 19-20 with
the scaling of section V.A). Backward, without densities (Kim 1994):

    r_j = g_t+1(j) / p_t+1(j),   g_t(i) = a_t(i) sum_j A_ij r_j,   pair_t(i, j) = a_t(i) A_ij r_j.

A missing row has b = 0; the first row of a sequence has p = startprob.
"""

import math

import numpy as np

from hmm_exp.compiling import entry, inlined, kernel
from hmm_exp.hmm.em.update import clear
from hmm_exp.hmm.loops import copy
from hmm_exp.hmm.simd import has_bit


@entry
def e_step(rows, model, forward, stats):
    """Log-likelihood in nats; writes expected counts into `stats`.

    `forward` stores the log filtered probabilities, shape (n * K, LANES), laid out as the rows.
    """
    log_transmat = np.log(model.transmat)
    log_lik = _filter(rows, model, log_transmat, forward)
    _smooth(rows, model, log_transmat, forward, stats)
    return log_lik


@inlined
def _filter(rows, model, log_transmat, forward):
    K = model.startprob.size
    D = model.means.shape[1]
    n = rows.missing.shape[0] - 1
    log_startprob = np.log(model.startprob)
    now, ahead, x = np.empty(K), np.empty(K), np.empty(D)
    no_weight = np.zeros(K)
    log_lik = 0.0
    for t in range(rows.n_rows):
        s, lane = t % n, t // n
        is_missing = has_bit(rows.missing[s], lane)
        if has_bit(rows.first[s], lane):
            copy(log_startprob, ahead)
        else:
            _log_ahead(now, log_transmat, ahead)
        for d in range(D):
            x[d] = rows.x[s * D + d, lane]
        for j in range(K):
            now[j] = ahead[j] + (0.0 if is_missing else _log_density(model, x, j))
        total = _log_sum_exp(now, no_weight)
        log_lik += total
        for j in range(K):
            now[j] -= total
            forward[s * K + j, lane] = now[j]
    return log_lik


@inlined
def _smooth(rows, model, log_transmat, forward, stats):
    """Smooth backward and sum the expected counts."""
    K = model.startprob.size
    D = model.means.shape[1]
    n = rows.missing.shape[0] - 1
    clear(stats)
    now, ahead, ratio, smoothed = np.empty(K), np.empty(K), np.empty(K), np.empty(K)
    followed = False  # whether row t + 1 belongs to the same sequence
    for t in range(rows.n_rows - 1, -1, -1):
        s, lane = t % n, t // n
        for i in range(K):
            now[i] = forward[s * K + i, lane]
        if followed:
            _log_ahead(now, log_transmat, ahead)
            for j in range(K):
                ratio[j] = smoothed[j] - ahead[j] if smoothed[j] > -np.inf else -np.inf
            _add_pairs(now, log_transmat, ratio, stats.pairs)
            _log_behind(ratio, log_transmat, smoothed)
            for i in range(K):
                smoothed[i] += now[i]
        else:
            copy(now, smoothed)
        is_first = has_bit(rows.first[s], lane)
        if is_first:
            for k in range(K):
                stats.start[k] += math.exp(smoothed[k])
        if not has_bit(rows.missing[s], lane):
            _add_moments(rows.x[s * D : (s + 1) * D, lane], smoothed, model, stats)
        followed = not is_first


@kernel
def _log_density(model, x, k):
    """ln b_k(x), Gaussian or Student-t: see `densities`."""
    distance = _distance(model, x, k)
    if model.df.size == 0:
        return model.log_norm[k] - 0.5 * distance
    power = 0.5 * (model.df[k] + x.size)
    return model.log_norm[k] + model.log_tail[k] - power * math.log1p(distance / model.df[k])


@kernel
def _distance(model, x, k):
    """Squared Mahalanobis distance of x from state k."""
    distance = 0.0
    for i in range(x.size):
        z = -model.shift[k, i]
        for j in range(i + 1):
            z += model.whiten[k, i, j] * x[j]
        distance += z * z
    return distance


@kernel
def _log_sum_exp(a, b):
    """ln sum_i exp(a_i + b_i)."""
    largest = -np.inf
    for i in range(a.size):
        largest = max(largest, a[i] + b[i])
    if largest == -np.inf:
        return largest
    total = 0.0
    for i in range(a.size):
        total += math.exp(a[i] + b[i] - largest)
    return largest + math.log(total)


@inlined
def _log_ahead(now, log_transmat, ahead):
    """ln of the predicted probabilities: ahead_j = ln sum_i exp(now_i + ln A_ij)."""
    for j in range(now.size):
        ahead[j] = _log_sum_exp(now, log_transmat[:, j])


@inlined
def _log_behind(ratio, log_transmat, behind):
    """behind_i = ln sum_j A_ij exp(ratio_j)."""
    for i in range(ratio.size):
        behind[i] = _log_sum_exp(ratio, log_transmat[i])


@inlined
def _add_pairs(now, log_transmat, ratio, pairs):
    for i in range(now.size):
        for j in range(now.size):
            pairs[i, j] += math.exp(now[i] + log_transmat[i, j] + ratio[j])


@inlined
def _add_moments(x, smoothed, model, stats):
    for k in range(smoothed.size):
        weight = math.exp(smoothed[k])
        stats.mass[k] += weight
        if model.df.size > 0:
            df = model.df[k]
            q = 1.0 + _distance(model, x, k) / df
            stats.log_tail[k] += weight * math.log(q)
            weight *= (df + x.size) / df / q
        stats.weight[k] += weight
        for i in range(x.size):
            stats.first[k, i] += weight * x[i]
            for j in range(i + 1):
                stats.second[k, i, j] += weight * x[i] * x[j]
