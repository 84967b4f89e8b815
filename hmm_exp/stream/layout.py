"""Where things lie in the arrays of a stream: the model's constants, and all that is remembered.

    settings, int64     sizes and options | steps of the timeframes | places | sources of columns
    numbers, float64    scaler | chain | Gaussians
    clock, int64        header | for each timeframe: open bin's edge, bars in it, last edge, ...
    memory, float64     probabilities (K) | for each timeframe: open bin (5), values (9), windows

Few arrays, because each further argument costs a call more than the features of a bar do;
`unpacked` gives the parts of the first two their names. The sizes never change.
"""

from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.errors import ConfigError
from hmm_exp.features.kernel import N_FEATURES
from hmm_exp.features.kernel import new_state as new_windows
from hmm_exp.hmm.density import Density, density_of
from hmm_exp.market.timeframes import timeframe_step
from hmm_exp.stream.model import StreamModel

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
    """The parts of what `constants_of` gives; F timeframes, D columns, K states.

    Attributes
    ----------
    step_ns
        Length of a bar of every timeframe in nanoseconds, shape (F,).
    start
        Where a timeframe's part of the memory begins and where the last one ends, shape (F + 1,).
    sources
        Timeframe and feature of every column, shape (D, 2).
    base_ns, grid, bridge
        Length of a base bar; which timeframe decides the rows; whether neighbours are neighbours.
    mean, scale
        Of the scaler, shape (D,).
    startprob
        Where a sequence starts: the stationary distribution, shape (K,).
    transmat, density
        Of the model.
    """

    step_ns: np.ndarray
    start: np.ndarray
    sources: np.ndarray
    base_ns: int
    grid: int
    bridge: bool
    mean: np.ndarray
    scale: np.ndarray
    startprob: np.ndarray
    transmat: np.ndarray
    density: Density


def constants_of(model: StreamModel) -> tuple[np.ndarray, np.ndarray]:
    """What a step needs of a model and never changes: int64 settings and float64 numbers.

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
    ]
    chain = params.stationary(), params.transmat
    numbers = (model.scaler_mean, model.scaler_scale, *chain, *density[:3])
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


@entry(error_model="numpy", inline="always")
def unpacked(settings, numbers):
    """Views of the parts, by name."""
    F, D, K = settings[0], settings[1], settings[2]
    timeframes, rest = settings[7 : 7 + F], settings[7 + F :]
    scaler, chain = numbers[: 2 * D], numbers[2 * D :]
    gaussians = chain[K + K * K :]
    return Constants(
        timeframes,
        rest[: F + 1],
        rest[F + 1 :].reshape((D, 2)),
        settings[3],
        settings[4],
        settings[5] == 1,
        scaler[:D],
        scaler[D:],
        chain[:K],
        chain[K : K + K * K].reshape((K, K)),
        Density(
            gaussians[: K * D].reshape((K, D)),
            gaussians[K * D : K * D + K * D * D].reshape((K, D, D)),
            gaussians[K * D + K * D * D :],
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
