"""Descriptions of cells in the MLflow UI."""

import re

from hmm_exp.tracking import tags
from hmm_exp.tracking.cell_page import cell_page, cell_title, failed_page

ABOUT = {
    tags.CELL: "v1@1D diag K=2",
    tags.INSTRUMENT: "dax",
    tags.DATA_DIGEST: "0a591a",
    tags.SWEEP_ID: "s1",
    tags.REGIME_NOW: "regime at 2022-12-31T00:00:00Z: calm",
}
METRICS = {
    "n_states": 2.0,
    "bic": 15734.26,
    "n_rows_train": 6191.0,
    "return_gain_val": 0.00072,
    "return_gain_val_error": 0.0004,
    "return_gain_test": -0.0012,
    "ewma_hour_gain_val": -0.03,
}
HOSTILE = "[x](javascript:1) **b** <img src=x onerror=alert(1)> | a\n# `c`"


def test_a_cell_says_what_it_is_its_figures_and_how_to_load_it():
    page = cell_page("7", "ab12", ABOUT, METRICS)
    title, size = page.split("\n\n")[:2]
    assert title.startswith(
        "**v1@1D diag K=2** on dax (data digest 0a591a), a cell of sweep [s1](#/"
    )
    assert size == "2 states, BIC 15734.3, 6,191 train rows"
    assert "| over the static Student-t | +0.0007 ± 0.0004 | -0.0012 |" in page
    assert "| over the EWMA Student-t by hour | -0.0300 |  |" in page
    assert "over the range EWMA" not in page
    assert "Regime at 2022-12-31" in page
    assert 'load_model("runs:/ab12/model")' in page
    assert "eligible" not in page


def test_a_faulty_cell_says_so_before_its_figures():
    page = cell_page("7", "ab12", ABOUT | {tags.FAULTS: "state 0 is empty"}, METRICS)
    assert page.index("**Not eligible**: state 0 is empty") < page.index("BIC")


def test_a_cell_without_scores_has_no_table():
    page = cell_page("7", "ab12", {tags.CELL: "a"}, {"n_states": 1.0})
    assert page.startswith("**a**\n\n1 state\n\nLoad it")
    assert "|" not in page


def test_a_failed_cell_says_why():
    page = failed_page("7", ABOUT, "KILLED", "stopped by Ctrl-C")
    assert page.startswith(cell_title("7", ABOUT))
    assert "**KILLED**: stopped by Ctrl-C" in page


def test_names_from_outside_are_no_markdown():
    about = dict.fromkeys([*ABOUT, tags.FAULTS], HOSTILE) | {tags.SWEEP_ID: "s1"}
    for page in (
        cell_page("7", "ab12", about, METRICS),
        failed_page("7", about, "FAILED", HOSTILE),
    ):
        assert "img src" in page
        assert not re.search(r"javascript:1\)|<|`c|\n#", page)
        assert page.count("](") == page.count("](#/experiments/")
