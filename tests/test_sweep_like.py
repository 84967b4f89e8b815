"""`split.like=<run>` gives a run or a sweep the exact split of a recorded run."""

import json

import pandas as pd
import pytest
from omegaconf import OmegaConf

from hmm_exp.config import Config, SplitConfig
from hmm_exp.errors import ConfigError, DataError, TrackingError
from hmm_exp.judge.split import make_split
from hmm_exp.sweep.like import resolve_like
from hmm_exp.tracking import tags
from tests.test_train_cli import SMALL, runs_of, store_of

HOURS = pd.date_range("2021-01-01 01:00", periods=2000, freq="h", tz="UTC")
NAMES = ("train_start", "train_end", "val_end")


@pytest.fixture(scope="module")
def split():
    return make_split(HOURS, SplitConfig())


@pytest.fixture(scope="module")
def recorded(store, split) -> str:
    """A run with a split, as every run records it."""
    run = store.client.create_run(store.experiment_id, tags={tags.KIND: "cell"})
    text = json.dumps({"split": split.to_dict()})
    store.client.log_text(run.info.run_id, text, "data_report.json")
    store.client.set_terminated(run.info.run_id)
    return run.info.run_id


def config_of(store, *words: str, **settings):
    """A composed config as Hydra hands it to the callback."""
    config = OmegaConf.structured(Config(split=SplitConfig(**settings)))
    config.tracking.uri = store.uri
    hydra = {"hydra": {"overrides": {"task": list(words)}}}
    return OmegaConf.merge(OmegaConf.create(OmegaConf.to_container(config)), hydra)


def resolved(config) -> SplitConfig:
    resolve_like(config)
    return SplitConfig(**config.split)


def test_the_instants_are_those_of_the_run_to_the_nanosecond(store, recorded, split):
    config = config_of(store, like=recorded[:8])
    settings = resolved(config)
    assert (settings.kind, settings.like) == ("dates", recorded)
    assert make_split(HOURS, settings) == split
    words = dict(word.split("=", 1) for word in config.hydra.overrides.task)
    assert set(words) == {"split.kind", "split.like", *(f"split.{name}" for name in NAMES)}


def test_a_walk_forward_keeps_its_kind(store, recorded, split):
    walk = make_split(HOURS, resolved(config_of(store, like=recorded, kind="walk_forward")))
    assert (walk.train_end, walk.val_end) == (split.train_end, split.val_end)
    assert len(walk.folds) > 0


def test_without_it_nothing_changes(store):
    config = config_of(store, "model.n_states=3")
    before = OmegaConf.to_yaml(config)
    resolve_like(config)
    assert OmegaConf.to_yaml(config) == before


def test_what_decides_the_same_is_refused(store, recorded):
    with pytest.raises(ConfigError, match=r"split\.val_end=2021-02-01 are both set"):
        resolve_like(config_of(store, like=recorded, val_end="2021-02-01"))
    for word in ("split=ratio,walk_forward", "split.kind=dates,walk_forward", "++split=a,b"):
        with pytest.raises(ConfigError, match="choose one kind of split"):
            resolve_like(config_of(store, word, like=recorded))


def test_a_run_without_a_split_is_refused_in_one_line(store):
    bare = store.client.create_run(store.experiment_id).info.run_id
    for like, says in (
        (bare, "no run of this id with a split"),
        ("f" * 32, "no run of this id with a split"),
        ("0" * 8, "no run 00000000"),
        ("abc", "at least 6 characters"),
    ):
        with pytest.raises(TrackingError, match=says) as refused:
            resolve_like(config_of(store, like=like))
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith(f"split.like={like}: ")


@pytest.mark.parametrize(
    ("time", "says"),
    [
        (HOURS[:700], "of split.like=.* is outside the data"),
        (HOURS + pd.Timedelta("30min"), "lies within a bar"),
        (HOURS[2::6], "lies within a bar"),
    ],
)
def test_bars_that_have_no_such_split_are_refused(store, recorded, time, says):
    settings = resolved(config_of(store, like=recorded))
    with pytest.raises(DataError, match=says):
        make_split(time, settings)


def test_a_bar_that_is_missing_at_the_split_is_no_reason_to_refuse(store, recorded, split):
    settings = resolved(config_of(store, like=recorded))
    assert make_split(HOURS.drop(split.train_end), settings) == split


@pytest.mark.slow
def test_a_sweep_takes_the_split_of_a_run_and_resumes(train_cli, workdir):
    done = train_cli(workdir, *SMALL)
    assert done.returncode == 0, done.stderr
    client = store_of(workdir)
    (first,) = runs_of(client, "cell")
    words = ("-m", *SMALL, "model.n_states=2,3", f"split.like={first.info.run_id[:6]}")
    done = train_cli(workdir, *words)
    assert done.returncode == 0, done.stderr
    (parent,) = runs_of(client, "sweep")
    cells = runs_of(client, "cell")[1:]
    assert len(cells) == 2
    for cell in cells:
        assert cell.data.tags[tags.OBSERVATION_SPACE] == first.data.tags[tags.OBSERVATION_SPACE]
        assert cell.data.params["split.kind"] == "dates"
        assert cell.data.params["split.like"] == first.info.run_id
    again = train_cli(workdir, *words, f"sweep_id={parent.data.tags[tags.SWEEP_ID][:17]}")
    assert (again.stdout + again.stderr).count("already fitted") == 2
    swept = train_cli(workdir, "-m", *SMALL, "split.like=abcdef,abcdee")
    assert swept.returncode == 2
    assert "must be one run for all cells" in swept.stderr
