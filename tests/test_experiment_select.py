"""Which fit a rule keeps, on numbers that a reader can follow."""

import pytest

from hmm_exp.config import SelectionConfig
from hmm_exp.experiment.rule import Option, by_rule


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
