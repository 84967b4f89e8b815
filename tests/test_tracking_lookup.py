"""A detector is found by every name that a command line may give."""

import pytest

from hmm_exp.errors import ModelError
from hmm_exp.tracking.lookup import find_detector
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
