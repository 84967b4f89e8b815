"""Fits that a copy of a process makes before they are asked for."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hmm_exp.config import Config, SplitConfig
from hmm_exp.experiment.first_use import warm_up
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import evaluated, fitted
from hmm_exp.sweep import ahead, beside
from hmm_exp.sweep.ahead import Ahead
from hmm_exp.sweep.child import Worker
from tests.test_train_cli import SMALL, store_of
from tests.watching import until

pytestmark = pytest.mark.skipif(not beside.IS_POSSIBLE, reason="copies are made on Linux alone")


def with_states(settings: Config, n_states: int) -> Config:
    return replace(settings, model=replace(settings.model, n_states=n_states))


def ended(cells: list[Config]) -> Ahead:
    """Work ahead that has come to its end by itself."""
    work = Ahead(cells, prepare=lambda: None)
    assert work._copy.wait() == 0
    return work


def without_seconds(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("seconds_")}


def test_it_is_the_fit_that_would_be_made_later(small_config):
    cells = [with_states(small_config, n) for n in (2, 3)]
    work = ended(cells)
    for settings in reversed(cells):
        made = work.take(prepare(settings))
        later = fitted(prepare(settings))
        np.testing.assert_array_equal(made.fits.chosen.params.means, later.fits.chosen.params.means)
        assert made.seconds > 0
        there, here = evaluated(made).metrics, evaluated(later).metrics
        assert without_seconds(there) == without_seconds(here)


def test_a_fit_is_taken_once_and_is_that_of_the_cell_that_takes_it(small_config):
    work = ended([small_config])
    mine = replace(small_config, sweep=replace(small_config.sweep, parent_run="of this sweep"))
    prepared = prepare(mine)
    made = work.take(prepared)
    assert made.prepared is made.fits.fitted is prepared
    assert evaluated(made).config.sweep.parent_run == "of this sweep"
    assert work.take(prepared) is None


def test_what_cannot_be_fitted_is_left_to_its_cell(small_config):
    missing = replace(small_config, data=replace(small_config.data, kind="bars", path="none.csv"))
    walk = replace(small_config, split=SplitConfig(kind="walk_forward"))
    work = ended([missing, walk, small_config])
    assert work.take(prepare(walk)) is None
    assert work.take(prepare(small_config)) is not None


def test_one_that_is_under_way_when_a_cell_is_asked_for_is_given_up(
    small_config, tmp_path, monkeypatch
):
    """The copy is killed in its second fit, half of which is written already."""
    two = with_states(small_config, 2)
    write = ahead.pickle.dump

    def half(made: dict, file) -> None:
        if prepare(small_config).fingerprint not in made:
            return write(made, file)
        file.write(ahead.pickle.dumps(made)[:-1000])
        file.flush()
        (tmp_path / "half").write_text(str(os.getpid()))
        time.sleep(600)
        return None

    monkeypatch.setattr(ahead.pickle, "dump", half)
    work = Ahead([two, small_config], prepare=lambda: None)
    until((tmp_path / "half").exists)
    monkeypatch.undo()
    assert work.take(prepare(small_config)) is None
    assert not Path(f"/proc/{(tmp_path / 'half').read_text()}").exists()
    assert work.take(prepare(two)) is not None


def test_the_process_of_the_cells_uses_what_was_fitted_ahead(small_config, tmp_path):
    warm_up()  # a process that compiles would be a child, too
    worker, told = Worker(), []
    try:
        worker.ask("prepare", small_config, None)
        worker.work_ahead([small_config])
        worker.ask("prepare", small_config, tmp_path / "1.log")  # answered after the copy began
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        until(lambda: not children.read_text())  # and before it is asked for the fit, it ended
        worker.ask("fit", tmp_path / "bundle", on_progress=told.append)
        assert worker.has_written(tmp_path / "bundle", None)
    finally:
        worker.stop()
    assert "evaluating" in told
    assert not any("fitting" in text for text in told)
    assert (tmp_path / "1.log").read_text().startswith("fitting 3 states\n")


def test_a_sweep_has_the_same_metrics_and_figures_where_nothing_is_ahead_or_beside(
    train_cli, workdir
):
    """Workers of joblib fit one cell after the other, and draw the first of each themselves."""
    words = ("-m", "model.n_states=2,3", "features=v1,range", *SMALL, "tracking.figures=true")
    for compute in ("serial", "joblib"):
        workers = () if compute == "serial" else ("compute=joblib", "compute.workers=2")
        done = train_cli(workdir, *words, *workers, f"tracking.experiment={compute}")
        assert done.returncode == 0, done.stderr
    client, found = store_of(workdir), {}
    for compute in ("serial", "joblib"):
        experiment = client.get_experiment_by_name(compute).experiment_id
        cells = client.search_runs([experiment], "tags.kind = 'cell'")
        found[compute] = {
            (run.data.params["features.name"], run.data.params["model.n_states"]): contents(run)
            for run in cells
        }
    assert len(found["serial"]) == 4
    assert found["serial"] == found["joblib"]


def contents(run) -> tuple[dict[str, float], dict[str, bytes]]:
    """Metrics without times, and figures."""
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    figures = {file.name: file.read_bytes() for file in artifacts.glob("plots/*.png")}
    assert len(figures) > 8
    log = (artifacts / "run.log").read_text().split("\n")
    assert [line for line in log if line.startswith(("fitting", "evaluating", "writing"))] == [
        f"fitting {run.data.params['model.n_states']} states",
        "evaluating",
        "writing",
    ]
    return without_seconds(run.data.metrics), figures
