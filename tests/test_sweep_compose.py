"""The cells of a sweep are those that Hydra composes; each choice of groups is composed once."""

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from hmm_exp import train
from hmm_exp.config import conf_dir
from hmm_exp.sweep.compose import CellLoader
from tests.conftest import OF_HYDRA

OF_PROGRAM = ["sweep_id=a-b", "sweep.varied=[features.window]", 'sweep.folder="/a b, c"']
CELLS = [
    ["model.n_states=2", "features=v1"],
    ["features=v2", "model.n_states=3"],
    ["experiment=btc_1h_v1", "model.state_grid=[2,3]", "model.n_states=null"],
    ["compute=joblib", "compute.workers=3", "data.path='${oc.env:HOME}/x'"],
    ["hydra.job.name=own", "+hydra.job.env_set.A=b", "features.window=30"],
    ["features=v2", "++model.n_states=3"],
    [
        "hydra.job.config.override_dirname.exclude_keys=[sweep_id]",
        "hydra.job.config.override_dirname.kv_sep='-'",
        "model.n_states=3",
        "features=v1",
    ],
]


@pytest.fixture
def loader():
    assert train  # whose import stores the schema
    with initialize_config_dir(str(conf_dir()), **OF_HYDRA):
        yield GlobalHydra.instance().config_loader()


def master_of(loader, *words):
    return loader.load_configuration("config", list(words), RunMode.MULTIRUN)


@pytest.mark.parametrize("words", CELLS, ids=" ".join)
def test_a_cell_equals_the_one_of_hydra(loader, words):
    hydra_words = [word for word in words if "hydra." in word]
    words = [word for word in words if word not in hydra_words] + OF_PROGRAM
    master = master_of(loader, "features=v1,v2", *hydra_words)
    assert master.hydra.sweep.dir  # the time in it is that of the sweep
    plain = loader.load_sweep_config(master, words)
    ours = CellLoader(loader.get_search_path())
    for _ in range(2):  # composed, and made from what was composed
        config = ours.load_sweep_config(master, words)
        assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(plain)
        assert config.hydra.sweep.dir == plain.hydra.sweep.dir == master.hydra.sweep.dir
        assert config._metadata.flags == plain._metadata.flags
        with pytest.raises(Exception, match="not in"):
            config.model.unknown = 1


def test_a_cell_changes_no_other(loader):
    master, ours = master_of(loader), CellLoader(loader.get_search_path())
    ours.load_sweep_config(master, ["features=v1", "model.n_states=7"]).features.window = 99
    other = ours.load_sweep_config(master, ["features=v1"])
    assert (other.model.n_states, other.features.window) != (7, 99)
    assert other.hydra.overrides.task == ["features=v1"]


def test_a_bad_value_is_hydras_error(loader):
    ours = CellLoader(loader.get_search_path())
    with pytest.raises(ConfigCompositionException, match=r"Error merging override model\.n_states"):
        ours.load_sweep_config(master_of(loader), ["features=v1", "model.n_states=many"])


def test_each_choice_of_groups_is_composed_once(loader, monkeypatch):
    composed = []
    load = ConfigLoaderImpl.load_sweep_config

    def counted(self, master_config, sweep_overrides):
        composed.append(sweep_overrides)
        return load(self, master_config, sweep_overrides)

    master, ours = master_of(loader, "hydra.job.name=count"), CellLoader(loader.get_search_path())
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    for features in ("v1", "v2"):
        for n_states in range(2, 6):
            ours.load_sweep_config(master, [f"model.n_states={n_states}", f"features={features}"])
    assert composed == [["features=v1"], ["features=v2"]]
