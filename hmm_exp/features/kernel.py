"""Values of the ten features, bar by bar, from a state of fixed size.

`advance` takes one closed bar of one timeframe and writes its features; a batch is the same call
in a loop, so batch and stream give the same bits. A stream of finer bars puts
`market.resample.push_bar` before it and advances a timeframe for each of its bars that closes,
except a first one that began before the stream did (see `build.build_features`). The state of a
timeframe is one float64 array:

    header | squared log ranges, volumes, returns (2w each) | price*volume, volume (W + 2 each)

where w is the window and W the VWAP's. The short windows are summed anew for every bar, in time
order, so a value depends on the bars in its window alone. The long one is kept as `slide` says.

>>> state = new_state(window=20, vwap_window=720)
>>> advance(state, 1.0, 1.2, 0.9, 1.1, 50.0, False, values := np.empty(N_FEATURES))
"""

import math

import numpy as np

from hmm_exp.compiling import entry, inlined, kernel
from hmm_exp.hmm.loops import total

N_FEATURES = 10
MISSING = math.nan

# Places in the state's header.
WINDOW, VWAP_WINDOW, N_BARS, N_RETURNS, CLOSE, LOG_VOLUME, SLOT = range(7)
HEADER = 7


def new_state(window: int, vwap_window: int) -> np.ndarray:
    """State of a timeframe that has seen no bar yet; windows are in bars."""
    state = np.zeros(HEADER + 6 * window + 2 * (vwap_window + 2))
    state[WINDOW], state[VWAP_WINDOW] = window, vwap_window
    return state


@kernel
def log_return(close: float, previous: float) -> float:
    """ln(C_t / C_{t-1})."""
    return math.log(close / previous)


@kernel
def log_volume(volume: float) -> float:
    """ln(1 + V), exact for small volumes too; the feature is its difference over one bar."""
    return math.log1p(volume)


@kernel
def squared_log_range(high: float, low: float) -> float:
    """ln(H / L)^2."""
    log_range = math.log(high / low)
    return log_range * log_range


@kernel
def parkinson(squared_log_ranges: np.ndarray) -> float:
    """Volatility per bar over a window (Parkinson 1980, Journal of Business 53)."""
    return math.sqrt(total(squared_log_ranges) / len(squared_log_ranges) / (4.0 * math.log(2.0)))


@kernel
def return_zscore(returns: np.ndarray) -> float:
    """(r_t - mean r) / std r over a window that ends with r_t, ddof 1; missing when std is 0.

    Returns are measured from r_t, so that equal ones have deviations of exactly zero.
    """
    n, last = len(returns), returns[-1]
    shift = 0.0
    for value in returns:
        shift += value - last
    shift /= n
    squares = 0.0
    for value in returns:
        deviation = value - last - shift
        squares += deviation * deviation
    if squares == 0.0:
        return MISSING
    return -shift / math.sqrt(squares / (n - 1))


@kernel
def relative_volume(volumes: np.ndarray) -> float:
    """V_t over the mean volume of a window that ends with it; missing when the mean is 0."""
    mean = total(volumes) / len(volumes)
    return volumes[-1] / mean if mean > 0.0 else MISSING


@kernel
def close_over_vwap(close: float, price_volume: float, volume: float) -> float:
    """C_t over VWAP, from the window's sums; missing when its volume is 0."""
    return close * volume / price_volume if volume > 0.0 else MISSING


@kernel
def range_pct(open_: float, high: float, low: float) -> float:
    """(H - L) / O."""
    return (high - low) / open_


@kernel
def close_open_pct(open_: float, close: float) -> float:
    """(C - O) / O."""
    return (close - open_) / open_


@kernel
def log_range(high: float, low: float) -> float:
    """ln ln(H / L), the log of a single bar's log range; missing when H = L.

    Within a regime its distribution is close to Gaussian (Alizadeh, Brandt & Diebold 2002,
    Journal of Finance 57, section II).
    """
    width = math.log(high / low)
    return math.log(width) if width > 0.0 else MISSING


@inlined
def push(ring: np.ndarray, n_before: int, value: float) -> np.ndarray:
    """Add the value number `n_before` and give the window that ends with it, oldest first.

    Every value is written twice, one window apart, so that any window is one slice.
    """
    window = len(ring) // 2
    place = n_before % window
    ring[place] = value
    ring[place + window] = value
    return ring[place + 1 : place + 1 + window]


@kernel
def slide(block: np.ndarray, slot: int, value: float) -> float:
    """Sum of the last W values, of which `value` is the newest; `block` has W + 2 places.

    Time is cut into blocks of W values. Place i holds this block's value i, or, where that is
    still to come, the sum of the last block's values from i on. So a window is one place plus the
    running sum of this block (the last place): nothing is ever subtracted, the error of a sum
    does not outlive its block, and a window of zeros sums to exactly zero.
    """
    window = len(block) - 2
    if slot == 0:
        for i in range(window - 2, -1, -1):
            block[i] += block[i + 1]
        block[window + 1] = 0.0
    block[slot] = value
    block[window + 1] += value
    return block[window + 1] + block[slot + 1]  # place W is always zero


@entry
def advance(
    state: np.ndarray,
    open_: float,
    high: float,
    low: float,
    close: float,
    volume: float,
    linked: bool,
    values: np.ndarray,
) -> None:
    """Take one closed bar into `state` and write its features.

    Parameters
    ----------
    state
        From `new_state`; changed in place.
    open_, high, low, close, volume
        The bar, valid.
    linked
        Whether the previous bar is its neighbour. False for the first bar and after a gap, where
        differences over one bar are missing.
    values
        Shape (10,), written in the order of `recipe.FEATURES`; NaN where missing.
    """
    w, vwap_w = int(state[WINDOW]), int(state[VWAP_WINDOW])
    n_bars, slot = int(state[N_BARS]), int(state[SLOT])
    rings = state[HEADER : HEADER + 6 * w]
    blocks = state[HEADER + 6 * w :]
    log_v = log_volume(volume)

    ranges = push(rings[: 2 * w], n_bars, squared_log_range(high, low))
    volumes = push(rings[2 * w : 4 * w], n_bars, volume)
    full = n_bars + 1 >= w
    values[0] = values[1] = values[3] = MISSING
    if linked:
        values[0] = log_return(close, state[CLOSE])
        values[1] = log_v - state[LOG_VOLUME]
        values[3] = _pushed_zscore(state, rings[4 * w :], values[0])
    values[2] = parkinson(ranges) if full else MISSING
    values[4] = relative_volume(volumes) if full else MISSING

    price_volume = slide(blocks[: vwap_w + 2], slot, (high + low + close) / 3.0 * volume)
    volume_sum = slide(blocks[vwap_w + 2 :], slot, volume)
    values[5] = values[6] = MISSING
    if n_bars + 1 >= vwap_w:
        values[5] = close_over_vwap(close, price_volume, volume_sum)
        values[6] = math.log(values[5])
    values[7] = range_pct(open_, high, low)
    values[8] = close_open_pct(open_, close)
    values[9] = log_range(high, low)

    state[N_BARS] = n_bars + 1
    state[SLOT] = slot + 1 if slot + 1 < vwap_w else 0
    state[CLOSE] = close
    state[LOG_VOLUME] = log_v


@kernel
def _pushed_zscore(state: np.ndarray, ring: np.ndarray, value: float) -> float:
    """Z-score of a new return; its window holds the last w returns that exist."""
    n_returns = int(state[N_RETURNS])
    returns = push(ring, n_returns, value)
    state[N_RETURNS] = n_returns + 1
    return return_zscore(returns) if n_returns + 1 >= len(returns) else MISSING


@entry
def advance_all(
    state: np.ndarray, ohlcv: np.ndarray, linked: np.ndarray, values: np.ndarray
) -> None:
    """`advance` over bars (T, 5) in time order, with `linked` (T,), into `values` (T, 10)."""
    for t in range(len(ohlcv)):
        o, h, l, c, v = ohlcv[t, 0], ohlcv[t, 1], ohlcv[t, 2], ohlcv[t, 3], ohlcv[t, 4]  # noqa: E741
        advance(state, o, h, l, c, v, linked[t], values[t])


@entry
def join_as_of(
    row_time: np.ndarray,
    bar_time: np.ndarray,
    values: np.ndarray,
    features: np.ndarray,
    columns: np.ndarray,
    X: np.ndarray,
) -> None:
    """Write into every row the values of the last bar that was complete by then.

    Parameters
    ----------
    row_time, bar_time
        Increasing `available_at` in nanoseconds, shapes (T,) and (B,).
    values
        Features of the bars, shape (B, 10).
    features, columns
        Pairs: which feature goes to which column, shapes (P,).
    X
        Shape (T, D); its `columns` are written, NaN before the first bar.
    """
    bar = -1
    for t in range(len(row_time)):
        while bar + 1 < len(bar_time) and bar_time[bar + 1] <= row_time[t]:
            bar += 1
        for pair in range(len(columns)):
            X[t, columns[pair]] = values[bar, features[pair]] if bar >= 0 else MISSING


@entry
def find_missing(X: np.ndarray, missing: np.ndarray) -> None:
    """Mark in `missing` (T,), which is all False, the rows of X (T, D) that hold a NaN."""
    for t in range(len(X)):
        for d in range(X.shape[1]):
            if math.isnan(X[t, d]):
                missing[t] = True
                break
