"""Under the leaderboard: the winner's gain, how many were tried, White's reality check."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmm_exp.sweep.luck import weigh_choice, write_luck
from hmm_exp.tracking import tags

COMPLETE_TAGS = {tags.OBSERVATION_SPACE: "v1", tags.DATA_DIGEST: "digest"}
COMPLETE_PARAMS = {
    "split.kind": "ratio",
    "selection.within": "bic",
    "selection.rule": "lowest",
    "selection.near_tie": "2",
    "selection.elbow": "0.05",
    "selection.across": "return_gain_val",
}


def cell(
    store,
    name: str,
    gain: np.ndarray | None,
    *,
    status="FINISHED",
    grid=None,
    first=0,
    **more: str,
):
    """A cell whose validation gains are given; on test it is a wonder."""
    store_tags = {tags.CELL: name, tags.FINGERPRINT: name, **COMPLETE_TAGS, **more}
    run_id = store.client.create_run(store.experiment_id, tags=store_tags).info.run_id
    for param, value in COMPLETE_PARAMS.items():
        store.client.log_param(run_id, param, value)
    for metric in ("n_states", "n_params", "bic"):
        store.client.log_metric(run_id, metric, 2)
    if grid:
        store.client.log_param(run_id, "model.state_grid", grid)
    if gain is not None:
        n = len(gain)
        model = np.r_[np.zeros(50), gain, np.full(50, 9.0)]
        model[:first] = np.nan
        scores = pd.DataFrame(
            {
                "available_at": pd.date_range("2021-01-01", periods=n + 100, freq="h"),
                "split": ["train"] * 50 + ["val"] * n + ["test"] * 50,
                "model_score": model,
                "static_score": 0.0,
                "ewma_score": 0.0,
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            scores.to_parquet(Path(folder) / "scores.parquet")
            store.client.log_artifacts(run_id, folder)
    store.client.set_terminated(run_id, status)
    return store.client.get_run(run_id)


def noise(seed: int, mean: float = 0.0, n: int = 800) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(0.0, 0.3, n)
    return drawn - drawn.mean() + mean


@pytest.fixture(scope="module")
def cells(store):
    """A good cell, two worthless ones, one that failed and one without scores."""
    return [
        cell(store, "good", noise(0, 0.1), grid="[2, 3, 4]"),
        cell(store, "poor", noise(1)),
        cell(store, "late", noise(2), first=150),
        cell(store, "failed", None, status="FAILED"),
        cell(store, "silent", None),
    ]


def test_a_true_gain_is_told_from_luck(store, cells):
    luck = weigh_choice(store.client, cells, cells[0].info.run_id)
    assert (luck.n_tried, luck.n_models, luck.best) == (5, 6, "good")
    assert luck.winner.mean == pytest.approx(0.1)
    assert luck.winner.low < 0.1 < luck.winner.high
    assert (luck.check.n_cells, luck.check.n_bars) == (3, 700)
    assert luck.check.p_white < 0.01
    tried, gain, check = luck.lines
    assert tried == "cells tried: 5, 6 models"
    assert gain.startswith(
        "winner's gain over the static Student-t on 800 validation bars: +0.1000 nats per bar, "
        "95 % interval +0.0"
    )
    assert check.startswith("reality check: the best of 3 scored cells, good (the winner), is as ")


def check_line(store, cells, winner) -> str:
    return weigh_choice(store.client, cells, winner and winner.info.run_id).lines[-1]


def test_the_best_scored_cell_is_named_with_its_part_in_the_choice(store, cells):
    faulty = cell(store, "faulty", noise(3, 0.2), **{tags.FAULTS: "not converged"})
    good, poor = cells[:2]
    assert ", good (the winner), is as good by luck" in check_line(store, cells, good)
    assert ", good (not the winner), is as good by luck" in check_line(store, cells, poor)
    assert ", good (not the winner), is as good by luck" in check_line(store, cells, None)
    assert ", faulty (ineligible), is as good by luck" in check_line(store, [*cells, faulty], good)


def test_a_winner_that_equals_the_best_scored_cell_is_the_best(store):
    twins = [cell(store, name, noise(0, 0.1)) for name in ("one", "other")]
    for twin, name in zip(twins, ("one", "other"), strict=True):
        assert f", {name} (the winner), is as good by luck" in check_line(store, twins, twin)


def test_a_gain_of_zero_has_no_sign(store):
    nothing = cell(store, "nothing", np.zeros(800))
    assert "validation bars: 0.0000 nats per bar, 95 % interval 0.0000 to 0.0000" in "".join(
        weigh_choice(store.client, [nothing], nothing.info.run_id).lines
    )


def test_worthless_cells_look_like_luck(store, cells):
    luck = weigh_choice(store.client, cells[1:], cells[1].info.run_id)
    assert luck.check.p_white > 0.2
    assert luck.winner.bound < 0.0


def test_a_cell_that_was_tried_again_counts_once(store, cells):
    again = cell(store, "good", noise(0, 0.1))
    assert weigh_choice(store.client, [*cells, again], None).n_tried == len(cells)


def test_a_sweep_without_scores_says_how_many_were_tried(store, cells):
    luck = weigh_choice(store.client, cells[3:], None)
    assert (luck.winner, luck.check) == (None, None)
    assert luck.lines == [
        "cells tried: 2; no reality check: fewer than 100 validation bars are scored by every cell"
    ]
    assert weigh_choice(store.client, [], None).n_tried == 0


def test_a_sweep_without_returns_says_why_no_gain_can_be_weighed(store):
    silent = cell(store, "no returns", None)
    store.client.set_tag(silent.info.run_id, tags.UNSCORED, json.dumps({"return": "no column"}))
    luck = weigh_choice(store.client, [store.client.get_run(silent.info.run_id)], None)
    assert luck.lines == ["cells tried: 1; no reality check: no column"]


def test_a_cell_without_densities_takes_no_part_in_the_check(store, cells):
    none = cell(store, "none", np.full(800, np.nan))
    with_it, without = (weigh_choice(store.client, c, None) for c in ([*cells, none], cells))
    assert with_it.check == without.check


def test_the_parent_run_holds_the_figures(store, cells):
    luck = weigh_choice(store.client, cells, cells[0].info.run_id)
    parent = store.client.create_run(store.experiment_id).info.run_id
    write_luck(store.client, parent, luck)
    metrics = store.client.get_run(parent).data.metrics
    assert metrics == pytest.approx(luck.metrics)
    assert metrics["n_cells_tried"] == 5
    assert metrics["reality_check_p_white"] == luck.check.p_white
    assert metrics["winner_gain_val"] == pytest.approx(0.1)
    assert {"winner_gain_val_low", "winner_gain_val_high", "reality_check_p_spa"} <= set(metrics)
