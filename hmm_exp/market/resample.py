"""Resample bars to coarser timeframes: right-closed bins, each known at its right edge.

A 4H bar holds the bars complete in (t - 4h, t] and is available at t. A stream calls `push_bar`,
which advances one bin by one base bar. `resample` takes all bars of a bin at a time, sixty times
faster, by the same operations in the same order: both have the same bits.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from hmm_exp.compiling import entry
from hmm_exp.errors import ConfigError, HistoryError
from hmm_exp.market.bars import OHLCV, Bars, step_in_words, timeframe_step
from hmm_exp.market.clean import stamped_frame
from hmm_exp.market.iso import iso


def resample(bars: Bars, timeframe: str) -> Bars:
    """Bars of a coarser timeframe, stamped by the source's convention.

    Bins lie on whole multiples of the timeframe since 1970, UTC. A bin exists once a bar available
    at or after its right edge does; one with missing bars is built from those present and counted
    in `report["partial_bins"]` (in a session market nothing is missing). A planted state is that of
    the bin's last bar. The bars' own timeframe returns them unchanged. Raises ConfigError if
    `timeframe` is unknown, finer than the bars or no whole multiple of them; HistoryError if no bin
    is complete.
    """
    step = timeframe_step(timeframe)
    if step == bars.step:
        return bars
    _check_multiple(bars.step, step, timeframe)
    step_ns = step.as_unit("ns").value
    edges, ohlcv, counts = _complete_bins(bars.time, bars.ohlcv, step_ns)
    if not len(edges):
        raise HistoryError(f"no complete bar of {timeframe} in {len(bars)} of {bars.step}")
    stamps = edges - step_ns if bars.stamp == "open" else edges
    report = _report(stamps, counts, bars, step)
    frame = stamped_frame(stamps, ohlcv, list(OHLCV), step_ns, bars.stamp)
    states = None if bars.states is None else bars.states[np.cumsum(counts) - 1]
    return replace(bars, frame=frame, step=step, report=report, states=states)


@entry
def push_bar(place, total, step_ns, time_ns, bar, done_edges, done_ohlcv, done_counts):
    """Add a base bar to the open bin and hand out every bin that is complete by now.

    Parameters
    ----------
    place, total
        The open bin, changed in place: int64 (right edge, bars in it; 0 bars if none is open) and
        float64 OHLCV.
    step_ns, time_ns
        Length of a bin; `available_at` of the bar; nanoseconds.
    bar
        Open, high, low, close, volume, shape (5,).
    done_edges, done_ohlcv, done_counts
        Where complete bins are written: right edge, OHLCV and number of bars; room for two.

    Returns
    -------
    Number of bins written: 0, 1, or 2 when the bar comes after a gap and completes its own.
    """
    edge = -(-time_ns // step_ns) * step_ns
    n_done = 0
    if place[1] > 0 and place[0] < edge:  # the bars up to that edge never came
        _hand_out(place, total, done_edges, done_ohlcv, done_counts, n_done)
        n_done += 1
    if place[1] == 0:
        place[0] = edge
        total[:] = bar
    else:
        total[1] = max(total[1], bar[1])
        total[2] = min(total[2], bar[2])
        total[3] = bar[3]
        total[4] += bar[4]
    place[1] += 1
    if time_ns == edge:
        _hand_out(place, total, done_edges, done_ohlcv, done_counts, n_done)
        n_done += 1
    return n_done


@entry
def _hand_out(place, total, done_edges, done_ohlcv, done_counts, at):
    done_edges[at] = place[0]
    done_ohlcv[at] = total
    done_counts[at] = place[1]
    place[1] = 0


def _complete_bins(
    time_ns: np.ndarray, ohlcv: np.ndarray, step_ns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right edges (B,), OHLCV (B, 5) and number of bars (B,) of the complete bins."""
    first = np.empty(len(time_ns) + 1, np.int64)  # no more bins than bars
    n = _cut(time_ns, step_ns, first)
    edges = -(-time_ns[first[:n]] // step_ns) * step_ns
    if n and time_ns[-1] < edges[-1]:
        n -= 1
    bins = np.empty((n, 5))
    _fill(ohlcv, first, bins)
    return edges[:n], bins, np.diff(first[: n + 1])


@entry
def _cut(time_ns, step_ns, first):
    """Number of bins; writes the first bar of each, and after them the number of bars."""
    n = edge = 0
    for t in range(len(time_ns)):
        if n == 0 or time_ns[t] > edge:
            edge = -(-time_ns[t] // step_ns) * step_ns
            first[n] = t
            n += 1
    first[n] = len(time_ns)
    return n


@entry
def _fill(ohlcv, first, bins):
    """What `push_bar` makes of the bars of every bin, by the same operations in the same order."""
    for n in range(len(bins)):
        start, end = first[n], first[n + 1]
        high, low, volume = ohlcv[start, 1], ohlcv[start, 2], ohlcv[start, 4]
        for t in range(start + 1, end):
            high = max(high, ohlcv[t, 1])
            low = min(low, ohlcv[t, 2])
            volume += ohlcv[t, 4]
        bins[n, 0], bins[n, 1], bins[n, 2] = ohlcv[start, 0], high, low
        bins[n, 3], bins[n, 4] = ohlcv[end - 1, 3], volume


def _check_multiple(base: pd.Timedelta, step: pd.Timedelta, timeframe: str) -> None:
    if step < base:
        raise ConfigError(
            f"timeframe {timeframe} is finer than the bars ({step_in_words(base)}); "
            f"set timeframe={step_in_words(base)} or coarser, or data.path to finer bars"
        )
    if step.as_unit("ns").value % base.as_unit("ns").value:
        raise ConfigError(
            f"timeframe {timeframe} is no whole multiple of the bars ({step_in_words(base)})"
        )


def _report(stamps: np.ndarray, counts: np.ndarray, bars: Bars, step: pd.Timedelta) -> dict:
    whole = step // bars.step
    partial = np.flatnonzero((counts < whole) & (bars.gaps == "split"))
    report = {
        "name": bars.name,
        "step": step_in_words(step),
        "source_step": step_in_words(bars.step),
        "source_rows": len(bars),
        "rows_used": len(stamps),
        "first": iso(stamps[0]),
        "last": iso(stamps[-1]),
        "partial_bins": len(partial),
    }
    return report | ({"first_partial": iso(stamps[partial[0]])} if len(partial) else {})
