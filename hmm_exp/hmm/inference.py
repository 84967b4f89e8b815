"""Exact inference in a hidden Markov chain: filter, smoother, Viterbi, prediction, path entropy.

>>> log_lik = log_density(params, X)
>>> filtered = filter(params.startprob, params.transmat, log_lik, steps)
>>> filtered.probs[-1]   # p(z_T | x_1..T), known live

The functions are pure and compiled and take log densities (T, K) of any emission. `steps` (T,) is
the number of chain steps from the row before: 0 starts a new sequence from `startprob`, 1 is the
usual neighbour, m + 1 stands for m missing rows between. A row of zero log densities is a missing
observation.

Only `filter` and `predict` may be used live: their row t depends, bit for bit, on rows up to t
alone. `smooth` and `viterbi` use all rows.

Every row is shifted by its largest log density and normalised, so sequences of any length do not
underflow (Rabiner 1989, section V.A; Zucchini, MacDonald & Langrock 2016, section 3.2).
"""

import math
from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import entry, kernel
from hmm_exp.hmm import density
from hmm_exp.hmm.loops import argmax, copy, fill, total
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.simd import LANES, exp, load, store

# A reachable state keeps at least this probability, so that later rows can raise it again.
FLOOR = 1e-300
FAINT = 1e-200


class Filtered(NamedTuple):
    """Filtered probabilities p(z_t | x_1..t), shape (T, K), and ln p(x_t | x_1..t-1), shape (T,).

    `log_lik` is in nats and 0 at a missing row; its sum is the log-likelihood.
    """

    probs: np.ndarray
    log_lik: np.ndarray


class Smoothed(NamedTuple):
    """Smoothed probabilities p(z_t | x_1..T), shape (T, K), with expected counts.

    `pairs[i, j]` is the expected number of single steps from state i to state j, shape (K, K),
    steps through missing rows included. `log_lik` is the log-likelihood in nats.
    """

    probs: np.ndarray
    pairs: np.ndarray
    log_lik: float


class Decoded(NamedTuple):
    """The most probable state path, int64 (T,), and ln p(path, x) in nats."""

    states: np.ndarray
    log_prob: float


def filter(
    startprob: np.ndarray,
    transmat: np.ndarray,
    log_lik: np.ndarray,
    steps: np.ndarray,
    carry: np.ndarray | None = None,
) -> Filtered:
    """Filtered probabilities of the states, given the rows so far.

    p(z_t | x_1..t) is proportional to p(x_t | z_t) sum_i p(z_t-1 = i | x_1..t-1) A[i, z_t]
    (Hamilton 1989). A row that is impossible in every reachable state has log-likelihood -inf and
    leaves the prediction unchanged.

    Parameters
    ----------
    startprob, transmat
        Shapes (K,) and (K, K).
    log_lik
        ln p(x_t | z_t = k) in nats, shape (T, K).
    steps
        Chain steps from the previous row, shape (T,).
    carry
        Filtered probabilities (K,) of the row before the first, to filter in chunks with the same
        bits as at once. Without it the first row starts a sequence, whatever `steps[0]`.
    """
    startprob, transmat, log_lik, steps = _as_arrays(startprob, transmat, log_lik, steps)
    T, K = log_lik.shape
    result = Filtered(np.empty((T, K)), np.empty(T))
    current = np.array(startprob if carry is None else carry, dtype=np.float64)
    advance(startprob, transmat, log_lik, _opened(steps, carry is None), current, *result)
    return result


def filter_rows(
    params: GaussianParams,
    X: np.ndarray,
    steps: np.ndarray,
    startprob: np.ndarray | None = None,
    carry: np.ndarray | None = None,
) -> Filtered:
    """`filter` from the observations X (T, D), NaN where missing: same bits, less memory and time.

    `startprob` is that of the model by default. Log densities exist for some rows at a time. All
    cores take part in a long series, in stretches (see `stretches`).
    """
    startprob = np.ascontiguousarray(params.startprob if startprob is None else startprob)
    current = np.array(startprob if carry is None else carry, dtype=np.float64)
    steps = _opened(np.asarray(steps), carry is None)
    if len(X) > density.LONG:
        from hmm_exp.hmm.stretches import filter_long  # compiled for long series alone

        filtered = filter_long(params, X, steps, startprob, current)
        if filtered is not None:
            return filtered
    transmat = np.ascontiguousarray(params.transmat)
    result = Filtered(np.empty((len(X), params.n_states)), np.empty(len(X)))
    for rows, log_lik in density.log_density_pieces(params, X):
        taken = np.ascontiguousarray(steps[rows], dtype=np.int64)
        advance(startprob, transmat, log_lik, taken, current, *(part[rows] for part in result))
    return result


def predict(transmat: np.ndarray, probs: np.ndarray, steps: int = 1) -> np.ndarray:
    """p(z_t+steps | x_1..t) from filtered p(z_t | x_1..t), shape (T, K)."""
    transmat = np.ascontiguousarray(transmat, dtype=np.float64)
    probs = np.ascontiguousarray(probs, dtype=np.float64)
    out = np.empty_like(probs)
    _predict(probs, transmat, steps, out)
    return out


def smooth(
    startprob: np.ndarray, transmat: np.ndarray, log_lik: np.ndarray, steps: np.ndarray
) -> Smoothed:
    """Smoothed probabilities and expected transition counts.

    p(z_t = i | x_1..T) = sum_j p(z_t = i | z_t+1 = j, x_1..t) p(z_t+1 = j | x_1..T), where the
    first factor is filtered_t[i] A[i, j] / predicted_t+1[j] (Kim 1994). All terms are
    positive, so nothing cancels.
    """
    return smooth_filtered(filter(startprob, transmat, log_lik, steps), transmat, steps)


def smooth_filtered(filtered: Filtered, transmat: np.ndarray, steps: np.ndarray) -> Smoothed:
    """`smooth` from the result of `filter`, which stays as it is."""
    probs, (transmat, steps) = filtered.probs.copy(), _chain(transmat, steps)
    pairs = np.zeros_like(transmat)
    trail = np.empty((steps.max(initial=0) + 1, len(transmat)))
    _smooth(transmat, steps, probs, pairs, trail)
    return Smoothed(probs, pairs, float(filtered.log_lik.sum()))


def viterbi(
    startprob: np.ndarray, transmat: np.ndarray, log_lik: np.ndarray, steps: np.ndarray
) -> Decoded:
    """The most probable state path (Viterbi 1967; Rabiner 1989, eqs. 32-35).

    The path holds the states of the existing rows and bridges m missing rows by the (m+1)-step
    probabilities. Of equally probable paths it is the one with lower states last.
    """
    startprob, transmat, log_lik, steps = _as_arrays(startprob, transmat, log_lik, steps)
    T, K = log_lik.shape
    steps = _opened(steps, True)
    with np.errstate(divide="ignore"):
        log_start = np.log(startprob)
        log_powers = np.log(_powers(transmat, steps))
    states = np.empty(T, dtype=np.int64)
    origin = np.empty((T, K), dtype=np.int16)
    log_prob = _viterbi(log_start, log_powers, log_lik, steps, origin, states)
    return Decoded(states, log_prob)


def path_entropy(
    startprob: np.ndarray, transmat: np.ndarray, log_lik: np.ndarray, steps: np.ndarray
) -> float:
    """Entropy in nats of the posterior over state paths, p(z_1..T | x_1..T).

    Equal to L - sum gamma_1 ln pi - sum xi ln A - sum gamma ln b, but summed as
    H(z_T) + sum_t H(z_t | z_t+1), which does not cancel (Hernando, Crespi & Cybenko 2005).
    The path holds the states of the rows that exist, as in `viterbi`.
    """
    return entropy_filtered(filter(startprob, transmat, log_lik, steps), transmat, steps)


def entropy_filtered(filtered: Filtered, transmat: np.ndarray, steps: np.ndarray) -> float:
    """`path_entropy` from the result of `filter`."""
    transmat, steps = _chain(transmat, steps)
    return _path_entropy(filtered.probs, _powers(transmat, steps), steps)


@entry
def advance(startprob, transmat, log_lik, steps, current, probs, log_prob):
    """Filter rows (T, K): the common kernel of batch (T rows) and stream (one row).

    Reads `log_lik` and `steps` (T,), writes `probs` (T, K) and `log_prob` (T,). `current` (K,)
    holds the filtered probabilities of the row before, and of the last row afterwards.
    """
    K = transmat.shape[0]
    predicted = np.empty(K)
    _shifted_densities(log_lik, probs, log_prob)
    for t in range(log_lik.shape[0]):
        if steps[t] == 0:
            for k in range(K):
                predicted[k] = startprob[k]
        for step in range(steps[t]):
            if step > 0:
                for k in range(K):
                    current[k] = predicted[k]
            for j in range(K):
                total = 0.0
                for i in range(K):
                    total += current[i] * transmat[i, j]
                predicted[j] = total
        shift = log_prob[t]
        total = 0.0
        for k in range(K):
            current[k] = predicted[k] * probs[t, k]
            total += current[k]
        if not total > FAINT:
            total, shift = _update_faint(predicted, log_lik, t, current)
        scale = 1.0 / total
        for k in range(K):
            current[k] *= scale
            if current[k] < FLOOR and predicted[k] > 0.0:
                current[k] = FLOOR
            probs[t, k] = current[k]
        log_prob[t] = math.log(total) + shift
        if shift == 0.0 and _is_missing(log_lik, t):
            log_prob[t] = 0.0


@kernel(allocates=True)
def _shifted_densities(log_lik, out, shift):
    """exp(log_lik - the row's maximum), and that maximum; two passes are faster than one."""
    T, K = log_lik.shape
    for t in range(T):
        shift[t] = log_lik[t, 0]
        for k in range(1, K):
            shift[t] = max(shift[t], log_lik[t, k])
        for k in range(K):
            out[t, k] = log_lik[t, k] - shift[t]
    _exp_all(out.reshape(T * K))


@kernel(allocates=True)
def _exp_all(numbers):
    """Replace every x by e**x, eight at a time; the bits do not depend on the position."""
    n_vectors = len(numbers) // LANES
    whole = numbers[: n_vectors * LANES].reshape(n_vectors, LANES)
    for i in range(n_vectors):
        store(whole, i, exp(load(whole, i)))
    rest = np.zeros((1, LANES))
    for i in range(n_vectors * LANES, len(numbers)):
        rest[0, i - n_vectors * LANES] = numbers[i]
    store(rest, 0, exp(load(rest, 0)))
    for i in range(n_vectors * LANES, len(numbers)):
        numbers[i] = rest[0, i - n_vectors * LANES]


@kernel
def _is_missing(log_lik, t):
    missing = True
    for k in range(log_lik.shape[1]):
        missing &= log_lik[t, k] == 0.0
    return missing


@kernel
def _update_faint(predicted, log_lik, t, out):
    """Bayes' rule in logs, for a row whose likeliest state was almost ruled out before.

    Writes unnormalised probabilities; returns their sum and the shift they were taken at.
    """
    K = predicted.shape[0]
    shift = -np.inf
    for k in range(K):
        if predicted[k] > 0.0:
            shift = max(shift, math.log(predicted[k]) + log_lik[t, k])
    total = 0.0
    for k in range(K):
        out[k] = predicted[k]
        if shift > -np.inf and predicted[k] > 0.0:
            out[k] = math.exp(math.log(predicted[k]) + log_lik[t, k] - shift)
        total += out[k]
    return total, shift


@entry(inline="always")
def _propagate(probs, t, transmat, out, s):
    """out[s] = probs[t] A, summed in a fixed order."""
    for j in range(transmat.shape[0]):
        total = 0.0
        for i in range(transmat.shape[0]):
            total += probs[t, i] * transmat[i, j]
        out[s, j] = total


@entry
def _predict(probs, transmat, steps, out):
    before = np.empty((1, transmat.shape[0]))
    for t in range(probs.shape[0]):
        copy(probs[t], out[t])
        for _ in range(steps):
            copy(out[t], before[0])
            _propagate(before, 0, transmat, out, t)


@entry
def _smooth(transmat, steps, probs, pairs, trail):
    """Turn filtered probs (T, K) into smoothed ones in place; trail (max steps + 1, K)."""
    K = transmat.shape[0]
    later = np.empty(K)
    scratch = np.empty(K)
    for t in range(probs.shape[0] - 2, -1, -1):
        n = steps[t + 1]
        if n == 0:
            continue
        for k in range(K):
            trail[0, k] = probs[t, k]
            later[k] = probs[t + 1, k]
        for s in range(n):
            _propagate(trail, s, transmat, trail, s + 1)
        for s in range(n - 1, -1, -1):
            _step_back(trail, s, transmat, later, pairs, scratch)
        for k in range(K):
            probs[t, k] = later[k]


@entry(inline="always")
def _step_back(trail, s, transmat, later, pairs, scratch):
    """Smooth `later` one step back in place, and count its expected transitions."""
    K = transmat.shape[0]
    total = 0.0
    for i in range(K):
        scratch[i] = 0.0
        for j in range(K):
            if trail[s + 1, j] > 0.0:
                # The quotient is at most one: dividing first cannot overflow.
                pair = trail[s, i] * transmat[i, j] / trail[s + 1, j] * later[j]
                pairs[i, j] += pair
                scratch[i] += pair
        total += scratch[i]
    for i in range(K):
        later[i] = scratch[i] / total


@entry
def _viterbi(log_start, log_powers, log_lik, steps, origin, states):
    T, K = log_lik.shape
    score = np.zeros(K)
    fresh = np.empty(K)
    log_prob = 0.0
    for t in range(T):
        best = -np.inf
        for k in range(K):
            if steps[t] == 0:
                origin[t, k] = argmax(score)
                fresh[k] = log_start[k] + log_lik[t, k]
            else:
                i, value = _best_origin(score, log_powers[steps[t], :, k])
                origin[t, k] = i
                fresh[k] = value + log_lik[t, k]
            best = max(best, fresh[k])
        log_prob += best
        for k in range(K):  # the shift keeps differences exact on long series
            score[k] = fresh[k] - best if best > -np.inf else 0.0
    state = argmax(score)
    for t in range(T - 1, -1, -1):
        states[t] = state
        state = origin[t, state]
    return log_prob


@entry(inline="always")
def _best_origin(score, log_transition):
    best = 0
    value = score[0] + log_transition[0]
    for i in range(1, score.shape[0]):
        if score[i] + log_transition[i] > value:
            best = i
            value = score[i] + log_transition[i]
    return best, value


@entry
def _path_entropy(probs, powers, steps):
    """From filtered probs (T, K), smoothing backward."""
    T, K = probs.shape
    entropy = 0.0
    later = np.empty(K)
    now = np.empty(K)
    for t in range(T - 1, -1, -1):
        if t == T - 1 or steps[t + 1] == 0:
            copy(probs[t], later)
            for k in range(K):
                entropy -= _x_log_x(later[k])
            continue
        transition = powers[steps[t + 1]]
        fill(now, 0.0)
        for j in range(K):
            predicted = 0.0
            for i in range(K):
                predicted += probs[t, i] * transition[i, j]
            if predicted > 0.0:
                for i in range(K):
                    share = probs[t, i] * transition[i, j] / predicted
                    entropy -= later[j] * _x_log_x(share)
                    now[i] += later[j] * share
        sure = total(now)
        for k in range(K):
            later[k] = now[k] / sure
    return entropy


@entry(inline="always")
def _x_log_x(x):
    return x * math.log(x) if x > 0.0 else 0.0


def _powers(transmat: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """A^0, A^1, ... up to the longest step, shape (max steps + 1, K, K)."""
    powers = [np.eye(len(transmat))]
    for _ in range(steps.max(initial=0)):
        powers.append(powers[-1] @ transmat)
    return np.stack(powers)


def _as_arrays(startprob, transmat, log_lik, steps):
    """Contiguous arrays of the kernels' types."""
    floats = (np.ascontiguousarray(a, dtype=np.float64) for a in (startprob, transmat, log_lik))
    return (*floats, np.ascontiguousarray(steps, dtype=np.int64))


def _chain(transmat: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Transition matrix and steps as the kernels take them; the first row opens a sequence."""
    transmat = np.ascontiguousarray(transmat, dtype=np.float64)
    return transmat, _opened(np.ascontiguousarray(steps, dtype=np.int64), True)


def _opened(steps: np.ndarray, opens: bool) -> np.ndarray:
    """`steps`, with its first row as the start of a sequence if `opens`."""
    if not opens or len(steps) == 0 or steps[0] == 0:
        return steps
    return np.concatenate([[0], steps[1:]])
