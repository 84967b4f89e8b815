"""Which cell of a sweep wins: by train and validation, whatever test says."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from hmm_exp.tracking import tags
from hmm_exp.tracking.leaderboard import choose, common_scores
from tests.small_detector import forget_store, shown_scores, store_in

CELLS = {"a2": ("a", 10.0), "a3": ("a", 5.0), "b2": ("b", 900.0)}  # space and BIC


@pytest.fixture(scope="module")
def store(tmp_path_factory, empty_store):
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    yield store_in(folder)
    forget_store()


def sweep(store, sweep_id: str, **bonus: dict[str, float]) -> str:
    """Three cells that score alike, but for a bonus by cell and part; gives the winner's name."""
    names = {}
    for name, (space, bic) in CELLS.items():
        told = {
            tags.SWEEP_ID: sweep_id,
            tags.KIND: "cell",
            tags.CELL: name,
            tags.OBSERVATION_SPACE: space,
            tags.DATA_DIGEST: "same",
        }
        run_id = store.client.create_run(store.experiment_id, tags=told).info.run_id
        settings = {
            "split.kind": "ratio",
            "selection.within": "bic",
            "selection.near_tie": 2.0,
            "selection.across": "return_gain_val",
        }
        for key, value in settings.items():
            store.client.log_param(run_id, key, value)
        scores = shown_scores()
        for part, more in bonus.get(name, {}).items():
            scores.loc[scores["split"] == part, "model_score"] += more
            store.client.log_metric(run_id, f"return_gain_{part}", more)
            store.client.log_metric(run_id, f"log_lik_{part}_per_bar", more)
        store.client.log_metric(run_id, "bic", bic)
        with tempfile.TemporaryDirectory() as folder:
            scores.to_parquet(Path(folder) / "scores.parquet")
            store.client.log_artifacts(run_id, folder)
        store.client.set_terminated(run_id)
        names[run_id] = name
    return names[choose(store.client, sweep_id).run_id]


def test_the_choice_reads_validation_and_never_test(store):
    ahead = {"b2": {"val": 0.01}}
    assert sweep(store, "alone", **ahead) == "b2"
    assert sweep(store, "wonder", **ahead, a3={"test": 5.0}) == "b2"
    assert sweep(store, "both", b2={"val": 0.01, "test": -5.0}, a2={"test": 5.0}) == "b2"
    assert sweep(store, "beaten", **ahead, a3={"val": 0.02}) == "a3"


def test_only_bars_that_all_score_are_compared():
    first, second = (shown_scores().set_index("available_at") for _ in range(2))
    first.iloc[:10, first.columns.get_loc("model_score")] = None
    common = common_scores([first, second.iloc[:-5]], "return_gain_val")
    assert list(common.index) == list(first.index[10:-5])
    by_hand = second["model_score"] - second["static_score"]
    np.testing.assert_array_equal(common.iloc[:, 1], by_hand[10:-5])
