"""Split instants: shared by all cells of a sweep, in time order, inside the data."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from hmm_exp.config import SplitConfig
from hmm_exp.errors import ConfigError, DataError
from hmm_exp.judge.split import BEFORE, TEST, TRAIN, VAL, Split, make_split, part_names

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


def test_blocks_follow_each_other_up_to_the_last_bar():
    split = make_split(
        HOURS, SplitConfig(kind="walk_forward", train=0.4, val=0.3, test=0.3, refit_every=70)
    )
    folds = split.folds
    assert (folds[0].end, folds[-1].stop) == (400, 1000)
    assert all(a.stop == b.end for a, b in pairwise(folds))
    assert {fold.stop - fold.end for fold in folds[:-1]} == {70}
    assert {fold.first for fold in folds} == {0}
    part = split.of(HOURS)
    assert [int((part == p).sum()) for p in (VAL, TEST)] == [300, 300]


def test_a_rolling_window_holds_as_many_bars_and_no_earlier_row():
    config = SplitConfig(
        kind="walk_forward", train=0.4, val=0.3, test=0.3, refit_every=70, window=150
    )
    split = make_split(HOURS, config)
    assert {fold.end - fold.first for fold in split.folds} == {150}
    for fold in split.folds:
        rows = HOURS[fold.rows(HOURS)]
        assert (rows[0], rows[-1]) == (HOURS[fold.first], HOURS[fold.stop - 1])


def test_a_splitter_prints_its_splits():
    config = SplitConfig(kind="walk_forward", train=0.4, val=0.3, test=0.3, refit_every=200)
    lines = str(make_split(HOURS, config)).splitlines()
    assert len(lines) == 1 + 3
    assert "2024-01-17T15:00:00Z" in lines[1]  # the last bar of the first train
    assert lines[2].endswith("val+test")


def test_instants_stay_where_they_are_when_bars_come():
    config = SplitConfig(
        kind="walk_forward", refit_every=100, train_end="2024-01-15", val_end="2024-01-25"
    )
    few, many = make_split(HOURS[:800], config), make_split(HOURS, config)
    assert few.folds[:-1] == many.folds[: len(few.folds) - 1]
    assert few.folds[-1].end == many.folds[len(few.folds) - 1].end


def test_a_walk_without_bars_after_train_is_refused():
    with pytest.raises(DataError, match=r"all 1000 bars are train.*split.train decides"):
        make_split(HOURS, SplitConfig(kind="walk_forward", train=1.0, val=0.0, test=0.0))


def test_every_bar_has_the_name_of_its_part():
    assert part_names(np.array([TEST, BEFORE, VAL, TRAIN])).tolist() == [
        *("test", "before", "val", "train")
    ]


def test_a_walk_over_five_hundred_bars_by_hand():
    config = SplitConfig(
        **{"kind": "walk_forward", "train_start": "2024-01-02", "train_end": "2024-01-11"},
        **{"val_end": "2024-01-16", "refit_every": 150, "window": 300},
    )
    split = make_split(HOURS[:500], config)
    assert [(f.number, f.first, f.end, f.stop) for f in split.folds] == [
        *((0, 25, 241, 391), (1, 91, 391, 500))
    ]
    assert split.folds[1].split == Split(HOURS[90], HOURS[390], HOURS[499])
    table = split.table()
    assert table["train_bars"].tolist() == [216, 300]
    assert table["bars"].tolist() == [150, 109]
    assert table["part"].tolist() == ["val+test", "test"]
    assert table["train_from"].tolist() == [HOURS[25], HOURS[91]]
    assert table["train_to"].tolist() == [HOURS[240], HOURS[390]]
    assert table["out_of_sample_to"].tolist() == [HOURS[390], HOURS[499]]
    assert split.to_dict() == {
        "train_start": "2024-01-02T00:00:00Z",
        "train_end": "2024-01-11T00:00:00Z",
        "val_end": "2024-01-16T00:00:00Z",
        "refit_every": 150,
        "window": 300,
    }


def test_instants_may_lie_on_the_first_and_the_last_bar_and_no_further():
    def dates(**changes):
        return SplitConfig(
            **{"kind": "dates", "train_end": "2024-01-20", "val_end": "2024-02-01"} | changes
        )

    split = make_split(HOURS, dates(train_end=str(HOURS[0]), val_end=str(HOURS[-1])))
    assert (split.of(HOURS) == TRAIN).sum() == 1
    assert (split.of(HOURS) == TEST).sum() == 0
    late = {"train_start": "2023-12-01", "train_end": "2023-12-31 23:00"}
    with pytest.raises(DataError, match=r"split\.train_end=2023-12-31 23:00.* outside the data"):
        make_split(HOURS, dates(**late))
    same = make_split(HOURS, dates(train_end="2024-02-01"))
    assert same.train_end == same.val_end
    with pytest.raises(ConfigError, match="must ascend"):
        make_split(HOURS, dates(train_start="2024-01-20"))


def test_shares_that_round_above_the_bars_end_with_the_last_one():
    split = make_split(HOURS[:3], SplitConfig(train=0.5, val=0.5, test=0.0))
    assert (split.train_end, split.val_end) == (HOURS[1], HOURS[2])
    one = make_split(HOURS[:4], SplitConfig(train=0.25, val=0.25, test=0.5))
    assert (one.train_end, one.val_end) == (HOURS[0], HOURS[1])
