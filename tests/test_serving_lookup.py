"""A detector is found by every name that a command line may give."""

from pathlib import Path

import joblib
import pytest

from hmm_exp.errors import ModelError
from hmm_exp.serving.load import load_detector
from hmm_exp.serving.lookup import find_detector
from tests.small_detector import candidate, forget_store, small_detector, store_in


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


def test_a_folder_of_pickles_says_that_they_are_not_loaded(tmp_path):
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
