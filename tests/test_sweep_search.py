"""A search: Optuna proposes the cells, and the end is that of a grid over the same cells."""

import importlib.util
import math
import re
import shutil
import signal
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus

from hmm_exp.config.grid import grid
from hmm_exp.sweep.search import caveat, value_of
from hmm_exp.tracking import tags
from tests.conftest import ROOT
from tests.test_sweep_plan import needs
from tests.test_train_cli import SMALL, runs_of, store_of
from tests.warm import FAULTS, environment_of_a_user
from tests.watching import finished, launched, sweep_id_of

optuna = pytest.importorskip("optuna", reason="the extra optuna is not installed")
if importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
    from hydra_plugins.hmm_exp_optuna import _study

SEARCH = ("-m", "hydra/sweeper=optuna")
own_sweeper = pytest.mark.skipif("_study" not in globals(), reason="Hydra's own is installed")


def end_of(stdout: str) -> list[str]:
    """Lines of the verdict without those that hold an id, the spaces in no order."""
    lines = stdout.partition("\n\n")[2].partition("\n\n")[2].splitlines()
    return sorted(line for line in lines if not line.startswith(("compare: ", "winner: ")))


def cells_of(client) -> set[tuple[str, str]]:
    names = ("model.n_states", "features.window")
    return {tuple(run.data.params[name] for name in names) for run in finished(client)}


@pytest.fixture(scope="module")
def searched(tmp_path_factory, empty_store, train_cli):
    """A search that tries all of its four cells, and keeps its study."""
    folder = tmp_path_factory.mktemp("searched")
    shutil.copy(empty_store, folder / "mlflow.db")
    cells = ("model.n_states=choice(3,4)", "features=choice(v1,range)")
    study = ("hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.study_name=four")
    done = train_cli(folder, *SEARCH, *cells, *study, "hydra.sweeper.n_trials=30", *SMALL)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_search_over_all_cells_ends_as_the_grid_does(searched, train_cli, workdir):
    grid = train_cli(workdir, "-m", "model.n_states=3,4", "features=v1,range", *SMALL)
    assert grid.returncode == 0, grid.stderr
    _, done = searched
    first = done.stdout.splitlines()[0]
    assert first.endswith(": optuna chooses 30 trials among 4 cells by return_gain_val")
    assert end_of(done.stdout) == end_of(grid.stdout)
    assert "promoted: models:/hmm_regime/Production is version 1" in done.stdout
    assert "the bars of the reality check" not in done.stdout  # no cell was passed over


def test_a_cell_that_is_proposed_again_is_not_fitted_again(searched):
    folder, done = searched
    n_trials = len(re.findall(r"^\[\d+/30\] ", done.stderr, flags=re.MULTILINE))
    assert len(runs_of(store_of(folder), "cell")) == 4 < n_trials
    assert done.stderr.count("already fitted") == n_trials - 4
    assert runs_of(store_of(folder), "sweep")[0].data.tags[tags.N_CELLS] == "4"


def test_the_study_maximises_what_the_cells_recorded(searched):
    folder, _ = searched
    study = optuna.load_study(study_name="four", storage=f"sqlite:///{folder}/study.db")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    recorded = {
        (run.data.tags[tags.FEATURE_SET], run.data.params["model.n_states"]): (
            -math.inf if tags.FAULTS in run.data.tags else run.data.metrics["return_gain_val"]
        )
        for run in finished(store_of(folder))
    }
    told = {
        (str(trial.params["features"]), str(trial.params["model.n_states"])): trial.value
        for trial in study.trials
    }
    assert told == recorded
    assert -math.inf in told.values()  # v1 with four states has a hard fault here
    assert len({*told.values()}) == 4 - sum(value == -math.inf for value in told.values()) + 1


def test_no_progress_bar_of_mlflow_comes_between_the_lines(searched, warm):
    assert importlib.util.find_spec("tqdm"), "pip install '.[dev]'"
    folder, done = searched
    words = ("--sweep", "latest", "--dry-run")
    promoted = warm.run(folder, *words, module="hmm_exp.commands.promote")
    program = "import hmm_exp; hmm_exp.load_detector('models:/hmm_regime/Production')"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment_of_a_user(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    for process in (done, promoted, loaded):
        assert process.returncode == 0, process.stderr
        assert "Downloading" not in process.stderr
        assert "it/s" not in process.stderr


@pytest.mark.slow
def test_a_killed_search_goes_on_as_it_would_have(
    train_cli, warm, workdir, tmp_path_factory, empty_store
):
    words = (
        *(*SEARCH, "model.n_states=choice(2,3)", "features.window=interval(10,60)"),
        *("hydra.sweeper.n_trials=4", "promote=false", *SMALL),
    )
    faults = {"PYTHONPATH": FAULTS, "KILL_AT": "recording", "KILL_ONCE": str(workdir / "killed")}
    assert train_cli(workdir, *words, **faults).returncode == -signal.SIGKILL
    client = store_of(workdir)
    assert len(finished(client)) == 1
    done = train_cli(workdir, *words, f"sweep_id={sweep_id_of(client)}", **faults)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already fitted") >= 1
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(empty_store, undisturbed / "mlflow.db")
    other = train_cli(undisturbed, *words)
    assert "optuna chooses 4 trials by return_gain_val" in other.stdout
    assert end_of(done.stdout) == end_of(other.stdout)
    assert cells_of(client) == cells_of(store_of(undisturbed))
    assert all(10 <= int(window) <= 60 for _, window in cells_of(client))
    doubt = "the search chose its cells by return_gain_val on the bars of the reality check"
    assert doubt in done.stdout
    made = warm.run(workdir, "--sweep", "latest", module="hmm_exp.report")
    page = workdir / re.search(r"^report: (.+)$", made.stdout, flags=re.MULTILINE)[1]
    assert doubt in page.read_text().replace("<wbr>", "")


def test_a_failed_cell_costs_a_trial_and_is_not_tried_again(train_cli, workdir):
    words = ("model.random_state=choice(1,901)", "model.n_states=2", "promote=false", *SMALL)
    seed = "hydra.sweeper.sampler.seed=3"
    done = train_cli(
        workdir,
        *SEARCH,
        *words,
        "hydra.sweeper.n_trials=8",
        seed,
        "features.window=range(20,23)",
        PYTHONPATH=FAULTS,
    )
    assert done.returncode == 1
    cells = runs_of(store_of(workdir), "cell")
    prints = [run.data.tags[tags.FINGERPRINT] for run in cells]
    assert len(set(prints)) == len(prints)
    assert {run.info.status for run in cells} == {"FINISHED", "FAILED"}
    assert "already failed" in done.stderr
    assert "FAILED: " in done.stdout


@pytest.mark.slow
@needs("joblib")
def test_one_cell_proposed_twice_at_a_time_is_fitted_once(train_cli, workdir):
    words = ("model.n_states=choice(2,2)", "promote=false", *SMALL, *launched("joblib"))
    done = train_cli(workdir, *SEARCH, *words, "features=choice(v1,range)")
    assert done.returncode == 0, done.stderr
    prints = [run.data.tags[tags.FINGERPRINT] for run in runs_of(store_of(workdir), "cell")]
    assert len(set(prints)) == len(prints) == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("sweep.objective=sharpe",), "sweep.objective=sharpe: must be one of return_gain_val, "),
        (("sweep.objective=return_gain_test",), "must be one of return_gain_val, "),
        (("hydra.sweeper.direction=minimize",), "is better when it is higher; leave the direction"),
        (("sweep.objective=bic", "features=v1,range"), "cells of one observation space"),
        (("sweep.objective=cv",), "needs cross-validation: set selection.cv_blocks=5"),
        (("sweep.objective=bic", "split=walk_forward"), "is of one fit"),
        (
            ("features.window=interval(60,10)",),
            "features.window=interval(60,10): from a lower to a higher number, such as interval(10",
        ),
        (("features.window=interval(1,10)",), "features.window=1: must be at least 2"),
        (("hydra.sweeper.n_trials=0",), "a search of 0 trials: at least 1"),
        (("hydra.sweeper.n_jobs=0",), "hydra.sweeper.n_jobs=0: must be at least 1"),
        (("data=panel", "data.path=*.csv", "data.bar_stamp=open"), "all symbols share one grid"),
    ],
)
def test_what_a_search_cannot_do_is_one_line_before_any_work(train_cli, tmp_path, words, line):
    done = train_cli(tmp_path, *SEARCH, "model.n_states=2,3", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_a_search_needs_the_word_for_a_sweep(train_cli, tmp_path):
    done = train_cli(tmp_path, "hydra/sweeper=optuna", "model.n_states=2")
    assert done.returncode == 2
    assert "runs a sweep: add -m" in done.stderr


def test_the_worst_value_stands_on_the_side_that_the_objective_leaves():
    sound, faulty = {"bic": 5.0, "return_gain_val": 0.2}, {tags.FAULTS: "no end"}
    assert value_of("return_gain_val", sound, {}) == 0.2
    assert value_of("bic", sound, {}) == 5.0
    assert value_of("return_gain_val", sound, faulty) == -math.inf
    assert value_of("bic", sound, faulty) == math.inf
    assert value_of("ewma_gain_val", sound, {}) == -math.inf  # not scored


def test_the_reality_check_is_doubted_where_validation_chose_which_cells_were_tried():
    about = {tags.SEARCH: "return_gain_val", tags.N_POSSIBLE: "6"}
    assert "is therefore too low" in caveat(about, n_tried=5)
    assert caveat(about, n_tried=6) == ""
    assert "is therefore too low" in caveat(about | {tags.N_POSSIBLE: ""}, n_tried=6)
    assert caveat(about | {tags.SEARCH: "bic"}, n_tried=5) == ""
    assert caveat({}, n_tried=5) == ""  # a grid


class Jobs:
    """Stands at the place of a launcher: gives the value of each job."""

    def __init__(self, value) -> None:
        self.value = value
        self.numbers: list[int] = []
        self.cells: list[dict[str, str]] = []

    def __call__(self, jobs: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        returns = []
        for place, words in enumerate(jobs):
            self.numbers.append(initial_job_idx + place)
            self.cells.append(dict(word.split("=") for word in words))
            result = JobReturn(status=JobStatus.COMPLETED)
            result.return_value = self.value(self.cells[-1])
            returns.append(result)
        return returns


def study_of(words: list[str], value, **options) -> Jobs:
    usual = {
        "sampler": {"name": "TPESampler", "seed": 1, "n_startup_trials": 5},
        "direction": "maximize",
        "storage": None,
        "study_name": None,
        "n_trials": 20,
        "n_jobs": 1,
    }
    jobs = Jobs(value)
    _study.run(OverridesParser.create().parse_overrides(words), usual | options, jobs)
    return jobs


@own_sweeper
def test_the_sweeper_writes_values_as_a_grid_writes_them():
    words = ["a=range(0.1,0.6,0.1)", "b=range(6,2,-1)", "c='x, y',z", "d=int(interval(3,5))", "e=7"]
    jobs = study_of(words, lambda cell: 1.0, n_trials=60)
    tried = {name: {f"{name}={cell[name]}" for cell in jobs.cells} for name in "abcde"}
    listed = grid([word for word in words if "interval" not in word])
    assert tried == {name: set(values) for name, values in listed.items()} | {
        "d": {"d=3", "d=4", "d=5"}
    }
    assert jobs.numbers == list(range(60))


@own_sweeper
@pytest.mark.parametrize(("direction", "best"), [("maximize", 9.0), ("minimize", 0.0)])
def test_the_sweeper_goes_where_the_values_are_better(direction, best):
    jobs = study_of(
        ["a=interval(0.0,9.0)"], lambda cell: float(cell["a"]), direction=direction, n_trials=40
    )
    later = [float(cell["a"]) for cell in jobs.cells[20:]]
    assert sum(abs(value - best) < 3.0 for value in later) > 15


@own_sweeper
def test_the_sweeper_takes_infinite_values_and_several_trials_at_a_time():
    jobs = study_of(["a=1,2,3"], lambda cell: -math.inf, n_trials=5, n_jobs=2)
    assert len(jobs.cells) in (3, 4, 5)
    assert jobs.numbers == list(range(len(jobs.cells)))


@own_sweeper
def test_the_sweeper_writes_all_digits_of_whole_numbers():
    jobs = study_of(["n=int(interval(1,2000000000))"], lambda cell: 1.0)
    assert all(1 <= int(cell["n"]) <= 2_000_000_000 for cell in jobs.cells)
    assert len({cell["n"] for cell in jobs.cells}) == 20


@own_sweeper
def test_an_error_of_the_sweeper_closes_the_sweep(train_cli, workdir):
    storage = f"sqlite:///{workdir}/study.db"
    optuna.create_study(storage=storage, study_name="kept")
    options = (f"hydra.sweeper.storage={storage}", "hydra.sweeper.study_name=kept")
    done = train_cli(workdir, *SEARCH, "model.n_states=choice(2,3)", *options, *SMALL)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: hydra.sweeper.study_name=kept: the storage has this study, choose another name"
    )
    client = store_of(workdir)
    assert done.stderr.splitlines()[-1].endswith(f"; go on with sweep_id={sweep_id_of(client)}")
    assert runs_of(client, "sweep")[0].info.status == "FAILED"


@own_sweeper
def test_the_sweeper_stops_at_a_job_without_a_value():
    with pytest.raises(Exception, match="trial 0 returned None, which is no number"):
        study_of(["a=1,2,3"], lambda cell: None)
