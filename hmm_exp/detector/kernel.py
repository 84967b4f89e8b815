"""Compiled update of a stream by bars: coarser bars, windows, features, density, filter.

`run` takes closed bars in time order and writes a row of state probabilities for every bar of the
grid that closes. It calls the kernels that the batch calls (`resample.push_bar`,
`features.kernel.advance`, `density.log_density_row`, `inference.advance`), so its bits are those of
the batch filter over all bars so far. The layout of its arrays is below.

>>> settings, numbers = constants_of(model)
>>> clock, memory = new_state(model)
>>> n = run(settings, numbers, clock, memory, bars.time, bars.ohlcv, row_time, row_probs)
"""

from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.detector.model import StreamModel
from hmm_exp.errors import ConfigError
from hmm_exp.features.kernel import N_FEATURES
from hmm_exp.features.kernel import advance as advance_features
from hmm_exp.features.kernel import new_state as new_windows
from hmm_exp.features.season import HOURS, hour_of, utc_offsets
from hmm_exp.hmm.density import Density, density_of, log_density_row
from hmm_exp.hmm.inference import advance as advance_filter
from hmm_exp.market.bars import timeframe_step
from hmm_exp.market.gaps import MAX_MISSING
from hmm_exp.market.resample import push_bar


class BarBuffers(NamedTuple):
    """Buffers of a call: the bins that one bar closed, and one row."""

    # `edges`, `bins`: closed bins of every timeframe, at most two each, shapes (F, 2) and (F, 2,
    # 5).
    edges: np.ndarray
    bins: np.ndarray
    counts: np.ndarray  # bars in a bin, which is not used, shape (2,)
    # `n_closed`, `n_taken`: how many of them are closed, and how many the features have taken,
    # shape (F,).
    n_closed: np.ndarray
    n_taken: np.ndarray
    # `X`, `z`: the observation (1, D) and scratch of its density (D,).
    X: np.ndarray
    z: np.ndarray
    # `log_lik`, `steps`, `probs`, `log_prob`: what the filter reads and writes, shapes (1, K),
    # (1,), (1, K) and (1,).
    log_lik: np.ndarray
    steps: np.ndarray
    probs: np.ndarray
    log_prob: np.ndarray


@entry
def run(settings, numbers, clock, memory, time_ns, ohlcv, row_time, row_probs):
    """Take bars and write the rows that they complete.

    Parameters
    ----------
    settings, numbers, clock, memory
        From `layout.constants_of` and `layout.new_state`; the latter two are changed in place.
    time_ns, ohlcv
        `available_at` (T,), increasing and later than all before; valid bars (T, 5).
    row_time, row_probs
        Where rows are written: `available_at` and filtered probabilities (K,), room for T + 1.

    Returns
    -------
    Number of rows written. A bar that comes after a gap can complete two.
    """
    constants = unpacked(settings, numbers)
    work = _new_work(len(constants.step_ns), len(constants.mean), len(constants.startprob))
    n = 0
    for t in range(len(time_ns)):
        if clock[LAST_BAR] == NEVER:
            _skip_begun(constants, clock, time_ns[t])
        _close_bins(constants, clock, memory, work, time_ns[t], ohlcv, t)
        n = _take_closed(constants, clock, memory, work, row_time, row_probs, n)
        clock[LAST_BAR] = time_ns[t]
        clock[N_BARS] += 1
    return n


@entry(inline="always")
def _new_work(F, D, K):
    return BarBuffers(
        np.empty((F, 2), np.int64),
        np.empty((F, 2, 5)),
        np.empty(2, np.int64),
        np.empty(F, np.int64),
        np.empty(F, np.int64),
        np.empty((1, D)),
        np.empty(D),
        np.empty((1, K)),
        np.empty(1, np.int64),
        np.empty((1, K)),
        np.empty(1),
    )


@entry(inline="always")
def _skip_begun(constants, clock, time_ns):
    """Mark first bins that began before the data: no value may depend on where the data begin."""
    for f in range(len(constants.step_ns)):
        step = constants.step_ns[f]
        edge = -(-time_ns // step) * step
        if step > constants.base_ns and time_ns - constants.base_ns > edge - step:
            clock[HEADER + PER_TIMEFRAME * f + SKIPPED] = edge


@entry(inline="always")
def _close_bins(constants, clock, memory, work, time_ns, ohlcv, t):
    """Add a bar to the open bin of every timeframe, and gather the bins that are closed by now."""
    for f in range(len(constants.step_ns)):
        work.n_taken[f] = 0
        if constants.step_ns[f] == constants.base_ns:
            work.edges[f, 0] = time_ns
            for i in range(5):
                work.bins[f, 0, i] = ohlcv[t, i]
            work.n_closed[f] = 1
        else:
            at, start = HEADER + PER_TIMEFRAME * f, constants.start[f]
            work.n_closed[f] = push_bar(
                clock[at + EDGE : at + COUNT + 1],
                memory[start + BIN : start + VALUES],
                constants.step_ns[f],
                time_ns,
                ohlcv[t],
                work.edges[f],
                work.bins[f],
                work.counts,
            )


@entry(inline="always")
def _take_closed(constants, clock, memory, work, row_time, row_probs, n):
    """Advance every timeframe by its closed bins, in time order, and write the grid's rows."""
    grid = constants.grid
    for i in range(work.n_closed[grid]):
        edge = work.edges[grid, i]
        _advance_until(constants, clock, memory, work, edge)
        whole = edge != clock[HEADER + PER_TIMEFRAME * grid + SKIPPED]
        if whole and _filter_row(constants, clock, memory, work, edge):
            row_time[n] = edge
            for k in range(len(constants.startprob)):
                row_probs[n, k] = work.probs[0, k]
            n += 1
    _advance_until(constants, clock, memory, work, FOREVER)
    return n


@entry(inline="always")
def _advance_until(constants, clock, memory, work, time_ns):
    """Advance every timeframe by those of its closed bins that were known at a time."""
    for f in range(len(constants.step_ns)):
        while work.n_taken[f] < work.n_closed[f] and work.edges[f, work.n_taken[f]] <= time_ns:
            i = work.n_taken[f]
            _advance_timeframe(constants, clock, memory, f, work.edges[f, i], work.bins[f, i])
            work.n_taken[f] += 1


@entry(inline="always")
def _advance_timeframe(constants, clock, memory, f, edge, bar):
    """Features of one closed bar of timeframe f, unless it began before the data."""
    at, start = HEADER + PER_TIMEFRAME * f, constants.start[f]
    if edge == clock[at + SKIPPED]:
        return
    before = clock[at + LAST_EDGE]
    linked = before != NEVER and _chain_step(constants, before, edge, f) == 1
    values = memory[start + VALUES : start + WINDOWS]
    windows = memory[start + WINDOWS : constants.start[f + 1]]
    advance_features(windows, bar[0], bar[1], bar[2], bar[3], bar[4], linked, values)
    clock[at + LAST_EDGE] = edge


@entry(inline="always")
def _filter_row(constants, clock, memory, work, time_ns):
    """One row from the latest values of all timeframes; False while windows still fill."""
    missing = _scaled_row(constants, clock, memory, work.X)
    before = clock[LAST_ROW]
    if before == NEVER and missing:
        return False
    work.steps[0] = 0
    if before != NEVER:
        work.steps[0] = _chain_step(constants, before, time_ns, constants.grid)
    log_density_row(work.X, 0, constants.density, work.log_lik, work.z)
    advance_filter(
        constants.startprob,
        constants.transmat,
        work.log_lik,
        work.steps,
        memory[: len(constants.startprob)],
        work.probs,
        work.log_prob,
    )
    clock[LAST_ROW] = time_ns
    return True


@entry(inline="always")
def _scaled_row(constants, clock, memory, X):
    """Write the model's observation into X[0]; True where it lacks a feature."""
    missing = False
    for d in range(len(constants.mean)):
        f = constants.sources[d, 0]
        x = memory[constants.start[f] + VALUES + constants.sources[d, 1]]
        missing |= np.isnan(x)
        if len(constants.season):
            end = clock[HEADER + PER_TIMEFRAME * f + LAST_EDGE]
            x -= constants.season[hour_of(end, constants.zone[0], constants.zone[1]), d]
        X[0, d] = (x - constants.mean[d]) / constants.scale[d]
    return missing


@entry(inline="always")
def _chain_step(constants, before, edge, f):
    """Chain steps between two bars of timeframe f, as `gaps.chain_steps` counts them."""
    if constants.bridge:
        return 1
    step = constants.step_ns[f]
    passed = max((edge - before + step // 2) // step, 1)
    return 0 if passed > MAX_MISSING + 1 else passed


NEVER = np.iinfo(np.int64).min
FOREVER = np.iinfo(np.int64).max

# Places in the clock's header, then in each timeframe's part of it.
N_BARS, LAST_BAR, LAST_ROW = range(3)
HEADER = 3
EDGE, COUNT, LAST_EDGE, SKIPPED = range(4)
PER_TIMEFRAME = 4

# Places in a timeframe's part of the memory.
BIN, VALUES, WINDOWS = 0, 5, 5 + N_FEATURES


class Constants(NamedTuple):
    """Arrays of `constants_of`; F timeframes, D columns, K states."""

    step_ns: np.ndarray  # length of a bar of every timeframe in nanoseconds, shape (F,)
    # Where a timeframe's part of the memory begins and where the last one ends, shape (F + 1,).
    start: np.ndarray
    sources: np.ndarray  # timeframe and feature of every column, shape (D, 2)
    # `base_ns`, `grid`, `bridge`: length of a base bar; which timeframe decides the rows; whether
    # neighbours are neighbours.
    base_ns: int
    grid: int
    bridge: bool
    # `utc_offsets` of the zone, shape (2, M), and means by hour, shape (24, D); empty without any.
    zone: np.ndarray
    season: np.ndarray
    mean: np.ndarray  # of the scaler, shape (D,)
    scale: np.ndarray  # of the scaler, shape (D,)
    startprob: np.ndarray  # where a sequence starts: the stationary distribution, shape (K,)
    transmat: np.ndarray  # of the model
    density: Density  # of the model


def constants_of(model: StreamModel) -> tuple[np.ndarray, np.ndarray]:
    """Constants of a model for the kernel: int64 settings and float64 numbers.

    Raises ConfigError when a timeframe is no whole multiple of the bars.
    """
    _check_timeframes(model)
    recipe, params, density = model.recipe, model.params, density_of(model.params)
    place = {timeframe: f for f, timeframe in enumerate(recipe.timeframes)}
    sizes = [WINDOWS + len(windows) for windows in _windows(model)]
    start = params.n_states + np.cumsum([0, *sizes])
    settings = [
        *(len(place), params.n_features, params.n_states),
        model.step.as_unit("ns").value,
        place[recipe.grid],
        model.gaps == "bridge",
        density.diagonal,
        *(timeframe_step(name).as_unit("ns").value for name in recipe.timeframes),
        *start.tolist(),
        *(number for name, feature in recipe.sources() for number in (place[name], feature)),
        *(() if model.season is None else np.concatenate(utc_offsets(str(recipe.season)))),
    ]
    chain = params.stationary(), params.transmat
    season = np.empty(0) if model.season is None else model.season
    numbers = (season, model.scaler_mean, model.scaler_scale, *chain, *density[:4])
    return np.array(settings, dtype=np.int64), np.concatenate([part.ravel() for part in numbers])


def new_state(model: StreamModel) -> tuple[np.ndarray, np.ndarray]:
    """Clock and memory of a stream that has seen no bar."""
    clock = np.full(HEADER + PER_TIMEFRAME * len(model.recipe.timeframes), NEVER)
    clock[N_BARS] = 0
    clock[HEADER + COUNT :: PER_TIMEFRAME] = 0
    parts = [np.zeros(model.params.n_states)]
    for windows in _windows(model):
        parts += [np.zeros(VALUES), np.full(N_FEATURES, np.nan), windows]
    return clock, np.concatenate(parts)


@entry(inline="always")
def unpacked(settings, numbers):
    """Views of the parts, by name."""
    F, D, K = settings[0], settings[1], settings[2]
    timeframes, rest = settings[7 : 7 + F], settings[7 + F :]
    zone = rest[F + 1 + 2 * D :]
    H = HOURS if len(zone) else 0
    scaler, chain = numbers[H * D : (H + 2) * D], numbers[(H + 2) * D :]
    densities = chain[K + K * K :]
    factors = K * D + K * D * D
    return Constants(
        timeframes,
        rest[: F + 1],
        rest[F + 1 : F + 1 + 2 * D].reshape((D, 2)),
        settings[3],
        settings[4],
        settings[5] == 1,
        zone.reshape((2, len(zone) // 2)),
        numbers[: H * D].reshape((H, D)),
        scaler[:D],
        scaler[D:],
        chain[:K],
        chain[K : K + K * K].reshape((K, K)),
        Density(
            densities[: K * D].reshape((K, D)),
            densities[K * D : factors].reshape((K, D, D)),
            densities[factors : factors + K],
            densities[factors + K :],
            settings[6] == 1,
        ),
    )


def _check_timeframes(model: StreamModel) -> None:
    for name in model.recipe.timeframes:
        if timeframe_step(name) % model.step:
            raise ConfigError(
                f"timeframe {name} is no whole multiple of the bars ({model.step}): this model "
                "takes ready features only"
            )


def _windows(model: StreamModel) -> list[np.ndarray]:
    recipe = model.recipe
    return [new_windows(recipe.window, recipe.vwap_window(tf)) for tf in recipe.timeframes]
