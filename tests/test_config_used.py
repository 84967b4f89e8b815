"""Settings that a run records: those that its choices use."""

from dataclasses import replace

import numpy as np
import pytest

from hmm_exp.config import Config, DataConfig, FeaturesConfig, SplitConfig, flat
from hmm_exp.config.used import _SETS, USED_WITH, used
from hmm_exp.experiment.prepare import prepare
from hmm_exp.features.recipe import SETS

FILE = DataConfig(kind="bars", path="a.csv", bar_stamp="open")
SHARES = {"split.train", "split.val", "split.test"}
WALK = {"split.refit_every", "split.warm", "split.refit_starts"}


def test_the_table_names_settings_only():
    names = {name for decides, _, names in USED_WITH for name in (decides, *names)}
    assert names <= set(flat(Config()))


def test_a_planted_market_has_no_settings_of_files_and_a_file_none_of_the_market():
    market = {"data.n_bars", "data.n_regimes", "data.seed"}
    assert market <= set(used(Config()))
    on_file = set(used(Config(data=FILE)))
    assert not market & on_file
    assert {"data.path", "data.bar_stamp", "data.gaps", "data.bad_rows"} <= on_file
    made = Config(data=DataConfig(bar_stamp="open"))
    assert not {"data.bar_stamp", "data.gaps", "data.bad_rows"} & set(used(made))


@pytest.mark.parametrize(
    ("split", "uses"),
    [
        (SplitConfig(), SHARES),
        (SplitConfig(kind="dates", train_end="2021", val_end="2022"), set()),
        (SplitConfig(kind="walk_forward"), SHARES | WALK),
        (SplitConfig(kind="walk_forward", train_end="2021", val_end="2022"), WALK),
        (SplitConfig(kind="walk_forward", warm=False), (SHARES | WALK) - {"split.refit_starts"}),
    ],
)
def test_shares_dates_and_refits_are_recorded_where_they_decide(split, uses):
    settings = used(Config(split=split))
    assert (SHARES | WALK) & set(settings) == uses
    assert ("split.train_end" in settings) == (split.train_end is not None)
    assert ("model.refit" in settings) == (split.kind != "walk_forward")


def test_cells_of_several_feature_sets_differ_in_nothing_that_is_not_swept():
    known = [used(Config(features=FeaturesConfig(name=name))) for name in SETS]
    assert {frozenset(settings) for settings in known} == {frozenset(known[0])}


def test_named_columns_have_their_names_and_no_timeframe_beside():
    named = FeaturesConfig(name="columns", columns=["log_range_current_4H"])
    known = used(Config(features=named))
    assert known["features.columns"] == ["log_range_current_4H"]
    assert not {"timeframe.name", "timeframe.timeframes"} & set(known)
    assert {"features.include", "features.columns"}.isdisjoint(used(Config()))
    assert set(_SETS) == set(SETS)


@pytest.mark.parametrize(
    ("group", "change"),
    [
        ("data", {"gaps": "bridge", "bad_rows": "drop"}),
        ("split", {"refit_every": 50, "window": 500, "refit_starts": 7}),
    ],
)
def test_what_is_not_recorded_changes_no_row(small_config, group, change):
    changed = replace(small_config, **{group: replace(getattr(small_config, group), **change)})
    assert not {f"{group}.{name}" for name in change} & set(used(changed))
    one, other = prepare(small_config), prepare(changed)
    assert np.array_equal(one.X, other.X, equal_nan=True)
    assert np.array_equal(one.part, other.part)
