"""The state arrays of a stream as text, with checks on reading.

The kernel reads them without bounds, so a place or a count that is wrong would be no error but
wrong memory or wrong probabilities. Every part is checked by what `kernel` and
`features.kernel` can have written. Sums over bars of 10^300 may be infinite, which passes with the
window.
"""

import base64
from collections.abc import Iterator

import numpy as np
import pandas as pd

from hmm_exp.detector.kernel import (
    BIN,
    COUNT,
    EDGE,
    HEADER,
    LAST_BAR,
    LAST_EDGE,
    LAST_ROW,
    N_BARS,
    NEVER,
    PER_TIMEFRAME,
    SKIPPED,
    VALUES,
    WINDOWS,
    new_state,
)
from hmm_exp.detector.model import StreamModel
from hmm_exp.errors import ModelError
from hmm_exp.features import kernel as features
from hmm_exp.market.bars import timeframe_step

_FIRST, _LAST = (pd.Timestamp(f"{year}-01-01").value for year in (1700, 2200))
_SUM_TOLERANCE = 1e-6

Rule = tuple[str, bool]


def text_of(array: np.ndarray) -> str:
    """Little-endian bytes of an array in base64."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def read_state(clock: str, memory: str, model: StreamModel) -> tuple[np.ndarray, np.ndarray]:
    """Clock and memory of a stream of `model` from their texts.

    Raises
    ------
    ModelError
        A text does not fit the model, or its numbers cannot be those of a stream.
    """
    fresh = new_state(model)
    state = _array_of("clock", clock, fresh[0]), _memory(memory, fresh[1], model)
    for part, holds in _rules(*state, fresh, model):
        if not holds:
            raise ModelError(f"{part} cannot be what a stream remembers")
    return state


def _memory(text: str, like: np.ndarray, model: StreamModel) -> np.ndarray:
    """Memory from its text; one from before the log range became a feature lacks its values."""
    added = _places_of_values(model)[:, -1]
    older = _array_of("memory", text, np.delete(like, added), like)
    if len(older) == len(like):
        return older
    return np.insert(older, added - np.arange(len(added)), np.nan)


def _places_of_values(model: StreamModel) -> np.ndarray:
    """Places in the memory of the last values of every feature, shape (F, features)."""
    recipe = model.recipe
    windows = [
        len(features.new_state(recipe.window, recipe.vwap_window(name)))
        for name in recipe.timeframes
    ]
    starts = model.params.n_states + np.cumsum([0, *(WINDOWS + size for size in windows[:-1])])
    return starts[:, None] + VALUES + np.arange(features.N_FEATURES)


def _array_of(name: str, text: str, *like: np.ndarray) -> np.ndarray:
    """Array of the size and type of one of the others. Raises ModelError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ModelError(f"{name} is no base64: {error}") from None
    newest = like[-1]
    if len(raw) not in {array.nbytes for array in like}:
        raise ModelError(f"{name} does not fit its model: {len(raw)} bytes, not {newest.nbytes}")
    return np.frombuffer(raw, dtype=newest.dtype.newbyteorder("<")).astype(newest.dtype)


def _rules(
    clock: np.ndarray, memory: np.ndarray, fresh: tuple[np.ndarray, ...], model: StreamModel
) -> Iterator[Rule]:
    """Name of every part, and whether it holds what it can hold."""
    n_bars, last_bar, last_row = (int(clock[place]) for place in (N_BARS, LAST_BAR, LAST_ROW))
    yield "clock: the number of bars", n_bars >= 0
    if n_bars == 0:
        unused = np.array_equal(clock, fresh[0]) and np.array_equal(memory, fresh[1], True)
        yield "clock or memory of a stream without bars", unused
        return
    yield "clock: the time of the last bar", _FIRST <= last_bar <= _LAST
    yield "clock: the time of the last row", last_row == NEVER or _FIRST <= last_row <= last_bar
    K = model.params.n_states
    yield "memory: the probabilities", _are_probabilities(memory[:K], last_row == NEVER)
    start = K
    for f, name in enumerate(model.recipe.timeframes):
        times = clock[HEADER + PER_TIMEFRAME * f :][:PER_TIMEFRAME].tolist()
        yield f"clock of {name}", _are_times(times, n_bars, last_bar, name, model)
        window, vwap = model.recipe.window, model.recipe.vwap_window(name)
        end = start + WINDOWS + len(features.new_state(window, vwap))
        yield f"memory of {name}: the open bar", _is_bin(memory[start + BIN :][:5], times[COUNT])
        windows = _are_windows(memory[start + WINDOWS : end], window, vwap, n_bars)
        yield f"memory of {name}: the windows", windows
        start = end


def _are_probabilities(probs: np.ndarray, unused: bool) -> bool:
    if unused:
        return not probs.any()
    inside = bool((probs >= 0).all() and (probs <= 1 + _SUM_TOLERANCE).all())
    return inside and abs(probs.sum() - 1) <= _SUM_TOLERANCE


def _are_times(times: list[int], n_bars: int, last_bar: int, name: str, model: StreamModel) -> bool:
    """Whether a timeframe's part of the clock fits the bars taken so far."""
    edge, count, last_edge, skipped = (times[i] for i in (EDGE, COUNT, LAST_EDGE, SKIPPED))
    step = timeframe_step(name).as_unit("ns").value
    if last_edge != NEVER and not _FIRST <= last_edge <= last_bar:
        return False
    if step == model.step.as_unit("ns").value:  # the bars themselves: nothing is ever open
        return (edge, count, skipped) == (NEVER, 0, NEVER)
    on_grid = all(time == NEVER or time % step == 0 for time in (edge, skipped))
    latest = last_bar + step
    in_time = all(time == NEVER or _FIRST <= time < latest for time in (edge, skipped))
    is_open = 0 < count <= n_bars and last_bar < edge
    return on_grid and in_time and (is_open or (count == 0 and edge <= last_bar))


def _is_bin(bar: np.ndarray, count: int) -> bool:
    """Whether an open bar of `count` bars is a bar."""
    if np.isnan(bar[:4]).any():
        return False
    opens, high, low, close, volume = bar
    is_price = 0 < low <= min(opens, close) <= max(opens, close) <= high
    return not count or (is_price and not volume < 0)  # NaN without volume


def _with_volume(state: np.ndarray, window: int) -> np.ndarray:
    """The state with 0 for what it remembers of bars without volume, where NaN is no damage."""
    known = state.copy()
    rest = known[features.HEADER :]
    of_volume = (
        known[features.LOG_VOLUME :][:1],
        rest[2 * window : 4 * window],
        rest[6 * window :],
    )
    for part in of_volume:
        part[np.isnan(part)] = 0.0
    return known


def _are_windows(state: np.ndarray, window: int, vwap: int, n_bars: int) -> bool:
    """Whether a state of `features.kernel` fits its windows and the bars taken so far."""
    state = _with_volume(state, window)
    header, rest = state[: features.HEADER], state[features.HEADER :]
    if np.isnan(state).any() or not np.isfinite(header).all() or (header < 0).any():
        return False
    counts = header[[features.N_BARS, features.N_RETURNS]]
    places = [header[i] for i in (features.WINDOW, features.VWAP_WINDOW, features.SLOT)]
    returns = slice(4 * window, 6 * window)
    return (
        bool((counts % 1 == 0).all())
        and counts[1] <= counts[0] <= n_bars
        and places == [window, vwap, counts[0] % vwap]
        and (counts[0] == 0) == (header[features.CLOSE] == 0)
        and bool((np.delete(rest, returns) >= 0).all())
    )
