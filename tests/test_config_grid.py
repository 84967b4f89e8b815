"""The grid of a sweep, written out before Hydra makes cells of it."""

import pytest

from hmm_exp.config.grid import MOST_CELLS, as_word, grid
from hmm_exp.errors import ConfigError


def values(word: str) -> list[str]:
    (words,) = grid([word]).values()
    return [one.partition("=")[2] for one in words]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model.n_states=3", ["3"]),
        ("model.n_states=2,3", ["2", "3"]),
        ("model.n_states=range(2,6)", ["2", "3", "4", "5"]),
        ("model.n_states=sort(3,2)", ["2", "3"]),
        ("model.tol=range(0.1,0.3,0.1)", ["0.1", "0.2"]),
        ("data.name='a, b','c'", ["'a, b'", "'c'"]),
        ("features.columns=[a,b],[c]", ["[a,b]", "[c]"]),
        ("~experiment", ["null"]),
    ],
)
def test_every_way_to_sweep_becomes_a_list(word, expected):
    assert values(word) == expected


def test_a_list_reads_back_as_the_same_list():
    for word in ("data.name='a, b',c\\,d,\"e\"", "model.n_states=range(2,6)", "features=v1"):
        (words,) = grid([word]).values()
        assert list(grid([as_word(words)]).values()) == [words]


def test_a_later_word_takes_the_place_of_an_earlier_one():
    assert grid(["model.n_states=2", "features=v1", "model.n_states=3,4"]) == {
        "model.n_states": ["model.n_states=3", "model.n_states=4"],
        "features": ["features=v1"],
    }


def test_a_glob_over_paths_gives_files_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a, 60.csv", "c.txt", "old.csv"):
        (tmp_path / name).touch()
    (tmp_path / "folder.csv").mkdir()
    assert values("data.path=glob(*.csv,exclude=old*)") == ['"a, 60.csv"', '"b.csv"']
    monkeypatch.setenv("HOME", str(tmp_path))
    assert values("data.path=glob('~/b*')") == [f'"{tmp_path}/b.csv"']


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("data.path=glob(nothing*)", "no value to sweep over"),
        ("model.n_states=range(5,2)", "no value to sweep over"),
        ("model.n_states=range(1,5,0)", "must be a range such as range(2,6)"),
        ("model.n_states=range(1,nan)", "must be a range such as range(2,6)"),
        ("model.n_states=range(1,1000000000000)", f"at most {MOST_CELLS:,} cells"),
        ("model.tol=shuffle(range(0,1,1e-9))", f"at most {MOST_CELLS:,} cells"),
        ("model.tol=range(0,inf)", f"at most {MOST_CELLS:,} cells"),
        ("model.tol=interval(0,1)", "name the values to sweep"),
        ("model.n_init=1,range(1,3)", "is itself a sweep"),
    ],
)
def test_a_sweep_that_cannot_be_listed_is_refused(word, says):
    with pytest.raises(ConfigError, match=says.replace("(", r"\(").replace(")", r"\)")):
        grid([word])
