"""Find states that describe the price grid: their bars have a range of one tick, alone.

>>> one_tick_states(prepared, probs.argmax(axis=1), ("calm", "turbulent"))
['state 0 (calm) holds bars with a range of one tick, 0.01, alone: ...']
"""

from collections.abc import Sequence

import numpy as np

from hmm_exp.experiment.prepare import Prepared
from hmm_exp.market.resample import resample

_ONLY = 0.95  # share of a state's bars: a few of others are no market


def one_tick_states(prepared: Prepared, states: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Name the states whose train bars nearly all have the smallest range there is.

    Parameters
    ----------
    states
        State of every row, shape (T,); negative where unknown.
    labels
        Names of the states, K of them.

    Returns
    -------
    list of str
        A sentence for each; empty without bars or without a log range in the features.
    """
    bars, recipe = prepared.source.bars, prepared.recipe
    if bars is None or f"log_range_current_{recipe.grid}" not in recipe.columns:
        return []
    frame = resample(bars, recipe.grid).frame.loc[prepared.table.available_at]
    width = (frame["high"] - frame["low"]).to_numpy()
    moved = prepared.train & (width > 0) & (states >= 0)
    if not moved.any():
        return []
    tick = width[moved].min()
    counts = np.bincount(states[moved], minlength=len(labels))
    small = np.bincount(states[moved & (width < 1.5 * tick)], minlength=len(labels))
    return [
        f"state {k} ({name}) holds bars with a range of one tick, {tick:.6g}, alone: it describes "
        "the price grid, not the market"
        for k, name in enumerate(labels)
        if counts[k] and small[k] >= _ONLY * counts[k]
    ]
