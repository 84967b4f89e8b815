"""Settings: what is out of range or contradictory is refused with the value and the rule."""

import math
import re
from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_experiment_name, _validate_model_name
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import hmm_exp.train  # registers the schema
from hmm_exp.config import RULES, Config, checked, conf_dir, flat, nearest, to_config
from hmm_exp.config.checks import kind_in_words
from hmm_exp.config.overrides import composition_error, hydra_words
from hmm_exp.config.rules import Range
from hmm_exp.errors import ConfigError
from tests.conftest import OF_HYDRA


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


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if isinstance(rule, Range)])
def test_no_other_check_narrows_the_range_that_the_settings_page_states(name):
    """Two settings may still exclude each other, and shares sum to one."""
    rule = RULES[name]
    least = rule.low + (1e-9 if rule.above else 0)
    for value in {least, min(least + 1, rule.high), rule.high} - {math.inf}:
        assert f"{name}={value}: must be" not in complaint(with_setting(name, value))
    for value in (rule.low - 1, rule.low if rule.above else rule.low - 1e-9, math.nan):
        assert complaint(with_setting(name, value)) == f"{name}={value}: must be {rule}"


def complaint(config: Config) -> str:
    try:
        checked(config)
    except ConfigError as error:
        return str(error)
    return ""


def test_n_states_beside_state_grid_says_how_to_unset_one():
    config = Config()
    config.model = replace(config.model, n_states=3, state_grid=[2, 3])
    with pytest.raises(ConfigError, match=r"model.state_grid=null or model.n_states=null"):
        checked(config)


def test_ratios_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ConfigError, match=r"= 1.1: must sum to 1"):
        checked(with_setting("split.test", 0.25))


@pytest.mark.parametrize(
    ("dotted", "value"),
    [("covariance.type", "tied"), ("covariance.type", "spherical"), ("model.engine", "hmmlearn")],
)
def test_student_t_states_are_refused_where_there_are_none(dotted, value):
    config = with_setting(dotted, value)
    checked(config)
    config.model.emission = "student_t"
    with pytest.raises(ConfigError, match=rf"^model.emission=student_t with \S+={value}: must be"):
        checked(config)


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
        "strategy",
    }


@pytest.mark.parametrize(
    ("dotted", "value", "says"),
    [
        ("decision.leave", 0.9, "decision.leave=0.9 and decision.enter=0.9: leave must be below"),
        ("decision.enter", 1.5, "decision.enter=1.5: must be above 0 and at most 1"),
        ("decision.enter", 1.0, "decision.enter=1.0: leave must be below enter, and enter below 1"),
        ("decision.leave", 0.0, "decision.leave=0.0: must be above 0 and at most 1"),
        ("decision.min_bars", 0, "decision.min_bars=0: must be at least 1"),
        ("decision.rule", "median", "must be one of argmax, hysteresis, min_bars"),
        ("split.train_end", "2021-01-01", "split.train_end=2021-01-01 with split=ratio: add"),
        ("selection.cv_blocks", 1, "must be 0, or at least 2 and at most 50"),
        ("model.state_grid", [], "must be one or more, each at least 1 and at most 50"),
        ("model.state_grid", [2, 51], "must be one or more, each at least 1 and at most 50"),
        ("compute.workers", 4, "compute.workers=4 is set with compute=serial"),
        ("registry.name", "a/b", "without / : ' ?"),
        ("registry.name", "..", "not . or .."),
        ("registry.name", "", "must be a name"),
        ("tracking.experiment", " ", "must be a name"),
    ],
)
def test_what_would_fail_or_be_ignored_later_is_refused_first(dotted, value, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        checked(with_setting(dotted, value))


def test_a_panel_on_ray_takes_the_number_of_its_workers():
    config = Config()
    config.compute.name, config.compute.workers = "ray", 320
    with pytest.raises(ConfigError, match=r"compute\.workers=320 is set with compute=ray"):
        checked(config)
    config.data.kind, config.data.path, config.data.bar_stamp = "panel", "lake/*.parquet", "open"
    assert checked(config).compute.workers == 320


def test_a_start_of_train_alone_is_refused():
    config = with_setting("split.kind", "walk_forward")
    config.split.train_start = "2021-01-01"
    with pytest.raises(ConfigError, match=r"needs split.train_end"):
        checked(config)


@pytest.mark.parametrize("dotted", ["data.name", "data.path", "tracking.uri", "data.volume_column"])
@pytest.mark.parametrize("sign", ["\n", "\x1b[31m", "\x7f", "\udcff", "\x85"])
def test_no_text_holds_characters_that_break_terminals_and_stores(dotted, sign):
    with pytest.raises(ConfigError, match=f"{dotted}=.*control characters or bytes that are not"):
        checked(with_setting(dotted, f"a{sign}b"))
    config = Config()
    config.features.exclude = ["a", f"a{sign}"]
    with pytest.raises(ConfigError, match=r"features\.exclude="):
        checked(config)


@given(st.text(max_size=20) | st.sampled_from(["x" * 256, "x" * 257, "x" * 5000]))
@example("..")
@example(".")
@example("..a")
@example("a/b")
@example(" a")
def test_a_name_that_passes_is_one_that_mlflow_takes(name):
    if name in RULES["registry.name"]:
        _validate_model_name(name)
    if name in RULES["tracking.experiment"]:
        _validate_experiment_name(name)
    if name and name == name.strip() and len(name) <= 256 and not set(name) & set("'?"):
        try:
            _validate_model_name(name)
        except MlflowException:
            assert name not in RULES["registry.name"]
        else:
            assert name in RULES["registry.name"]


def test_every_setting_says_what_it_takes():
    assert {name: kind_in_words(name) for name in flat(Config())}["model.tol"] == "a number"


def composed(*words: str) -> Config:
    """Settings of a single run as they are composed, or its complaint as a ConfigError."""
    assert hmm_exp.train
    try:
        with initialize_config_dir(str(conf_dir()), **OF_HYDRA):
            return checked(to_config(compose("config", hydra_words(list(words)))))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(composition_error(error)) from None


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("model.state_grid=[2,[3]]", "must be a list of whole numbers, such as [2,3,4,5]"),
        ("model.state_grid=[2,{a: 1}]", "must be a list of whole numbers, such as [2,3,4,5]"),
        ("features.exclude=[[a]]", "must be a list of texts, such as [a,b]"),
        ("timeframe.timeframes=[1H,[4H]]", "must be a list of texts, such as [a,b]"),
        ("model.n_states=[2]", "model.n_states=[2]: must be a whole number"),
        ("++model.n_states=two", "++model.n_states=two: must be a whole number"),
        ("model.n_states=1e400", "model.n_states=1e400: must be a whole number"),
        (
            "model.n_states=${data.kind}",
            "model.n_states: While dereferencing interpolation",
        ),
        ("data.gaps=[a]", "data.gaps=[a]: must be one of split, bridge"),
        ("quiet=null", "quiet=null: must be true or false"),
        ("registry=5", "registry=5: registry holds settings, such as registry.name"),
        ("++sweep=null", "++sweep=null: sweep holds settings"),
        ("features=", "unknown features '': one of columns, range, returns"),
        ("features=a/b", "unknown features 'a/b': one of columns, range, returns"),
        ("hydra/launcher=nope", "unknown hydra/launcher 'nope': one of basic"),
        ("data/path=x", "unknown setting data/path (did you mean data.path?)"),
        ("data.name=${nope}", "data.name: Interpolation key 'nope' not found"),
        ("data.name='${nope'", "data.name: an interpolation that cannot be read"),
        ("data.name=a,b", """a text with a comma is data.name='"a,b"'"""),
        ("model.n_states=2,3", "model.n_states=2,3: add -m to sweep over a list"),
        ("model.n_states=range(2,6)", "model.n_states=range(2,6): add -m to sweep"),
        ("hydra.mode=nonsense", "hydra.mode=nonsense: Invalid value"),
        ("+model.n_init=3", "An item is already at 'model.n_init'"),
        ("model.n_states=<", "model.n_states=<: must be a whole number"),
    ],
)
def test_what_hydra_refuses_names_the_word_and_what_it_takes(word, says):
    with pytest.raises(ConfigError) as error:
        composed(word)
    assert says in str(error.value)
    assert not re.search(r"mismatch|viable|token|EOF|Exception|full_key", str(error.value))


def test_interpolations_are_resolved_once_and_a_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    bars = ("data=bars", "data.bar_stamp=open")
    settings = composed(*bars, "data.path=~/b.csv", "data.name=x${model.n_init}")
    assert (settings.data.path, settings.data.name) == (f"{tmp_path}/b.csv", "x10")
    assert composed(*bars, r"data.path='\${x}, 60.csv'").data.path == "${x}, 60.csv"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("features=v2", "model.state_grid=[3,2]", "model.tol=1e-5", "tracking.uri=null"),
        ("data=bars", "data.path=b.csv", "data.bar_stamp=open", "data.name=x${model.n_init}"),
        ("split=walk_forward", "decision=hysteresis", "selection=next_return", "covariance=full"),
    ],
)
def test_typed_nodes_and_plain_ones_give_the_same_settings(words):
    with initialize_config_dir(str(conf_dir()), **OF_HYDRA):
        config = compose("config", hydra_words(list(words)))
    plain = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert OmegaConf.get_type(plain) is dict
    assert to_config(config) == to_config(plain)
