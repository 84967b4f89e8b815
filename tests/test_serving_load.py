"""Detectors are found by any name, in folders and stores, and no code of a model is run."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import mlflow
import pytest
from mlflow.exceptions import MlflowException

from hmm_exp.errors import ModelError, TrackingError
from hmm_exp.serving.load import find_detector, load_detector
from hmm_exp.store.store import TrackingConfig, open_store
from tests.small_detector import candidate, forget_store, small_detector, store_in

HOSTILE = """
artifact_path: model
flavors:
  python_function:
    loader_module: {module}
    code: code
    data: {data}
    python_model: python_model.pkl
model_uuid: m-0
"""
TRAP = "import pathlib\npathlib.Path({mark!r}).touch()\n"


@pytest.fixture
def mark(tmp_path) -> Path:
    """A file that the code of a hostile model makes."""
    return tmp_path / "executed"


def make_hostile(folder: Path, mark: Path, data: str = "data/detector.json") -> None:
    """Turn a model, or an empty folder, into one whose loader, code and pickle leave a mark."""
    module = f"trap_{abs(hash(mark))}"
    for name in ("code", "data"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    small_detector("BTC").save(folder / "data" / "detector.json")
    text = TRAP.format(mark=str(mark))
    (folder / "code" / f"{module}.py").write_text(f"{text}def _load_pyfunc(path):\n    return 1\n")
    (folder / "code" / "sitecustomize.py").write_text(text)
    (folder / "code" / "hmm_exp.py").write_text(text)
    command = f"open({str(mark)!r}, 'w').close()"
    pickled = f"c__builtin__\neval\n(V{command}\ntR.".encode()  # builtins.eval of the command
    for name in ("python_model.pkl", "model.joblib", "scaler.joblib"):
        (folder / name).write_bytes(pickled)
    (folder / "MLmodel").write_text(HOSTILE.format(module=module, data=data))


@pytest.fixture
def unchanged_path(monkeypatch):
    """MLflow puts the code of a model it loads on the path."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("find", [load_detector, lambda place: find_detector(str(place))])
@pytest.mark.parametrize("data", ["data/detector.json", "../secret", "/etc/passwd"])
def test_nothing_of_a_hostile_folder_is_run_or_followed(tmp_path, mark, find, data):
    small_detector("another").save(tmp_path / "secret")
    make_hostile(tmp_path / "model", mark, data)
    before = (list(sys.path), set(sys.modules))
    assert find(tmp_path / "model").name == "BTC"
    assert not mark.exists()
    assert sys.path == before[0]
    assert not {name for name in set(sys.modules) - before[1] if name.startswith("trap_")}


def test_a_folder_of_pickles_holds_no_detector_and_none_is_loaded(tmp_path, mark):
    make_hostile(tmp_path / "model", mark)
    shutil.rmtree(tmp_path / "model" / "data")
    for place in (tmp_path / "model", tmp_path / "model" / "model.joblib"):
        with pytest.raises((ModelError, UnicodeDecodeError)):
            find_detector(str(place))
    assert not mark.exists()


def test_a_hostile_model_of_a_store_is_read_and_not_run_unlike_by_mlflow(
    workdir, mark, monkeypatch, unchanged_path
):
    monkeypatch.chdir(workdir)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_store(TrackingConfig())
    run_id = candidate(store, small_detector("BTC"))
    (model,) = store.client.search_logged_models([store.experiment_id])
    folder = Path(model.artifact_location.removeprefix("file://"))
    make_hostile(folder, mark)
    for uri in (f"models:/{model.model_id}", f"runs:/{run_id}/model", f"runs:/{run_id}"):
        assert load_detector(uri).name == "BTC"
    assert not mark.exists()
    with pytest.raises(MlflowException, match="missing required predict method"):
        mlflow.pyfunc.load_model(f"models:/{model.model_id}", suppress_warnings=True)
    assert mark.exists()  # the traps are some
    mark.unlink()
    pickle.loads((folder / "model.joblib").read_bytes())
    assert mark.exists()
    forget_store()


def filled(folder: Path, empty_store: Path, monkeypatch) -> str:
    """Stand in a new folder with a store that holds a run; gives the run's id."""
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    forget_store()
    run_id = candidate(open_store(TrackingConfig()), small_detector("BTC"))
    forget_store()
    return run_id


@pytest.mark.parametrize("name", ["sp ace", "50% off", "wh?at", "a#b", "q'u\"o", "über", "${x}"])
def test_a_folder_may_have_any_name_and_no_other_is_made(tmp_path, empty_store, name, monkeypatch):
    run_id = filled(tmp_path / name, empty_store, monkeypatch)
    assert load_detector(f"runs:/{run_id}").name == "BTC"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no tracking store at sqlite"):
        load_detector(f"runs:/{run_id}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


BARE = """
import sys, mlflow
for uri in (None, "sqlite:///mlflow.db"):
    mlflow.set_tracking_uri(uri)
    print(mlflow.pyfunc.load_model(sys.argv[1]).get_raw_model().name)
"""


@pytest.mark.slow
def test_bare_mlflow_loads_in_a_folder_of_any_name(tmp_path, empty_store, monkeypatch):
    name = "sp ace 50% off wh?at a#b q'u\"o über ${x}"
    run_id = filled(tmp_path / name, empty_store, monkeypatch)
    command = [sys.executable, "-c", BARE, f"runs:/{run_id}/model"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "BTC\nBTC\n", done.stderr


def test_a_folder_whose_models_mlflow_cannot_load_is_refused_at_once(tmp_path):
    folder = tmp_path / "100%20"
    with pytest.raises(TrackingError, match="% and two hexadecimal digits; rename the folder"):
        open_store(TrackingConfig(uri=f"sqlite:///{folder}%2520/mlflow.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["localhost:5000", "databricks", "runs"])
def test_a_wrong_address_of_the_store_is_named_with_its_variable(uri, monkeypatch):
    forget_store()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ModelError, match=f"no model at models:/a/1: MLFLOW_TRACKING_URI={uri}: "):
        load_detector("models:/a/1")


def test_looking_up_a_model_leaves_the_environment_as_it_is(workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    forget_store()
    for value in (None, f"sqlite:///{workdir}/mlflow.db"):
        if value is None:
            monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        else:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", value)
        with pytest.raises(ModelError, match="no model at"):
            load_detector("models:/nothing/1")
        assert os.environ.get("MLFLOW_TRACKING_URI") == value


def test_a_run_is_found_by_its_id_and_by_its_uri(tmp_path):
    run_id = candidate(store_in(tmp_path), small_detector())
    try:
        for name in (run_id, f"runs:/{run_id}", f"runs:/{run_id}/model"):
            assert find_detector(name).meta == small_detector().meta
    finally:
        forget_store()


def test_a_folder_and_a_file_are_found(tmp_path):
    (tmp_path / "model" / "data").mkdir(parents=True)
    small_detector().save(tmp_path / "model" / "data" / "detector.json")
    small_detector().save(tmp_path / "detector.json")
    for path in (tmp_path, tmp_path / "detector.json", tmp_path / "model"):
        assert find_detector(str(path)).labels == ("calm", "turbulent")


def test_what_is_nowhere_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no detector at"):
        find_detector(str(tmp_path / "nothing"))


def refusal(name) -> str:
    """The line that refuses a name; both ways of loading give the same."""
    lines = set()
    for find in (find_detector, load_detector):
        with pytest.raises(ModelError) as caught:
            find(str(name))
        lines.add(str(caught.value))
    (line,) = lines
    assert line.isprintable()
    return line


@pytest.mark.parametrize("name", ["model.joblib", "scaler.joblib", "model.pkl", "model"])
def test_a_pickle_is_never_loaded_and_the_detector_near_it_is_named(tmp_path, name):
    pickle = tmp_path / name
    joblib.dump({"a": 1}, pickle)
    assert "is no detector but a pickle, which is never loaded; give a detector.json" in refusal(
        pickle
    )
    (tmp_path / "data").mkdir()
    small_detector().save(tmp_path / "data" / "detector.json")
    assert refusal(pickle).endswith(f"never loaded; give {tmp_path}/data/detector.json")


def test_a_folder_of_pickles_is_refused_by_name(tmp_path):
    for name in ("model.joblib", "scaler.joblib"):
        joblib.dump({"a": 1}, tmp_path / name)
    line = refusal(tmp_path)
    assert "model.joblib and scaler.joblib are pickles, never loaded; give a detector.json" in line


def test_files_and_folders_of_a_run_name_its_model(tmp_path):
    store = store_in(tmp_path)
    candidate(store, small_detector())
    run_id = candidate(store, small_detector(name="other"))
    artifacts = Path(store.client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    joblib.dump({"a": 1}, artifacts / "model.joblib")
    forget_store()
    for place in (artifacts, artifacts / "model.joblib", artifacts / "regimes.csv"):
        _, _, model = refusal(place).partition(f"; give runs:/{run_id} or ")
        assert find_detector(model).name == "other"
        assert f"give {model}/data/detector.json" in refusal(f"{model}/MLmodel")
        assert f"give {model}/data/detector.json" in refusal(Path(model).parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "a zip archive"),
        (b"\x08\x07\x12\x04onnx\xff", "a binary file"),
        (b"a,b\n1,2\n", "no JSON object"),
        (b'{"format": 2}', "is a damaged detector"),
    ],
)
def test_a_file_of_something_else_is_one_line(tmp_path, content, message):
    (tmp_path / "thing").write_bytes(content)
    assert message in refusal(tmp_path / "thing")


def test_a_damaged_detector_of_a_run_is_named_by_its_uri(tmp_path):
    run_id = candidate(store_in(tmp_path), small_detector())
    try:
        (file,) = tmp_path.rglob("detector.json")
        file.write_text(file.read_text().replace('"calm"', '"calf"'))
        with pytest.raises(ModelError, match=rf"^runs:/{run_id}/model\S* is a damaged detector"):
            find_detector(run_id)
    finally:
        forget_store()
