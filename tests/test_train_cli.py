"""The true command line, by subprocess, on real SQLite stores."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from hmm_exp.market.synthetic import make_market
from hmm_exp.registry.promotion import champion
from hmm_exp.tracking import tags
from tests.conftest import ROOT

SMALL = (
    *("data.n_bars=2500", "model.n_init=1", "gate=off"),
    *("tracking.figures=false", "tracking.report=false"),
)


def store_of(folder) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def runs_of(client: MlflowClient, kind: str) -> list:
    experiment = client.get_experiment_by_name("hmm_exp")
    return client.search_runs(
        [experiment.experiment_id], f"tags.{tags.KIND} = '{kind}'", order_by=["start_time ASC"]
    )


def write_bars(folder, name: str, n_bars: int = 2500) -> None:
    frame = make_market(n_bars, n_regimes=3, seed=7).frame
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(
        folder / name, index=False
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory, train_cli):
    """A sweep of four cells over number of states and feature sets, figures on.

    Its folder has a name that an address has to encode.
    """
    folder = tmp_path_factory.mktemp("sweep") / "sp ace #ü'"
    folder.mkdir()
    words = (
        "data.n_bars=6000",
        "model.n_init=1",
        "model.n_states=2,3",
        "features=v1,v2",
    )
    done = train_cli(folder, "-m", *words)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return folder, done


def test_help_shows_examples(train_cli, tmp_path):
    done = train_cli(tmp_path, "--help")
    assert done.returncode == 0
    assert "-m model.n_states=2,3,4,5 features=v1,v2" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.nstates=3"], "unknown setting model.nstates (did you mean model.n_states?)"),
        (["+model.nstates=3"], "model.nstates"),
        (["features=v9"], "unknown features 'v9': one of columns, range, returns, v1, v1v2, v2"),
        (["timeframe=7H"], "unknown timeframe '7H'"),
        (["covariance=round"], "unknown covariance 'round'"),
        (["model.n_states=two"], "must be a whole number"),
        (["features=v1,v2"], "add -m"),
        (["-m", "model.n_states=2,0"], "model.n_states=0: must be at least 1"),
        (["-m", "model.n_states=2,two"], "model.n_states=two: must be a whole number"),
        (
            ["-m", "model.emission=gaussian,student_t", "covariance=diag,tied"],
            "model.emission=student_t with covariance=tied: must be diag or full",
        ),
        (["-m", "features=v1,v9"], "unknown features 'v9'"),
        (["-m", "compute.threads=1,2"], "one value for the whole sweep, compute.threads changes"),
        (["-m", "tracking.experiment=a,b"], "tracking.experiment=a,b: one value for the whole"),
        (["-m", "promote=true,false"], "promote changes no fit"),
        (["-m", "selection=default,cv"], "whole sweep, whose cells are compared by it"),
        (["-m", "selection.within=bic,icl"], "whole sweep, whose cells are compared by it"),
        (["model.n_states=3", "model.state_grid=[2,3]"], "unset one with model.state_grid=null"),
        (["data=bars", "data.path=no.csv", "data.bar_stamp=open"], "no.csv"),
        (["tracking.uri=http://127.0.0.1:9"], "does not answer"),
        (["tracking.uri=sqlite:////proc/none/mlflow.db"], "cannot write to /proc/none"),
        (["split.test=0.2"], "must sum to 1"),
        (["experiment=nope"], "unknown experiment 'nope'"),
        (["sweep_id=20260101-000000-abcd"], "add -m and its words"),
        (["sweep.parent_run=x"], "the program sets it"),
        (["hydra.run.dir=/proc/x"], "hydra.run.dir=/proc/x: cannot be made"),
        (["hydra.job_logging.root.level=X"], "Hydra cannot start with hydra.job_logging"),
        (["model.n_states=2", "-m", "selection.cv_blocks=1"], "selection.cv_blocks=1: must be 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_leaves_nothing(train_cli, tmp_path, words, line):
    done = train_cli(tmp_path, *words, *SMALL[:1])
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert line in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_manual_names_all_that_is_recorded(swept):
    """Metrics, tags and files of a sweep and its cells, those of MLflow itself aside."""
    page = (ROOT / "docs" / "reference" / "record.md").read_text()
    spans = [name for span in re.findall(r"`([^`\n]+)`", page) for name in span.split()]
    patterns = [re.sub(r"\\{[^,}]*\\}|\\\*", ".+", re.escape(span)) for span in spans]
    patterns = [re.sub(r"\\{(.+?)\\}", _alternatives, pattern) for pattern in patterns]
    client = store_of(swept[0])
    recorded = set()
    for run in runs_of(client, "sweep") + runs_of(client, "cell"):
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        plots = [file.path for file in client.list_artifacts(run.info.run_id, "plots")]
        recorded |= {*run.data.metrics, *run.data.tags, *files, *plots} - {"plots", "model"}
    gains = {name for name in recorded if re.fullmatch(r"\w*gain_(val|test)_\w+", name)}
    unnamed = {
        name
        for name in recorded - gains
        if not any(re.fullmatch(pattern, name) for pattern in patterns)
    }
    assert {name for name in unnamed if not name.startswith("mlflow.")} == set()
    ends = {re.sub(r".*gain_(val|test)_", "", name) for name in gains}
    assert ends == {"error", "bound", "low", "high", "mnat"}
    assert "`{gain}_{val,test}_{error,bound,low,high}`" in page


def _alternatives(found: re.Match) -> str:
    """`train,val` in braces as a regular expression."""
    return f"(?:{'|'.join(found[1].split(','))})"


def test_a_sweep_is_one_parent_with_a_finished_child_per_cell(swept):
    folder, done = swept
    assert done.returncode == 0, done.stderr
    client = store_of(folder)
    (parent,) = runs_of(client, "sweep")
    cells = runs_of(client, "cell")
    assert len(cells) == 4
    assert {run.data.tags[tags.PARENT_RUN] for run in cells} == {parent.info.run_id}
    assert {run.info.status for run in [parent, *cells]} == {"FINISHED"}
    sets = {(run.data.params["features.name"], run.data.metrics["n_states"]) for run in cells}
    assert sets == {("v1", 2), ("v1", 3), ("v2", 2), ("v2", 3)}
    assert not client.search_runs(["0"])  # nothing in the default experiment


def test_a_sweep_prints_first_and_once_what_was_read(swept):
    lines = swept[1].stderr.splitlines()
    assert lines[:3] == [
        "synthetic market: 6,000 rows, 1H, 2021-01-01 to 2021-09-07",
        "features v1@1H of synthetic: 5,981 of 6,000 rows usable; 19 to fill the windows",
        "features v2@1H of synthetic: 5,281 of 6,000 rows usable; 719 to fill the windows",
    ]
    assert not [line for line in lines[3:] if " rows, " in line or "usable" in line]


def test_a_cell_holds_metrics_tags_params_and_artifacts(swept):
    client = store_of(swept[0])
    run = runs_of(client, "cell")[0]
    assert {"bic", "icl", "log_lik_val_per_bar", "return_gain_val", "seconds_track"} <= set(
        run.data.metrics
    )
    named = (
        *(tags.SWEEP_ID, tags.FINGERPRINT, tags.OBSERVATION_SPACE, tags.FEATURE_SET),
        *(tags.TIMEFRAME, tags.DATA_DIGEST),
    )
    assert set(named) <= set(run.data.tags)
    assert run.data.params["data.n_bars"] == "6000"
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"regimes.csv", "model.joblib", "scaler.joblib", "plots", "data_report.json"} <= names
    plots = {item.path for item in client.list_artifacts(run.info.run_id, "plots")}
    assert "plots/price.png" in plots


def test_the_leaderboard_is_printed_and_kept_on_the_parent(swept):
    folder, done = swept
    client = store_of(folder)
    (parent,) = runs_of(client, "sweep")
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.csv", "plots"} <= names
    path = client.download_artifacts(parent.info.run_id, "leaderboard.csv", str(folder))
    table = pd.read_csv(path)
    assert len(table) == 4
    for run_id in table["run"]:
        assert run_id[:8] in done.stdout
    printed = [line for line in done.stdout.splitlines() if "@1H diag K=" in line][:4]
    assert max(map(len, printed)) <= 120
    assert "wins across 2 spaces" in done.stdout


def test_the_last_line_is_the_regime_now(swept):
    last = swept[1].stdout.strip().splitlines()[-1]
    assert re.fullmatch(
        r"regime at \S+Z: .* \(state \d\), since \S+Z, probability (above )?[\d.]+", last
    )


def test_production_is_the_lowest_bic_of_the_space_that_forecasts_best(swept):
    folder, _ = swept
    client = store_of(folder)
    cells = runs_of(client, "cell")
    best = {}
    for run in cells:
        space = run.data.tags[tags.OBSERVATION_SPACE]
        if space not in best or run.data.metrics["bic"] < best[space].data.metrics["bic"]:
            best[space] = run
    winner = max(best.values(), key=lambda run: run.data.metrics["return_gain_val"])
    assert champion(client, "hmm_regime").run_id == winner.info.run_id


USE = """
import json, os, sys
sys.path[:] = [p for p in sys.path if os.path.abspath(p or '.') != {root!r}]
sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__.lower()
                    and 'editable' not in getattr(f, '__name__', '').lower()]
import importlib.util
spec = importlib.util.find_spec('hmm_exp')  # an editable install leaves a folder with conf/
assert spec is None or spec.origin is None, 'the checkout is importable'
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model('models:/hmm_regime/Production')
bars = pd.read_csv('bars.csv')
answer = model.predict(bars).iloc[-1]
print(json.dumps([answer['label'], int(answer['state']), float(answer['p_state_0'])]))
"""


def test_production_loads_in_the_same_folder_without_the_checkout_and_without_pickle(swept):
    folder, _ = swept
    write_bars(folder, "bars.csv", n_bars=6000)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", USE.format(root=str(ROOT))],
        cwd=folder,
        env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    label, state, p_calm = json.loads(done.stdout.strip().splitlines()[-1])
    client = store_of(folder)
    run_id = champion(client, "hmm_regime").run_id
    path = client.download_artifacts(run_id, "regimes.csv", str(folder))
    last = pd.read_csv(path).iloc[-1]
    assert (label, state) == (last["label"], last["state"])
    assert p_calm == pytest.approx(last["p_state_0"], abs=1e-12)


def test_the_same_command_again_changes_nothing_in_production(train_cli, workdir):
    words = ("-m", "model.n_states=2,3", *SMALL)
    assert train_cli(workdir, *words).returncode == 0
    again = train_cli(workdir, *words)
    assert again.returncode == 0, again.stderr
    assert "already is this model" in again.stdout
    assert len(store_of(workdir).search_model_versions("name = 'hmm_regime'")) == 1


def test_a_path_as_it_is_typed_and_values_named_twice_make_one_cell_that_goes_on(
    train_cli, workdir
):
    write_bars(workdir, "BTC_USDT.P, 60 [new].csv")
    words = (
        *("-m", "data=bars", "data.bar_stamp=open", "data.path=BTC_USDT.P, 60 [new].csv"),
        *("model.n_states=2,02,2", "features=v1,v1", "promote=false", *SMALL[1:]),
    )
    first = train_cli(workdir, *words)
    assert first.returncode == 0, first.stderr
    warnings = [line for line in first.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        "warning: model.n_states=02 means the same as model.n_states=2 and runs once",
        "warning: model.n_states=2 is named twice and runs once",
        "warning: features=v1 is named twice and runs once",
    ]
    client = store_of(workdir)
    (cell,), (parent,) = runs_of(client, "cell"), runs_of(client, "sweep")
    assert cell.data.params["data.path"] == "BTC_USDT.P, 60 [new].csv"
    typed = shlex.split(parent.data.tags[tags.COMMAND])[3:]  # after python -m hmm_exp.train
    again = train_cli(workdir, *typed, f"sweep_id={parent.data.tags[tags.SWEEP_ID]}")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("already fitted") == 1
    assert "began as" not in again.stderr
    assert len(runs_of(client, "cell")) == 1


def test_a_failing_cell_costs_only_itself(train_cli, workdir):
    words = ("-m", "features.window=20,2400", "model.n_states=2", *SMALL)
    done = train_cli(workdir, *words)
    assert done.returncode == 1
    client = store_of(workdir)
    cells = runs_of(client, "cell")
    assert sorted(run.info.status for run in cells) == ["FAILED", "FINISHED"]
    (failed,) = [run for run in cells if run.info.status == "FAILED"]
    assert failed.data.tags[tags.STATUS_REASON] in done.stdout
    assert failed.info.run_id in done.stdout
    assert "is version 1" in done.stdout  # the winner is chosen from the rest


def test_when_no_cell_is_eligible_nothing_is_promoted(train_cli, workdir):
    done = train_cli(workdir, "-m", "model.n_states=2,3", "selection.min_occupancy=0.5", *SMALL)
    assert done.returncode == 1
    assert "none of the 2 finished cells is eligible" in done.stdout
    assert not store_of(workdir).search_registered_models()


def test_a_sweep_goes_on_where_it_stopped(train_cli, workdir):
    words = ("-m", "model.n_states=2,3", "promote=false", *SMALL)
    first = train_cli(workdir, *words)
    sweep_id = re.search(r"sweep (\S+):", first.stdout)[1]
    client = store_of(workdir)
    lost = runs_of(client, "cell")[0]
    client.delete_run(lost.info.run_id)
    again = train_cli(workdir, *words, f"sweep_id={sweep_id}")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("already fitted") == 1
    assert len(runs_of(client, "cell")) == 2
    unknown = train_cli(workdir, *words, "sweep_id=never")
    where = f"sqlite:///{workdir}/mlflow.db"
    assert unknown.returncode == 2
    assert unknown.stderr == f"error: no sweep never in this store ({where})\n"


def test_a_single_run_has_no_parent_and_is_promoted_only_when_asked(train_cli, workdir):
    done = train_cli(workdir, "model.state_grid=[2,3]", *SMALL)
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.splitlines()[:2]
    assert first == "synthetic market: 2,500 rows, 1H, 2021-01-01 to 2021-04-15"
    assert second.startswith("features v1@1H of synthetic: 2,481 of 2,500 rows usable; ")
    client = store_of(workdir)
    (run,) = runs_of(client, "cell")
    assert tags.PARENT_RUN not in run.data.tags
    assert not client.search_registered_models()
    done = train_cli(workdir, "model.n_states=2", "promote=true", "quiet=true", *SMALL)
    assert "models:/hmm_regime/Production is version 1" in done.stdout
    assert "synthetic market" not in done.stderr


@pytest.mark.slow
def test_an_installed_wheel_is_the_checkout_with_its_conf_and_starts_anywhere(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(target)
    installed = files_of(target / "hmm_exp")
    assert installed == files_of(ROOT / "hmm_exp") | {
        Path("conf") / name: content for name, content in files_of(ROOT / "conf").items()
    }
    assert {path.suffix for path in installed if path.match("report/templates/*")} == {
        *(".html", ".css", ".js")
    }
    away = tmp_path / "away"
    away.mkdir()
    place = "import hmm_exp; print(hmm_exp.__file__); from hmm_exp.train import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", place, "-m", "features=v1,v2", "model.n_states=2,0"],
        cwd=away,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert str(target) in done.stdout
    assert done.stderr.startswith("error: model.n_states=0: must be at least 1 and at most ")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2


def files_of(folder: Path) -> dict[Path, bytes]:
    """The files of a package by their place in it, without what Python makes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_cells_of_different_data_are_not_played_against_each_other(train_cli, workdir):
    done = train_cli(workdir, "-m", "data.seed=1,2", "model.n_states=2", *SMALL)
    assert done.returncode == 1
    assert "no winner: the spaces hold different data" in done.stdout
    assert "nothing to promote" in done.stdout
