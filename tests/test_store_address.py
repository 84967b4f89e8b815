"""Addresses of stores: one way between a SQLite address and its path, and advice for wrong ones."""

import os
from pathlib import Path

import pytest
from sqlalchemy import make_url

from hmm_exp.errors import LONGEST_LINE, TrackingError, one_line
from hmm_exp.store.address import VARIABLE, resolve_uri, sqlite_path, sqlite_uri

FOLDERS = ["plain", "sp ace", "a#b", "wh?at", "50% off", "%41", "q'u\"o", "über", "x%2520y?z=1"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to stand in, and no address in the environment."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", FOLDERS)
def test_a_path_comes_back_from_its_address_and_sqlalchemy_opens_it(here, name):
    path = here / name / "mlflow.db"
    path.parent.mkdir()
    uri = sqlite_uri(path)
    assert sqlite_path(uri) == path
    assert make_url(uri).database == str(path)
    assert resolve_uri(uri) == uri


@pytest.mark.parametrize("name", FOLDERS)
def test_the_default_is_the_database_of_this_folder(here, name, monkeypatch):
    (here / name).mkdir()
    monkeypatch.chdir(here / name)
    assert sqlite_path(resolve_uri()) == here / name / "mlflow.db"
    assert sqlite_path(resolve_uri("sqlite:///mlflow.db")) == here / name / "mlflow.db"


def test_an_address_is_read_encoded_and_as_it_is_written(here):
    (here / "sp ace").mkdir()
    assert sqlite_path(f"sqlite:///{here}/sp%20ace/a.db") == here / "sp ace" / "a.db"
    assert sqlite_path(f"sqlite:///{here}/sp ace/a.db") == here / "sp ace" / "a.db"
    (here / "x%20y").mkdir()
    assert sqlite_path(f"sqlite:///{here}/x%20y/a.db") == here / "x%20y" / "a.db"
    assert sqlite_path("http://localhost:5000") is None


ADVICE = {
    "localhost:5000": "write http://localhost:5000",
    "127.0.0.1:8080/mlflow": "write http://127.0.0.1:8080/mlflow",
    "[::1]:5000": "write http://[::1]:5000",
    "localhost": "write http://localhost",
    "http:/localhost": "write http://localhost",
    "https:example.com": "write https://example.com",
    "http://": "write http://localhost:5000",
    "http://host:99999": "names no host and port",
    "http://:5000": "names no host and port",
    "databricks": "Databricks is not supported",
    "databricks-uc": "Databricks is not supported",
    "databricks://me": "Databricks is not supported",
    "uc:http://host": "Databricks is not supported",
    "runs": "in plain folders; write sqlite:///runs/mlflow.db",
    "/srv/runs/": "in plain folders; write sqlite:////srv/runs/mlflow.db",
    "file:///srv/runs": "in plain folders; write sqlite:////srv/runs/mlflow.db",
    "file:runs": "in plain folders; write sqlite:///runs/mlflow.db",
    "/srv/a.db": "write sqlite:////srv/a.db",
    "sqlite://x.db": "write sqlite:///x.db",
    "sqlite:x.db": "write sqlite:///x.db",
    "sqlite:/srv/x.db": "write sqlite:////srv/x.db",
    "sqlite:///": "names no file; write sqlite:///mlflow.db",
    "sqlite:///:memory:": "ends with its process",
    "sqlite:///~/x.db": "~ is not expanded",
    "sqlite:////tmp": "is a folder; write sqlite:////tmp/mlflow.db",
    "sqlite:///x.db?timeout=30": "takes no options; write sqlite:///x.db",
    "postgres://me@host/runs": "write postgresql+psycopg2://",
    "s3://bucket/runs": "is not an address of an MLflow store",
    "": "is empty",
    " \t": "is empty",
}


@pytest.mark.parametrize("uri", ADVICE)
def test_a_wrong_address_gets_the_advice_of_its_kind(here, uri, monkeypatch):
    for given, setting in ((uri, "--tracking-uri"), (uri, "tracking.uri"), (None, VARIABLE)):
        if given is None:
            if not uri:
                continue  # an empty variable is one that is not set
            monkeypatch.setenv(VARIABLE, uri)
        with pytest.raises(TrackingError) as caught:
            resolve_uri(given, setting)
        line = str(caught.value)
        assert line.startswith(setting)
        assert ADVICE[uri] in line
    assert not list(here.iterdir())


def test_a_long_address_gives_a_line_of_bounded_length():
    with pytest.raises(TrackingError) as caught:
        resolve_uri("x" * 10_000)
    assert len(one_line(caught.value)) <= LONGEST_LINE
    assert one_line(caught.value).endswith("mlflow.db")


@pytest.mark.parametrize(
    ("uri", "resolved"),
    [
        ("http://host:5000", "http://host:5000"),
        (" HTTPS://host/mlflow ", "https://host/mlflow"),
        ("postgresql+psycopg2://me@host/runs", "postgresql+psycopg2://me@host/runs"),
        ("mysql+pymysql://me:word@host/runs", "mysql+pymysql://me:word@host/runs"),
    ],
)
def test_a_sound_address_is_taken(uri, resolved):
    assert resolve_uri(uri) == resolved


def test_an_address_without_its_login_gets_it_from_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, "postgresql://me:word@host/runs")
    assert resolve_uri("postgresql://me@host/runs") == os.environ[VARIABLE]
    assert resolve_uri("postgresql://me@other/runs") == "postgresql://me@other/runs"
    monkeypatch.setenv(VARIABLE, "")
    assert sqlite_path(resolve_uri()) == Path.cwd() / "mlflow.db"


@pytest.mark.parametrize(
    ("uri", "line"),
    {
        "me:s3cret@localhost:5000": "localhost:5000: write http://localhost:5000",
        "http:/me:s3cret@host:5000": "http:/host:5000: write http://host:5000",
        "http://me:s3/cret@host": "http://host: its login has a character to encode",
        "postgres://me:s3cret@host/runs": "postgres://host/runs: the scheme is postgresql",
    }.items(),
)
def test_a_refused_address_is_shown_without_its_login(uri, line):
    with pytest.raises(TrackingError, match=f"tracking.uri={line}") as caught:
        resolve_uri(uri)
    assert "s3" not in str(caught.value)
