"""The verdict in two sentences: how many regimes, and whether to believe them."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmm_exp.judge.unscored import FORECASTS
from hmm_exp.sweep.verdict import (
    BASELINES,
    StatesTried,
    belief,
    headline,
    states_tried,
    verdict_lines,
)
from hmm_exp.tracking import tags
from tests.test_sweep_luck import COMPLETE_PARAMS, COMPLETE_TAGS

N_BARS = 800


def cell(store, n_states: int, score: float, *, noise: int = 0, metrics=None, **more: str):
    """A cell with the scores of N_BARS validation bars around a mean; test is a wonder."""
    identity = {tags.CELL: f"v1 K={n_states}", **COMPLETE_TAGS, **more}
    run_id = store.client.create_run(store.experiment_id, tags=identity).info.run_id
    for param, value in COMPLETE_PARAMS.items():
        store.client.log_param(run_id, param, value)
    known = {"n_states": n_states, "n_params": 1, "bic": 1, "return_score_val": score}
    for name, value in (known | (metrics or {})).items():
        store.client.log_metric(run_id, name, value)
    wobble = np.random.default_rng(noise).normal(0.0, 0.3, N_BARS)
    scores = pd.DataFrame(
        {
            "available_at": pd.date_range("2021-01-01", periods=N_BARS + 50, freq="h"),
            "split": ["val"] * N_BARS + ["test"] * 50,
            "model_score": np.r_[score + wobble - wobble.mean(), np.full(50, 99.0 * n_states)],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        scores.to_parquet(Path(folder) / "scores.parquet")
        store.client.log_artifacts(run_id, folder)
    store.client.set_terminated(run_id)
    return store.client.get_run(run_id)


def opening(store, winner, cells) -> str:
    return headline(states_tried(store.client, winner, cells), "best model M")


@pytest.fixture(scope="module")
def cells(store):
    """Two states forecast worse than three to five, which forecast about equally."""
    means = {2: 1.0, 3: 1.2, 4: 1.201, 5: 1.199}
    return {n: cell(store, n, mean, noise=n) for n, mean in means.items()}


def test_a_winner_at_the_edge_is_not_sold_as_a_number_of_regimes(store, cells):
    assert opening(store, cells[5], [*cells.values()]) == (
        "Five regimes, best model M: at most five tried; three to five forecast about equally"
    )


def test_a_winner_inside_the_grid_names_the_numbers_that_forecast_equally(store, cells):
    assert opening(store, cells[3], [*cells.values()]) == (
        "Three regimes, best model M: three to five forecast about equally"
    )
    assert opening(store, cells[4], [cells[2], cells[4], cells[5]]) == (
        "Four regimes, best model M: four and five forecast about equally"
    )


def test_a_number_that_forecasts_better_than_the_winner_is_named(store, cells):
    assert opening(store, cells[2], [cells[2], cells[3]]) == (
        "Two regimes, best model M: three forecasts better"
    )


def test_a_clear_winner_at_the_edge_is_still_at_the_edge(store, cells):
    assert opening(store, cells[3], [cells[2], cells[3]]) == (
        "Three regimes, best model M: at most three tried"
    )
    assert opening(store, cells[3], [cells[3]]) == "Three regimes, best model M: only three tried"


@pytest.mark.parametrize(
    ("tried", "elsewhere", "end"),
    [
        ({3}, {2, 3, 4}, "only three tried with its features"),
        ({2, 3}, {2, 3}, "at most three tried"),
        ({2, 3}, {4}, "at most three tried with its features"),
        ({3, 4}, {2}, "at least three tried with its features"),
    ],
)
def test_other_spaces_may_have_tried_other_numbers(tried, elsewhere, end):
    states = StatesTried(3, frozenset(tried), elsewhere=frozenset(elsewhere))
    assert headline(states, "M") == f"Three regimes, M: {end}"


def test_numbers_that_another_space_tried_are_known(store, cells):
    other = cell(store, 5, 1.2, noise=6, **{tags.OBSERVATION_SPACE: "another"})
    found = states_tried(store.client, cells[3], [cells[2], cells[3], other])
    assert (found.tried, found.elsewhere) == ({2, 3}, {5})


def test_cells_that_cannot_be_promoted_do_not_count_as_equal_but_were_tried(store, cells):
    faulty = cell(store, 6, 1.2, noise=6, **{tags.FAULTS: "not converged"})
    elsewhere = cell(store, 7, 1.2, noise=7, **{tags.OBSERVATION_SPACE: "v2"})
    shown = opening(store, cells[3], [cells[2], cells[3], faulty, elsewhere])
    assert shown == "Three regimes, best model M"


def test_a_grid_inside_one_run_counts_as_tried(store):
    criteria = json.dumps([{"n_states": n, "bic": 1.0} for n in (1, 2, 3)])
    run = cell(store, 3, 1.0, **{tags.CRITERIA_BY_STATES: criteria})
    assert opening(store, run, [run]) == "Three regimes, best model M: at most three tried"


@pytest.mark.parametrize(
    ("chosen", "tried", "text"),
    [
        (4, {4, 5, 6}, "Four regimes, M: at least four tried"),
        (2, {2, 3}, "Two regimes, M"),  # one state is beside every cell
        (1, {1}, "One regime, M"),
        (12, {11, 12}, "12 regimes, M: at most 12 tried"),
    ],
)
def test_the_lower_edge_counts_above_two_states(chosen, tried, text):
    assert headline(StatesTried(chosen, frozenset(tried)), "M") == text


def gains(**ends: tuple[float, float]) -> dict[str, float]:
    """Metrics of gains on test with these intervals."""
    return {
        f"{name}_gain_test{end}": value
        for name, (low, high) in ends.items()
        for end, value in {
            "": 0.5 * (low + high),
            "_low": low,
            "_bound": low,
            "_high": high,
        }.items()
    }


GOOD, EVEN, BAD = (0.01, 0.03), (-0.01, 0.02), (-0.05, -0.01)


def believed(store, sweep=None, n_states: int = 2, **ends) -> str:
    run = cell(store, n_states, 1.0, metrics=gains(**ends))
    return belief(run, sweep or {})


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "return"])
@pytest.mark.parametrize(
    ("interval", "words", "figure"),
    [
        (GOOD, "", "(+0.0200, +0.0100 to +0.0300)"),
        (EVEN, ", but about as well as {}", "(+0.0050, -0.0100 to +0.0200)"),
        (BAD, ", but worse than {}", "(-0.0300, -0.0500 to -0.0100)"),
    ],
)
def test_better_as_well_and_worse_are_three_sentences_for_every_baseline(
    store, name, interval, words, figure
):
    ends = {"return": GOOD, "ewma": GOOD} | {name: interval}
    shown = believed(store, **ends)
    over = FORECASTS[BASELINES[name]]
    assert f"{over} {figure}" in shown
    assert shown.startswith("Yes: " if interval == GOOD else "In part: ")
    if interval != GOOD:
        assert words.format(over) in shown
    else:
        assert "worse" not in shown
        assert "as well" not in shown


@pytest.mark.parametrize(("interval", "words"), [(EVEN, "about as well as"), (BAD, "worse than")])
def test_a_model_that_is_not_better_than_one_density_is_not_believed(store, interval, words):
    shown = believed(store, **{"return": interval, "ewma": GOOD})
    assert shown.startswith("No: on test it forecasts the next bar better than the EWMA Student-t")
    assert f", but {words} the static Student-t" in shown


def test_the_best_of_many_worthless_cells_is_not_believed(store):
    sweep = {"n_cells_tried": 40.0, "reality_check_p_white": 0.31}
    shown = believed(store, sweep, **{"return": GOOD, "ewma": GOOD})
    assert shown == "No: the best of 40 cells may be luck (p = 0.310)"


def test_nothing_is_claimed_without_a_measure(store):
    assert believed(store).startswith("Cannot say: fewer than 100 test bars")
    shown = believed(store, **{"return": GOOD})
    assert shown.startswith("In part: on test")
    assert shown.endswith("; fewer than 100 test bars are scored")
    assert believed(store, n_states=1, **{"return": GOOD}).startswith("No: a model with one state")


def test_the_terminal_gets_both_sentences(store, cells):
    opening, shown = verdict_lines(store.client, cells[5], [*cells.values()], {})
    assert opening.startswith("Five regimes, best model v1 K=5: at most five tried; three to")
    assert shown.startswith("believe it? Cannot say: ")
