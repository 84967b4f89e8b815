"""Rows that the features cannot use, by reason."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.features.build import build_features
from hmm_exp.features.lost import usable_in_words
from hmm_exp.features.recipe import Recipe
from hmm_exp.market.bars import Bars
from hmm_exp.market.clean import bars_from_frame
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.synthetic import make_market

V1, V2 = (Recipe.of_set(name, ["1H"], 20, 30.0) for name in ("v1", "v2"))
RANGE = Recipe.of_set("range", ["1H"])


def hours(n_bars: int = 400) -> pd.DataFrame:
    return make_market(n_bars, seed=2).frame.reset_index(drop=True)


def bars_of(frame: pd.DataFrame, gaps: str = "split") -> Bars:
    return bars_from_frame(frame, ReadOptions("open", gaps=gaps), step=pd.Timedelta(hours=1))


def lost(bars: Bars, recipe: Recipe) -> dict[str, int]:
    """Rows lost by reason; with the usable ones they are all rows."""
    table = build_features(bars, recipe)
    counts = {reason: found["rows"] for reason, found in table.lost.items()}
    assert sum(counts.values()) == table.warmup_rows + table.n_missing
    return counts


def test_windows_alone_cost_the_first_rows():
    assert lost(bars_of(hours()), V1) == {"to fill the windows": 19}
    assert lost(bars_of(hours()), V2) == {"to fill the windows": 29}


def test_a_start_without_volume_is_not_called_a_warm_up():
    frame = hours()
    frame.loc[:199, "volume"] = 0
    assert lost(bars_of(frame), V2) == {"to fill the windows": 29, "without volume": 171}
    assert lost(bars_of(frame), V1) == {"to fill the windows": 19}  # none of v1 needs a volume


def test_gaps_cost_rows_in_split_alone_and_volume_counts_first():
    frame = hours()
    frame.loc[100:160, "volume"] = 0
    frame = frame.drop([130, 131, 300, 350])
    assert lost(bars_of(frame), V1) == {"to fill the windows": 19, "after gaps": 3}
    in_split = lost(bars_of(frame), V2)
    assert in_split == {"to fill the windows": 29, "without volume": 40, "after gaps": 2}
    in_bridge = lost(bars_of(frame, "bridge"), V2)
    assert in_bridge == {"to fill the windows": 29, "without volume": 40}


def test_bars_without_a_range_and_returns_without_a_move_have_their_own_reasons():
    frame = hours()
    frame.loc[200:260, ["open", "high", "low", "close"]] = frame.loc[200, "close"]
    assert lost(bars_of(frame), RANGE) == {"where high equals low": 61}
    moves = lost(bars_of(frame), Recipe.of_columns(["close_ret_zscore_20_1H"]))
    assert moves == {"to fill the windows": 20, "of equal returns": 41}


@pytest.mark.parametrize(("sessions", "option"), [(True, ": data.gaps=bridge"), (False, "")])
def test_the_line_names_columns_and_the_option_that_helps(sessions, option):
    table = build_features(bars_of(hours().drop([300])), V1)
    assert usable_in_words(table, "v1@1H of btc", sessions=sessions) == (
        "features v1@1H of btc: 379 of 399 rows usable; 19 to fill the windows; 1 after gaps "
        f"(close_logret_current_1H, log_volume_delta_current_1H{option})"
    )


def test_volume_features_can_be_left_out():
    frame = hours()
    frame.loc[100:200, "volume"] = 0
    line = usable_in_words(build_features(bars_of(frame), V2), "v2")
    columns = "volume_rvol_20_1H,close_over_vwap_1H,close_log_ratio_vwap_1H"
    assert line.endswith(f"without volume (features.exclude=[{columns}])")


def test_rows_of_several_timeframes_are_counted_on_the_finest():
    recipe = Recipe.of_set("v1", ["1H", "4H"])
    assert lost(bars_of(hours().drop([300])), recipe)["after gaps"] >= 1


def test_a_ready_table_shows_what_is_missing_in_it():
    table = build_features(bars_of(hours().drop([300])), V1)
    ready = replace(table, find_lost=dict, warmup_rows=0)
    assert usable_in_words(ready, "f") == (
        "features f: 379 of 380 rows usable; 1 with a missing value (close_logret_current_1H, "
        "log_volume_delta_current_1H)"
    )


def test_hours_that_train_lacks_reduce_the_usable_rows():
    table = build_features(bars_of(hours()), V1)
    line = usable_in_words(table, "v1", usable=371)
    assert line.endswith(
        "371 of 400 rows usable; 19 to fill the windows; 10 at hours that train lacks"
    )


def test_later_bars_do_not_change_the_reasons_of_earlier_rows():
    frame = hours().drop([150])
    frame.loc[100:140, "volume"] = 0
    early = lost(bars_of(frame.iloc[:250]), V2)
    later = frame.copy()
    later.loc[260:, ["open", "high", "low", "close"]] *= np.exp(0.3)
    later.loc[260:, "volume"] = 1e6
    assert lost(bars_of(later), V2) == lost(bars_of(frame), V2) == early


def test_a_feature_set_is_not_advised_to_leave_out_all_that_it_has():
    frame = hours()
    frame.loc[200, ["open", "high", "low", "close"]] = 100.0
    line = usable_in_words(build_features(bars_of(frame), RANGE), "range")
    assert line.endswith("1 where high equals low (log_range_current_1H)")
