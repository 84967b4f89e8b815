"""The data of a run as MLflow's own input."""

from concurrent.futures import ThreadPoolExecutor

import mlflow.data
import pytest
from mlflow.entities import RunInputs

from hmm_exp.config import Config, DataConfig
from hmm_exp.tracking import tags
from hmm_exp.tracking.dataset import log_dataset
from tests.small_detector import forget_store, store_in

ABOUT = {tags.INSTRUMENT: "dax", tags.DATA_DIGEST: "0a591a345d786809"}


@pytest.fixture
def store(workdir):
    yield store_in(workdir)
    forget_store()


def logged(store, settings: Config, about: dict[str, str]) -> RunInputs:
    run_id = store.client.create_run(store.experiment_id).info.run_id
    log_dataset(store.client, run_id, settings, about)
    return store.client.get_run(run_id).inputs


def test_a_file_is_a_dataset_with_name_digest_and_path(store):
    settings = Config(data=DataConfig(kind="bars", path="quotes/DAX, 1D.csv", bar_stamp="open"))
    (found,) = logged(store, settings, ABOUT).dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("dax", ABOUT[tags.DATA_DIGEST])
    source = mlflow.data.get_source(found.dataset)
    assert source.uri == "quotes/DAX, 1D.csv"
    assert [tag.key for tag in found.tags] == ["mlflow.data.context"]


def test_a_planted_market_is_what_makes_it(store):
    settings = Config(data=DataConfig(seed=11))
    (found,) = logged(store, settings, ABOUT | {tags.INSTRUMENT: "synthetic"}).dataset_inputs
    made = mlflow.data.get_source(found.dataset).to_dict()["tags"]
    assert made["seed"] == 11
    assert made["generator"].endswith("make_market")


def test_data_that_was_not_read_is_no_dataset(store):
    assert not logged(store, Config(), {}).dataset_inputs


def test_cells_that_make_the_same_dataset_at_once_all_have_it(store):
    settings = Config(data=DataConfig(kind="bars", path="a.csv", bar_stamp="open"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: logged(store, settings, ABOUT), range(24)))
    assert {inputs.dataset_inputs[0].dataset.digest for inputs in found} == {
        ABOUT[tags.DATA_DIGEST]
    }
