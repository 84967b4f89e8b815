"""Split instants: shared by all cells of a sweep, in time order, inside the data."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.config import SplitConfig
from hmm_exp.errors import ConfigError, DataError
from hmm_exp.judge.split import BEFORE, TEST, TRAIN, VAL, make_split

HOURS = pd.date_range("2024-01-01", periods=1000, freq="h", tz="UTC")


def test_ratio_counts_bars():
    part = make_split(HOURS, SplitConfig()).of(HOURS)
    assert [int((part == p).sum()) for p in (BEFORE, TRAIN, VAL, TEST)] == [0, 700, 150, 150]
    assert (np.diff(part) >= 0).all()


def test_rows_of_a_coarser_timeframe_fall_on_the_same_side_of_the_same_instants():
    split = make_split(HOURS, SplitConfig())
    days = HOURS[::24]
    fine = dict(zip(HOURS, split.of(HOURS), strict=True))
    assert list(split.of(days)) == [fine[day] for day in days]


def test_dates_set_the_instants():
    config = SplitConfig(
        kind="dates", train_start="2024-01-05", train_end="2024-01-20", val_end="2024-02-01"
    )
    split = make_split(HOURS, config)
    part = split.of(HOURS)
    assert HOURS[part == TRAIN][0] == pd.Timestamp("2024-01-05 01:00", tz="UTC")
    assert HOURS[part == TRAIN][-1] == pd.Timestamp("2024-01-20", tz="UTC")
    assert HOURS[part == VAL][-1] == pd.Timestamp("2024-02-01", tz="UTC")
    assert (part[pd.Timestamp("2024-01-05", tz="UTC") >= HOURS] == BEFORE).all()


@pytest.mark.parametrize(
    ("dates", "error", "says"),
    [
        ({"train_end": "2024-01-20", "val_end": "2030-01-01"}, DataError, "outside the data"),
        ({"train_end": "2020-01-20", "val_end": "2024-02-01"}, ConfigError, "must ascend"),
        ({"train_end": "2024-02-20", "val_end": "2024-02-01"}, ConfigError, "must ascend"),
        ({"train_end": "soon", "val_end": "2024-02-01"}, ConfigError, "is not a date"),
        ({"train_end": "now", "val_end": "2024-02-01"}, ConfigError, "train_end=now is not a date"),
        ({"train_end": "2024-01-02", "val_end": "nan"}, ConfigError, "val_end=nan is not a date"),
    ],
)
def test_dates_that_cannot_be_are_refused(dates, error, says):
    with pytest.raises(error, match=says):
        make_split(HOURS, SplitConfig(kind="dates", **dates))


def test_a_split_without_train_bars_is_refused():
    with pytest.raises(DataError, match="leaves none to fit on"):
        make_split(HOURS[:3], SplitConfig(train=0.1, val=0.4, test=0.5))
