"""Which fit a rule keeps, on numbers that a reader can follow."""

from dataclasses import replace

import pytest

from hmm_exp.config import Config, SelectionConfig, checked
from hmm_exp.errors import ConfigError
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.rule import Option, by_rule
from hmm_exp.experiment.run import run
from hmm_exp.experiment.select import select


def options(*values: float, val=(0.0, 0.0, 0.0, 0.0), errors: float = 0.0) -> list[Option]:
    """Fits with 10, 20, 30 ... parameters and these criteria."""
    return [
        Option(10.0 * (i + 1), {"bic": value, "cv": value, "cv_error": errors}, val[i])
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "val", "kept"),
    [
        ((400.0, 300.0, 310.0), (0.0, 0.0, 9.0), 1),  # ten apart is no tie
        ((400.0, 300.0, 301.0), (0.0, 0.0, 9.0), 2),
        ((400.0, 300.0, 301.0), (0.0, 9.0, 0.0), 1),
        ((400.0, 300.0, 302.0), (0.0, 0.0, 9.0), 1),  # just two apart is no tie either
    ],
)
def test_the_lowest_wins_and_near_ties_go_by_validation(values, val, kept):
    assert by_rule(options(*values, val=val), SelectionConfig(near_tie=2.0)) == kept


def test_one_error_takes_the_fewest_parameters_that_are_as_good():
    config = SelectionConfig(within="cv", rule="one_se", cv_blocks=3)
    assert by_rule(options(400.0, 308.0, 305.0, 300.0, errors=9.0), config) == 1
    assert by_rule(options(400.0, 308.0, 305.0, 300.0, errors=6.0), config) == 2
    assert by_rule(options(400.0, 308.0, 305.0, 300.0, errors=1.0), config) == 3


def test_the_elbow_stops_where_parameters_bring_little():
    config = SelectionConfig(rule="elbow", elbow=0.1)
    assert by_rule(options(200.0, 190.0, 189.0), config, null=400.0) == 0
    assert by_rule(options(300.0, 200.0, 190.0), config, null=400.0) == 1


def test_the_order_in_which_fits_were_run_does_not_matter():
    config = SelectionConfig(within="cv", rule="one_se", cv_blocks=3)
    shuffled = options(400.0, 308.0, 305.0, 300.0, errors=9.0)[::-1]
    assert by_rule(shuffled, config) == 2


def test_selected_k_lies_in_the_grid_and_an_ineligible_best_is_passed_over(small_config):
    small_config.model = replace(small_config.model, n_states=None, state_grid=[2, 3, 4])
    outcome = run(prepare(small_config))
    assert outcome.n_states in (2, 3, 4)
    assert list(outcome.selection["n_states"]) == [1, 2, 3, 4]
    assert outcome.metrics["grid_edge"] == (outcome.n_states == 4)
    edge = f"the best number of states, {outcome.n_states}, is the largest tried"
    assert (edge in outcome.warnings) == (outcome.n_states == 4)
    best = min(outcome.candidates, key=lambda c: c.criteria["bic"])
    spoiled = [
        replace(c, faults=["state 0 is empty"]) if c is best else c for c in outcome.candidates
    ]
    passed_over = select(spoiled, SelectionConfig(near_tie=0.0))
    assert passed_over.n_states != best.n_states
    assert not passed_over.faults


def test_near_ties_are_decided_by_validation_likelihood(small_config):
    small_config.model = replace(small_config.model, n_states=None, state_grid=[2, 3])
    two, three = run(prepare(small_config)).candidates
    low = replace(two, criteria=two.criteria | {"bic": 100.0}, log_lik={"val": -50.0})
    near = replace(three, criteria=three.criteria | {"bic": 101.5}, log_lik={"val": -40.0})
    assert select([low, near], SelectionConfig(near_tie=2.0)) is near
    assert select([low, near], SelectionConfig(near_tie=1.0)) is low


def test_the_one_error_rule_takes_the_fewest_states_that_are_as_good(small_config):
    small_config.model = replace(small_config.model, n_states=None, state_grid=[2, 3, 4])
    small_config.selection = SelectionConfig(within="cv", rule="one_se", cv_blocks=3)
    outcome = run(prepare(checked(small_config)))
    assert {"cv", "cv_error"} <= set(outcome.metrics)
    table = outcome.selection.set_index("n_states")
    best = table["cv"].idxmin()
    limit = table["cv"][best] + table["cv_error"][best]
    eligible = table.index[table["eligible"].astype(bool) & (table["cv"] <= limit)]
    assert outcome.n_states == eligible.min()


def test_the_elbow_stops_where_a_state_brings_little(small_config):
    small_config.model = replace(small_config.model, n_states=None, state_grid=[2, 3])
    two, three = run(prepare(small_config)).candidates
    low = replace(two, criteria=two.criteria | {"bic": 200.0}, faults=[])
    for bic, wanted in ((195.0, low), (150.0, None)):
        high = replace(three, criteria=three.criteria | {"bic": bic}, faults=[])
        taken = select([low, high], SelectionConfig(rule="elbow", elbow=0.1), null=400.0)
        assert taken is (wanted or high)


def test_cross_validation_must_have_blocks():
    with pytest.raises(ConfigError, match=r"set selection.cv_blocks=5"):
        checked(Config(selection=SelectionConfig(within="cv")))


def test_when_all_have_faults_the_best_is_named_ineligible(small_config):
    small_config.selection.min_occupancy = 0.5
    outcome = run(prepare(small_config))
    assert any("least 50.00%" in fault for fault in outcome.faults)
