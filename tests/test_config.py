"""Settings: what is out of range or contradictory is refused with the value and the rule."""

import re
from dataclasses import replace

import pytest

from hmm_exp.config import Config, checked, conf_dir, flat, nearest
from hmm_exp.errors import ConfigError


def with_setting(dotted: str, value: object) -> Config:
    config = Config()
    group, name = dotted.split(".")
    setattr(getattr(config, group), name, value)
    return config


@pytest.mark.parametrize(
    ("dotted", "value", "rule"),
    [
        ("model.n_states", 0, "at least 1"),
        ("model.n_init", 0, "at least 1"),
        ("model.tol", 0.0, "above 0"),
        ("model.tol", float("nan"), "above 0"),
        ("features.window", 1, "at least 2"),
        ("data.gaps", "fill", "one of split, bridge"),
        ("covariance.type", "round", "one of diag, full, tied, spherical"),
        ("selection.within", "r2", "one of bic"),
        ("split.train", 1.5, "at most 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_rule(dotted, value, rule):
    with pytest.raises(ConfigError, match=rule) as error:
        checked(with_setting(dotted, value))
    assert str(error.value).startswith(f"{dotted}={value}")


def test_n_states_beside_state_grid_says_how_to_unset_one():
    config = Config()
    config.model = replace(config.model, n_states=3, state_grid=[2, 3])
    with pytest.raises(ConfigError, match=r"model.state_grid=null or model.n_states=null"):
        checked(config)


def test_ratios_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ConfigError, match=r"= 1.1: must sum to 1"):
        checked(with_setting("split.test", 0.25))


def test_dates_without_an_end_are_refused():
    with pytest.raises(ConfigError, match=r"split.train_end=... and split.val_end="):
        checked(with_setting("split.kind", "dates"))


def test_bars_need_a_path_and_a_stamp():
    config = with_setting("data.kind", "bars")
    with pytest.raises(ConfigError, match=r"data.path is not set"):
        checked(config)
    config.data.path = "bars.csv"
    with pytest.raises(ConfigError, match=r"data.bar_stamp=open when"):
        checked(config)


def test_a_path_beside_the_synthetic_market_is_a_mistake():
    with pytest.raises(ConfigError, match="add data=bars"):
        checked(with_setting("data.path", "bars.csv"))


def test_columns_must_be_named():
    with pytest.raises(ConfigError, match=r"features.columns=\[name_1H"):
        checked(with_setting("features.name", "columns"))


def test_state_grid_is_sorted_without_repeats_and_defaults_to_three():
    assert Config().state_grid == [3]
    assert with_setting("model.state_grid", [4, 2, 4]).state_grid == [2, 4]
    assert with_setting("model.n_states", 5).state_grid == [5]


def test_nearest_names_a_likely_word_and_keeps_quiet_otherwise():
    assert nearest("model.nstates", flat(Config())) == " (did you mean model.n_states?)"
    assert nearest("zzz", flat(Config())) == ""


def test_every_group_of_the_schema_has_its_folder():
    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()} - {"hydra", "experiment"}
    assert groups == {name.split(".")[0] for name in flat(Config()) if "." in name} - {
        "sweep",
        "registry",
    }


@pytest.mark.parametrize(
    ("dotted", "value", "says"),
    [
        ("split.train_end", "2021-01-01", "split.train_end=2021-01-01 beside split=ratio: add"),
        ("selection.cv_blocks", 1, "must be 0 (no cross-validation) or at least 2"),
        ("registry.name", "a/b", "without / : ' ?"),
        ("registry.name", "..", "not . or .."),
        ("registry.name", "", "must be a name"),
        ("tracking.experiment", " ", "must be a name"),
    ],
)
def test_what_would_fail_or_be_ignored_later_is_refused_first(dotted, value, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        checked(with_setting(dotted, value))


def test_a_start_of_train_alone_is_refused():
    config = with_setting("split.kind", "walk_forward")
    config.split.train_start = "2021-01-01"
    with pytest.raises(ConfigError, match=r"needs split.train_end"):
        checked(config)
