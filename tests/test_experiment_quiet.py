"""States of a market that moves by ticks."""

from dataclasses import replace

import numpy as np

from hmm_exp.config import checked
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.quiet import one_tick_states


def ticking(config, tick: float):
    """A prepared market whose calm half has bars of one tick, or of none."""
    config.features.name = "range"
    prepared = prepare(checked(config))
    frame = prepared.source.bars.frame.copy()
    calm = np.arange(len(frame)) % 200 < 100
    low = frame["low"].round(2)
    frame["low"], frame["high"] = low, low + np.where(calm, tick, 20 * tick)
    frame.loc[frame.index[calm][::10], "high"] = low[calm][::10]
    bars = replace(prepared.source.bars, frame=frame)
    prepared = replace(prepared, source=replace(prepared.source, bars=bars))
    return prepared, calm[-len(prepared.table) :]


def test_a_state_that_holds_bars_of_one_tick_alone_is_named(small_config):
    prepared, calm = ticking(small_config, 0.01)
    states = np.where(calm, 0, 1)
    assert one_tick_states(prepared, states, ("calm", "turbulent")) == [
        "state 0 (calm) holds bars with a range of one tick, 0.01, alone: it describes the price "
        "grid, not the market"
    ]
    states[::3] = 0  # a third of its bars move
    assert one_tick_states(prepared, states, ("calm", "turbulent")) == []


def test_validation_and_test_bars_do_not_count(small_config):
    prepared, calm = ticking(small_config, 0.01)
    states = np.where(calm, 0, 1)
    expected = one_tick_states(prepared, states, ("calm", "turbulent"))
    states[~prepared.train] = 0
    assert one_tick_states(prepared, states, ("calm", "turbulent")) == expected


def test_no_state_is_named_without_a_log_range(small_config):
    prepared = prepare(checked(small_config))
    assert one_tick_states(prepared, np.zeros(len(prepared.table), int), ("normal",)) == []
