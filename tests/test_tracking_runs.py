"""Runs that have lost a part of their record stay in every table and take no part in the choice."""

from html import unescape

import pytest

from hmm_exp.commands import sweeps
from hmm_exp.report.collect import read_run, read_sweep
from hmm_exp.report.page import render
from hmm_exp.sweep import terminal
from hmm_exp.sweep.leaderboard import choose, criteria_by_states, leaderboard, won_place
from hmm_exp.sweep.luck import shortfalls, weigh_choice
from hmm_exp.tracking import tags
from hmm_exp.tracking.runs import called, lacks, sweep_cells
from hmm_exp.tracking.ui import sweep_page, sweep_view
from tests.small_detector import forget_store, store_in
from tests.test_sweep_leaderboard import SETTINGS

SWEEP = "20260102-030405-abcd"
TAGS = {
    tags.CELL: "v1@1H diag K=2",
    tags.OBSERVATION_SPACE: "v1@1H#1",
    tags.DATA_DIGEST: "d",
    tags.FEATURE_SET: "v1",
    tags.TIMEFRAME: "1H",
    tags.CRITERIA_BY_STATES: '[{"n_states": 2, "bic": 900.0, "eligible": true}]',
}
PARAMS = SETTINGS | {"covariance.type": "diag"}
METRICS = {
    "n_states": 2.0,
    "n_params": 20.0,
    "bic": 900.0,
    "log_lik_train": -500.0,
    "return_gain_val": 0.1,
}
LOST = {  # what of a whole record is left, and what is named first as lacking
    "params": ({}, TAGS, METRICS, "param split.kind and 5 more"),
    "rule": ({"split.kind": "ratio"}, TAGS, METRICS, "param selection.within and 4 more"),
    "tags": (PARAMS, {}, METRICS, "tag cell and 2 more"),
    "metrics": (PARAMS, TAGS, {}, "metric n_states and 2 more"),
    "walk": (PARAMS | {"split.kind": "walk_forward"}, TAGS, {}, "metric n_states"),
    "all": ({}, {}, {}, "param split.kind and 11 more"),
}


@pytest.fixture
def store(workdir):
    yield store_in(workdir)
    forget_store()


def make(store, known_params, known_tags, metrics, status="FINISHED", kind="cell", name=None):
    identity = {tags.SWEEP_ID: SWEEP, tags.KIND: kind, tags.ATTEMPT: "1"} | known_tags
    run = store.client.create_run(store.experiment_id, tags=identity, run_name=name)
    for key, value in known_params.items():
        store.client.log_param(run.info.run_id, key, value)
    for key, value in metrics.items():
        store.client.log_metric(run.info.run_id, key, value)
    store.client.set_terminated(run.info.run_id, status)
    return store.client.get_run(run.info.run_id)


@pytest.mark.parametrize("lost", LOST)
def test_a_finished_run_says_what_it_lacks(store, lost):
    *left, named = LOST[lost]
    run = make(store, *left, name="a name")
    assert lacks(run) == f"incomplete record: no {named}"
    assert called(run) == TAGS[tags.CELL] if tags.CELL in left[1] else "a name"
    assert lacks(make(store, *left, status="FAILED")) == ""  # its status says it


def test_a_whole_run_lacks_nothing(store):
    assert lacks(make(store, PARAMS, TAGS, METRICS)) == ""
    walk = PARAMS | {"split.kind": "walk_forward"}
    assert lacks(make(store, walk, TAGS, {"n_states": 2.0})) == ""


def test_a_sweep_with_damaged_runs_has_its_tables_winner_page_and_report(store, capsys):
    parent = make(store, {}, {tags.N_CELLS: "13"}, {}, kind="sweep")
    best = make(store, PARAMS, TAGS | {tags.CELL: "best"}, METRICS | {"bic": 100.0})
    damaged = [
        make(store, *left, status=status, name=f"{lost} {status}")
        for lost, (*left, _) in LOST.items()
        for status in ("FINISHED", "FAILED")
    ]
    cells = sweep_cells(store.client, SWEEP)
    assert len(cells) == 13
    table = leaderboard(cells)
    printed = terminal.leaderboard_table(table)
    choice = choose(store.client, SWEEP)
    assert choice.run_id == best.info.run_id
    for run in damaged:
        assert run.info.run_id[:8] in printed
        if run.info.status == "FINISHED":
            about = f"{called(run)} (run {run.info.run_id}) does not take part: {lacks(run)}"
            assert about in choice.reasons
    assert weigh_choice(store.client, cells, best.info.run_id).n_tried == 13
    assert set(criteria_by_states(cells)["space"]) == {"v1@1H"}
    assert won_place(cells, choice) == ("v1@1H", "diag", 2)
    shortfalls(cells)
    sweep_view(SWEEP, cells)
    page = sweep_page(parent, best, table, choice.reasons, has_report=False)
    assert "incomplete record: no metric n_states and 2 more" in unescape(page)

    shown = sweeps.main(["--tracking-uri", store.uri, "show", SWEEP])
    text = capsys.readouterr().out
    assert shown == 0
    for run in damaged:
        assert f"{called(run)} (run {run.info.run_id})" in text

    html = render(read_sweep(store.client, SWEEP))
    for run in damaged:
        assert run.info.run_id[:8] in html


def test_a_table_of_criteria_that_was_cut_off_is_left_out(store):
    cut = TAGS | {tags.CRITERIA_BY_STATES: TAGS[tags.CRITERIA_BY_STATES][:-5]}
    runs = [make(store, PARAMS, cut, METRICS), make(store, PARAMS, TAGS, METRICS | {"bic": 1.0})]
    assert list(criteria_by_states(runs)["bic"]) == [900.0]
    assert choose(store.client, SWEEP).run_id == runs[1].info.run_id


def test_a_damaged_winner_wins_no_more_and_a_report_of_it_says_why(store):
    *left, named = LOST["params"]
    damaged = make(store, *left)
    winner = {tags.WINNER: damaged.info.run_id}
    make(store, {}, winner, {}, kind="sweep")
    subject = read_sweep(store.client, SWEEP)
    assert subject.model is None
    assert f"no {named}" in render(subject)
    with pytest.raises(Exception, match=f"has an incomplete record: no {named}"):
        read_run(store.client, damaged.info.run_id)
