"""The input of a run: what cannot even be looked at is an error of its path."""

import pytest

from hmm_exp.config import DataConfig
from hmm_exp.errors import DataError
from hmm_exp.experiment.source import read_source


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("n" * 300, "data.path=n+: File name too long"),
        ("zero\0byte", "data.path=zero\0byte: embedded null byte"),
        ("none.csv", "no such file: none.csv"),
        ("file/none.csv", "no such file: file/none.csv"),
        (".", "is a folder"),
    ],
)
def test_a_path_that_holds_no_file_is_refused_by_name(path, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=says):
        read_source(DataConfig(kind="bars", path=path, bar_stamp="open"))
