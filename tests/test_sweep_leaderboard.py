"""Who wins a sweep, on a store whose cells are made up: train and validation alone decide."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from hmm_exp.errors import TrackingError
from hmm_exp.figures.palette import INK
from hmm_exp.figures.search import bic_by_space
from hmm_exp.report import charts
from hmm_exp.sweep.leaderboard import choose, common_scores, criteria_by_states, leaderboard
from hmm_exp.sweep.luck import missing_scores, shortfalls
from hmm_exp.tracking import tags
from hmm_exp.tracking.runs import latest_sweep_id, sweep_cells
from tests.small_detector import shown_scores

SETTINGS = {
    "selection.within": "bic",
    "selection.rule": "lowest",
    "selection.near_tie": "2.0",
    "selection.elbow": "0.05",
    "selection.across": "return_gain_val",
    "split.kind": "ratio",
}


class Sweep:
    """A sweep to which cells are added by hand."""

    def __init__(self, store, sweep_id: str, **settings: str) -> None:
        self.store, self.sweep_id = store, sweep_id
        self.settings = SETTINGS | {f"selection.{k}": v for k, v in settings.items()}

    def add(
        self,
        n_states: int,
        bic: float,
        *,
        space="v1",
        faults="",
        gain=None,
        unscored=None,
        **metrics: float,
    ):
        """A finished cell; with `gain` also its scores on four validation bars."""
        identity = {
            tags.SWEEP_ID: self.sweep_id,
            tags.KIND: "cell",
            tags.CELL: f"{space} K={n_states}",
            tags.OBSERVATION_SPACE: space,
            tags.DATA_DIGEST: "d",
        } | ({tags.FAULTS: faults} if faults else {})
        if unscored:
            identity[tags.UNSCORED] = json.dumps(unscored)
        client = self.store.client
        run_id = client.create_run(self.store.experiment_id, tags=identity).info.run_id
        for name, value in self.settings.items():
            client.log_param(run_id, name, value)
        known = {"n_states": n_states, "n_params": 10 * n_states, "bic": bic} | metrics
        known |= {} if gain is None else {"return_gain_val": gain}
        for name, value in known.items():
            client.log_metric(run_id, name, value)
        if gain is not None:
            self._scores(run_id, gain)
        client.set_terminated(run_id)
        return run_id

    def _scores(self, run_id: str, gain: float) -> None:
        scores = pd.DataFrame(
            {
                "available_at": pd.date_range("2021-01-01", periods=8, freq="h"),
                "split": ["val"] * 4 + ["test"] * 4,
                "model_score": np.r_[np.full(4, gain), np.full(4, -100.0 * gain)],
                "static_score": 0.0,
                "ewma_score": 0.0,
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            scores.to_parquet(Path(folder) / "scores.parquet")
            self.store.client.log_artifacts(run_id, folder)

    def choice(self):
        return choose(self.store.client, self.sweep_id)


def test_the_latest_sweep_is_none_of_the_future_unless_there_is_no_other(store):
    now = 1_700_000_000.0  # before every sweep that another test may start

    def started(name: str, after: float) -> None:
        about = {tags.KIND: "sweep", tags.SWEEP_ID: name}
        begun = int(1000 * (now + after))
        store.client.create_run(store.experiment_id, start_time=begun, tags=about)

    with pytest.raises(TrackingError, match="holds no sweep yet"):
        latest_sweep_id(store.client)
    started("in a year", 365 * 86_400.0)
    assert latest_sweep_id(store.client, now) == "in a year"
    started("an hour ago", -3600.0)
    started("a day ago", -86_400.0)  # by a clock that went back
    assert latest_sweep_id(store.client, now) == "an hour ago"
    started("on a machine that is ahead", 30.0)
    assert latest_sweep_id(store.client, now) == "on a machine that is ahead"
    assert latest_sweep_id(store.client, now + 366 * 86_400.0) == "in a year"


def test_the_lowest_criterion_wins_and_says_by_how_much(store):
    sweep = Sweep(store, "lowest")
    sweep.add(2, 900.0)
    best = sweep.add(3, 700.0)
    sweep.add(4, 750.0)
    choice = sweep.choice()
    assert choice.run_id == best
    assert choice.reasons == [
        "v1 K=3 is the best cell of space v1: lowest BIC of 3 cells, 700.0, 50.0 below the next"
    ]


def test_larger_cells_that_were_refused_are_named_with_their_distance(store):
    sweep = Sweep(store, "refused")
    sweep.add(2, 900.0)
    sweep.add(3, 700.0)
    sweep.add(4, 763.2, faults="not converged: the cap was reached; state 1 is small")
    sweep.add(5, 650.0, faults="state 0 is expected to last 1.07 rows (least 2.5)")
    sweep.add(6, 100.0, faults="a fault", space="v2")
    assert (
        sweep.choice()
        .reasons[0]
        .endswith(
            "200.0 below the next; K=4: BIC 63 higher, not converged, "
            "K=5: BIC 50 lower, state 0 is expected to last 1.07 rows (least 2.5)"
        )
    )


def test_a_refused_cell_with_fewer_states_is_no_edge(store):
    sweep = Sweep(store, "smaller")
    sweep.add(2, 500.0, faults="not converged: the cap was reached")
    sweep.add(3, 700.0)
    assert sweep.choice().reasons == ["v1 K=3 is the only eligible cell of space v1"]


def test_another_choice_by_the_next_return_is_named_with_its_command(store):
    sweep = Sweep(store, "doubt")
    smaller = sweep.add(2, 900.0, bic_next=-50.0)
    sweep.add(3, 700.0, bic_next=-40.0)
    sweep.add(4, 800.0, bic_next=-90.0, faults="a fault")
    assert (
        sweep.choice()
        .reasons[0]
        .endswith(
            f"; selection=next_return would choose K=2, which hmm-promote --run {smaller} promotes"
        )
    )


def test_the_next_return_decides_where_it_is_asked_to(store):
    sweep = Sweep(store, "by the next return", within="bic_next")
    best = sweep.add(2, 900.0, bic_next=-50.0)
    sweep.add(3, 700.0, bic_next=-40.0)
    assert sweep.choice().run_id == best
    assert (
        sweep.choice().reasons[0].endswith("lowest BIC_NEXT of 2 cells, -50.0, 10.0 below the next")
    )


def test_a_space_of_repeated_values_says_that_bic_cannot_choose(store):
    sweep = Sweep(store, "repeats")
    for n_states in (2, 3):
        run_id = sweep.add(n_states, 900.0 - n_states)
        store.client.set_tag(run_id, tags.BIC_DOUBT, "BIC cannot choose here")
    assert "; BIC cannot choose here" in sweep.choice().reasons[0]


def test_a_winner_at_the_edge_of_the_grid_is_named_as_such(store):
    sweep = Sweep(store, "edge")
    sweep.add(2, 900.0)
    sweep.add(3, 700.0)
    assert sweep.choice().reasons[0].endswith("; no cell tried more states")


def test_an_ineligible_cell_is_passed_over(store):
    sweep = Sweep(store, "faults")
    sweep.add(3, 700.0, faults="state 0 is empty")
    best = sweep.add(2, 900.0)
    assert sweep.choice().run_id == best
    none = Sweep(store, "none")
    none.add(3, 700.0, faults="state 0 is empty")
    assert none.choice().run_id is None
    (reason,) = none.choice().reasons
    assert reason.startswith("none of the 1 finished cells is eligible: ")


def test_near_ties_go_by_validation_and_never_by_test(store):
    sweep = Sweep(store, "tie")
    sweep.add(2, 700.0, log_lik_val_per_bar=-2.0, log_lik_test_per_bar=5.0, return_gain_test=9.0)
    best = sweep.add(3, 701.0, log_lik_val_per_bar=-1.0, log_lik_test_per_bar=-5.0)
    choice = sweep.choice()
    assert choice.run_id == best
    assert "BIC within 2 of the lowest of 2 cells, and a higher validation" in choice.reasons[0]


def test_the_choice_reads_no_baseline_but_its_own(store):
    sweep = Sweep(store, "baselines")
    best = sweep.add(2, 700.0)
    stronger = ("range_ewma_gain", "ewma_hour_gain", "range_ewma_hour_gain", "added_gain")
    sweep.add(3, 710.0, **{f"{name}_val": 9.0 for name in stronger})
    assert sweep.choice().run_id == best


def test_the_rule_of_a_sweep_is_that_of_a_run(store):
    sweep = Sweep(store, "one_se", within="cv", rule="one_se")
    best = sweep.add(2, 0.0, cv=305.0, cv_error=9.0)
    sweep.add(3, 0.0, cv=300.0, cv_error=9.0)
    assert sweep.choice().run_id == best
    assert "fewest parameters within one error of the lowest CV of 2" in sweep.choice().reasons[0]
    elbow = Sweep(store, "elbow", rule="elbow")
    best = elbow.add(2, 300.0)
    elbow.add(3, 299.0)
    elbow.add(4, 100.0)
    assert "the elbow of BIC over 3 cells" in elbow.choice().reasons[0]


def test_between_spaces_the_gain_on_validation_decides_whatever_bic_and_test_say(store):
    sweep = Sweep(store, "spaces")
    best = sweep.add(2, 900.0, gain=0.2)
    sweep.add(2, 100.0, space="v2", gain=0.1)  # on test its gain is the better one
    choice = sweep.choice()
    assert choice.run_id == best
    assert "return_gain_val +0.2000 nats per bar, 0.1000 above the next" in choice.reasons[-1]


def test_equal_cells_are_equal_and_not_a_rounded_zero_apart(store):
    spaces = Sweep(store, "equal spaces")
    spaces.add(2, 900.0, gain=0.2)
    spaces.add(2, 100.0, space="v2", gain=0.19998)
    assert "+0.2000 nats per bar, equal to the next, on 4" in spaces.choice().reasons[-1]
    walks = Sweep(store, "equal walks")
    walks.settings["split.kind"] = "walk_forward"
    for n_states in (2, 3):
        walks.add(n_states, 0.0, gain=0.0)
    assert walks.choice().reasons[-1].endswith("0.0000 nats per bar, equal to the next")
    assert "+0.0000" not in walks.choice().reasons[-1]
    criteria = Sweep(store, "equal criteria")
    criteria.add(2, 700.0)
    criteria.add(3, 700.0, faults="not converged")
    criteria.add(2, 700.01)
    assert (
        criteria.choice()
        .reasons[0]
        .endswith("lowest BIC of 2 cells, 700.0, equal to the next; K=3: BIC equal, not converged")
    )


NO_FIT = {"model": "8 returns are too few"}


def test_a_space_without_a_score_takes_no_part_in_the_choice_and_says_why(store):
    sweep = Sweep(store, "silent")
    best = sweep.add(2, 900.0, gain=0.2)
    sweep.add(2, 100.0, space="v2", unscored=NO_FIT)
    choice = sweep.choice()
    assert choice.run_id == best
    assert choice.reasons[1:] == [
        "v2 K=2 cannot compete between spaces: the state densities cannot be fitted: 8 returns "
        "are too few",
        "v1 K=2 wins: only its space of 2 has a scored cell",
    ]


def test_a_cell_without_a_score_makes_way_for_the_next_of_its_space(store):
    sweep = Sweep(store, "next")
    sweep.add(2, 900.0, gain=0.1)
    sweep.add(4, 100.0, space="v2", unscored=NO_FIT)
    best = sweep.add(3, 300.0, space="v2", gain=0.2)
    sweep.add(2, 500.0, space="v2", gain=0.9)
    choice = sweep.choice()
    assert choice.run_id == best
    assert choice.reasons[2].startswith("v2 K=4 cannot compete between spaces: the state")
    assert choice.reasons[-1].startswith("v2 K=3 wins across 2 spaces: return_gain_val +0.2000")


def test_spaces_of_which_none_has_a_score_leave_no_choice(store):
    sweep = Sweep(store, "mute")
    sweep.add(2, 900.0, unscored={"return": "no column"})
    sweep.add(2, 100.0, space="v2")
    choice = sweep.choice()
    assert choice.run_id is None
    assert choice.reasons == [
        "v1 K=2 cannot compete between spaces: no column",
        "v2 K=2 cannot compete between spaces: no validation bar is scored",
        "no winner: none of 2 spaces has a scored cell",
    ]


def test_inside_one_space_a_cell_without_a_score_can_win(store):
    sweep = Sweep(store, "alone")
    sweep.add(2, 900.0, gain=0.1)
    best = sweep.add(3, 100.0, unscored=NO_FIT)
    assert sweep.choice().run_id == best


def test_a_walk_without_a_score_is_ranked_behind_those_that_have_one(store):
    sweep = Sweep(store, "walks")
    sweep.settings |= {"split.kind": "walk_forward"}
    sweep.add(4, 0.0, unscored=NO_FIT, log_lik_val_per_bar=9.0)
    best = sweep.add(3, 0.0, gain=-0.1, log_lik_val_per_bar=1.0)
    choice = sweep.choice()
    assert choice.run_id == best
    assert "return_gain_val of 1 walk in space v1: -0.1000 nats per bar" in choice.reasons[0]
    assert list(leaderboard(sweep_cells(store.client, "walks"))["K"]) == [3, 4]


def test_walks_without_any_score_are_ranked_by_likelihood(store):
    sweep = Sweep(store, "mute walks")
    sweep.settings |= {"split.kind": "walk_forward"}
    sweep.add(2, 0.0, unscored=NO_FIT, log_lik_val_per_bar=1.0)
    best = sweep.add(3, 0.0, unscored=NO_FIT, log_lik_val_per_bar=2.5)
    choice = sweep.choice()
    assert choice.run_id == best
    assert "log_lik_val_per_bar of 2 walks in space v1: +2.5000 nats" in choice.reasons[0]
    assert list(leaderboard(sweep_cells(store.client, "mute walks"))["K"]) == [3, 2]


def test_missing_scores_are_marked_in_the_table_and_explained_under_it(store):
    sweep = Sweep(store, "marks")
    sweep.add(2, 100.0, gain=0.1)
    sweep.add(3, 200.0, unscored=NO_FIT | {"ewma": "flat"}, residuals_reject=1.0)
    sweep.add(4, 300.0, unscored=NO_FIT)
    cells = sweep_cells(store.client, "marks")
    assert list(leaderboard(cells)["eligible"]) == [
        "yes",
        "yes, residuals reject, no score of model, ewma",
        "yes, no score of model",
    ]
    assert missing_scores(cells) == [
        "2 of 3 cells, such as v1 K=3: the state densities cannot be fitted: 8 returns are too few",
        "v1 K=3: the EWMA Student-t cannot be fitted: flat",
    ]
    assert missing_scores(cells[:1]) == []


def test_residuals_that_reject_a_fit_are_marked_in_the_table(store):
    sweep = Sweep(store, "residuals")
    sweep.add(2, 900.0, residuals_reject=1.0)
    sweep.add(3, 800.0, residuals_reject=0.0)
    table = leaderboard(sweep_cells(store.client, "residuals"))
    assert list(table["eligible"]) == ["yes", "yes, residuals reject"]


def test_only_bars_that_all_score_are_compared():
    first, second = (shown_scores().set_index("available_at") for _ in range(2))
    first.iloc[:10, first.columns.get_loc("model_score")] = None
    common = common_scores([first, second.iloc[:-5]], "return_gain_val")
    assert list(common.index) == list(first.index[10:-5])
    by_hand = second["model_score"] - second["static_score"]
    np.testing.assert_array_equal(common.iloc[:, 1], by_hand[10:-5])


def test_more_states_that_fit_worse_are_named(store):
    sweep = Sweep(store, "short")
    sweep.add(2, 0.0, log_lik_train=-500.0)
    sweep.add(3, 0.0, log_lik_train=-512.5)
    sweep.add(4, 0.0, log_lik_train=-400.0)
    sweep.add(3, 0.0, space="v2", log_lik_train=-9000.0)
    (line,) = shortfalls(sweep_cells(store.client, "short"))
    assert line.startswith("v1 K=3 fits 12.5 nats worse than v1 K=2: EM stopped short")


def test_student_t_cells_are_lines_and_columns_of_their_own(store):
    tried = [{"n_states": n, "bic": 10.0 * n, "eligible": True} for n in (2, 3)]
    for emission in ("gaussian", "student_t"):
        sweep = Sweep(store, "emissions")
        sweep.settings |= {"covariance.type": "full", "model.emission": emission}
        run_id = sweep.add(3, 30.0)
        store.client.set_tag(run_id, tags.CRITERIA_BY_STATES, json.dumps(tried))
        store.client.set_tag(run_id, tags.FEATURE_SET, "v1")
        store.client.set_tag(run_id, tags.TIMEFRAME, "1H")
    cells = sweep_cells(store.client, "emissions")
    rows = criteria_by_states(cells)
    assert set(rows.groupby("covariance")["n_states"].count().items()) == {
        ("full", 2),
        ("full-t", 2),
    }
    assert set(charts.criteria(rows).about["covariances"]) == {"full", "full-t"}
    figure = bic_by_space(rows, winner=("v1", "full-t", 3))
    lines = [line.get_color() for line in figure.findobj(Line2D)]
    assert {INK, "#8e5ea2"} <= set(lines)


def test_the_criterion_that_decides_has_a_column_and_ranks(store):
    sweep = Sweep(store, "shown", within="bic_next")
    sweep.add(2, 900.0, bic_next=-50.0)
    sweep.add(3, 700.0, bic_next=-40.0)
    table = leaderboard(sweep_cells(store.client, "shown"))
    assert table["bic_next"].tolist() == [-50.0, -40.0]
    assert table["K"].tolist() == [2, 3]
