"""Folders that Hydra makes: checked before, and taken away from a refused run with care."""

import pytest

from hmm_exp.errors import ConfigError
from hmm_exp.store.folders import check_folder, remove_run_folder


@pytest.mark.parametrize("folder", ["/proc/x", "file", "file/x/y", "n" * 300, "zero\0byte"])
def test_a_folder_that_cannot_be_made_is_refused_and_nothing_is_left(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^hydra.run.dir=.*: cannot be made and written: "):
        check_folder("hydra.run.dir", folder)
    with pytest.raises(ConfigError, match=r"^hydra.run.dir=ok: cannot be made and written: "):
        check_folder("hydra.run.dir", "ok", inside=str(tmp_path / folder))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def make(folder, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "content").touch()


def test_a_refused_run_takes_away_its_own_folder_and_the_empty_ones_around_it(tmp_path):
    check_folder("hydra.run.dir", str(tmp_path / "a" / "b" / "run"), ".hydra")
    make(tmp_path, "a/b/run/.hydra", "a/b/run", "a/other run")
    remove_run_folder()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "content", "other run"]


@pytest.mark.parametrize("inside", [".hydra", "..", None])
def test_a_refused_run_leaves_a_folder_that_was_there_before_it(tmp_path, inside):
    make(tmp_path, "results", "results/kept")
    check_folder("hydra.run.dir", str(tmp_path / "results"), inside)
    make(tmp_path, "results/.hydra")
    remove_run_folder()
    assert (tmp_path / "results" / "kept" / "content").is_file()
    assert (tmp_path / "results" / ".hydra").exists() == (inside != ".hydra")


def test_an_odd_place_for_hydras_own_files_costs_nothing_else(tmp_path):
    make(tmp_path, "kept")
    check_folder("hydra.run.dir", str(tmp_path / "new"), "..")
    make(tmp_path, "new")
    remove_run_folder()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
