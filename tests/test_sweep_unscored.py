"""Runs without scores, as a user sees them: terminal, gate, leaderboard, report."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmm_exp.judge.unscored import unusual
from hmm_exp.report.board import rows
from hmm_exp.report.collect import read_run, read_sweep
from hmm_exp.report.course import gains_of
from hmm_exp.report.page import render
from hmm_exp.report.words import verdict
from hmm_exp.sweep.terminal import summary_line
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import unscored_of
from tests.test_judge_unscored import COLUMN, TOO_FEW, table_with_few_returns
from tests.test_train_cli import runs_of, store_of

NO_COLUMN = f"no next-bar return is known: the table has no column {COLUMN}, add it"
NO_FIT = f"the state densities cannot be fitted: {TOO_FEW}"
SETTINGS = ("data=features_csv", "data.bar_stamp=open", "features=v2", "model.n_init=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, empty_store) -> Path:
    """A folder with two ready tables: `few.csv` with eight train returns, `none.csv` without."""
    folder = tmp_path_factory.mktemp("unscored")
    shutil.copy(empty_store, folder / "mlflow.db")
    few = table_with_few_returns(folder / "few.csv", 8, 1700)
    pd.read_csv(few).drop(columns=COLUMN).to_csv(folder / "none.csv", index=False)
    return folder


def test_a_table_without_returns_is_refused_with_the_column_to_add(folder, train_cli, workdir):
    path = folder / "none.csv"
    words = ("model.n_states=2", "tracking.figures=false", "promote=true")
    done = train_cli(workdir, *SETTINGS, f"data.path={path}", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (warned,) = [line for line in lines if line.startswith(f"warning: {NO_COLUMN}")]
    (refused,) = [line for line in lines if "over the static Student-t is shown" in line]
    assert lines.index(warned) < lines.index("not promoted:") < lines.index(refused)
    assert NO_COLUMN in refused
    (believed,) = [line for line in lines if line.startswith("believe it? ")]
    assert believed.startswith(f"believe it? Cannot say: {NO_COLUMN}")
    assert lines.index(believed) < lines.index("not promoted:")
    assert "too few scored bars" not in done.stdout
    (run,) = runs_of(store_of(workdir), "cell")
    assert NO_COLUMN in run.data.tags[tags.STATUS_REASON]
    assert NO_COLUMN in run.data.tags[tags.GATE_REASONS]
    subject = read_run(store_of(workdir), run.info.run_id)
    found = verdict(subject)
    assert found.margin.startswith(f"not measured: {NO_COLUMN}")
    assert found.belief.startswith(f"Cannot say: {NO_COLUMN}")
    assert NO_COLUMN in render(subject)


@pytest.fixture(scope="module")
def swept(folder, train_cli):
    """A sweep of two cells, of which one has too few returns for its densities."""
    words = ("model.n_states=2,4", "selection.min_occupancy=0", "tracking.figures=false")
    return train_cli(folder, "-m", *SETTINGS, f"data.path={folder}/few.csv", *words)


def test_a_cell_without_densities_finishes_and_the_sweep_says_why(swept, folder):
    assert swept.returncode == 0, swept.stderr
    assert f"v2@1H diag K=4: {NO_FIT}" in swept.stdout.splitlines()
    assert "yes, no score of model" in swept.stdout
    cells = runs_of(store_of(folder), "cell")
    assert {run.info.status for run in cells} == {"FINISHED"}
    by_states = {run.data.metrics["n_states"]: run for run in cells}
    assert unscored_of(by_states[4])["model"] == TOO_FEW
    assert unusual(unscored_of(by_states[2])) == []
    assert not [name for name in by_states[4].data.metrics if "gain" in name]
    assert np.isfinite([*by_states[4].data.metrics.values()]).all()
    assert f"no gain: {NO_FIT}" in summary_line(by_states[4].data.metrics, by_states[4].data.tags)


def test_the_report_of_a_winner_without_densities_says_why(swept, folder):
    subject = read_sweep(store_of(folder), "latest")
    assert subject.model is not None
    assert subject.model.name.endswith("K=4")
    found = verdict(subject)
    assert found.margin == f"not measured: {NO_FIT}"
    assert found.belief == f"Cannot say: {NO_FIT}"
    page = render(subject)
    assert "Lowest panel" not in page
    board = {row["name"]: (row["state"], row["status"]) for row in rows(subject)}
    assert board["v2@1H diag K=4"] == ("ok", "no score of model")


def test_a_report_draws_the_gains_that_there_are(swept, folder):
    client = store_of(folder)
    (run,) = [run for run in runs_of(client, "cell") if run.data.metrics["n_states"] == 2]
    subject = read_run(client, run.info.run_id)
    model = subject.model
    assert model is not None
    assert model.scores is not None
    assert list(gains_of(model)) == ["static", "ewma"]
    for missing, left in (("ewma", "static"), ("static", "ewma")):
        scores = model.scores.assign(**{f"{missing}_score": np.nan})
        part = replace(model, scores=scores)
        assert list(gains_of(part)) == [left]
        page = render(replace(subject, model=part))
        assert page.count("Lowest panel: cumulative gain in nats") == 1
        assert "&nbsp;over the EWMA Student-t" in page or missing == "ewma"
        assert "&nbsp;over the static Student-t" in page or missing == "static"
