"""A database made from the blank one in the cache is as MLflow makes it, whatever is in there."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from hmm_exp.store import creation
from hmm_exp.store.address import ARTIFACTS, sqlite_uri
from hmm_exp.store.creation import make_database


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of a user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hmm_exp"


def content(database: Path) -> dict[str, list]:
    """Tables with their definitions and rows, without times and the folder of the database."""
    with closing(sqlite3.connect(database)) as connection:
        found: dict[str, list] = {}
        master = connection.execute("SELECT name, type, sql FROM sqlite_master").fetchall()
        for name, kind, text in master:
            lines = (text or "").splitlines()  # MLflow's order of constraints differs by itself
            found[f"{kind} {name}"] = sorted(line.rstrip(", ") for line in lines)
            if kind == "table":
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
                kept = ", ".join(column for column in columns if not column.endswith("_time"))
                found[name] = connection.execute(f"SELECT {kept} FROM {name}").fetchall()
    folder = str(database.parent)
    found["experiments"] = [str(row).replace(folder, "") for row in found["experiments"]]
    return found


def made(folder: Path) -> dict[str, list]:
    folder.mkdir()
    make_database(folder / "mlflow.db")
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
    return content(folder / "mlflow.db")


@pytest.fixture
def by_mlflow(tmp_path) -> dict[str, list]:
    """Content of a database that MLflow alone makes."""
    folder = tmp_path / "by_mlflow"
    folder.mkdir()
    uri = sqlite_uri(folder / "mlflow.db")
    SqlAlchemyStore(uri, (folder / ARTIFACTS).as_uri()).engine.dispose()
    return content(folder / "mlflow.db")


def test_a_database_is_the_same_with_a_blank_one_in_the_cache_and_without(
    cache, tmp_path, by_mlflow, monkeypatch
):
    assert by_mlflow["experiments"]
    assert by_mlflow["alembic_version"]
    assert made(tmp_path / "first") == by_mlflow
    (blank,) = cache.iterdir()
    assert blank.match(f"mlflow-{mlflow.__version__}-*.db")
    monkeypatch.setattr(creation, "_keep_blank", pytest.fail)  # it is not made again
    assert made(tmp_path / "second") == by_mlflow
    assert made(tmp_path / "third") == by_mlflow


def without_a_table(blank: Path) -> None:
    with closing(sqlite3.connect(blank)) as connection, connection:
        connection.execute("DROP TABLE metrics")


def of_another_schema(blank: Path) -> None:
    """As another MLflow of the same version would leave it."""
    with closing(sqlite3.connect(blank)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    blank.rename(blank.with_name(creation._name(creation._digest(blank.read_bytes()))))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda blank: blank.write_bytes(b""),
        lambda blank: blank.write_bytes(b"no database" * 1000),
        lambda blank: os.truncate(blank, blank.stat().st_size // 2),
        without_a_table,
        of_another_schema,
        lambda blank: blank.with_stem(blank.stem + "0").write_bytes(b"one more"),
    ],
    ids=["empty", "no database", "half", "without a table", "another schema", "one more"],
)
def test_a_spoilt_blank_database_is_replaced(cache, tmp_path, by_mlflow, spoil):
    made(tmp_path / "first")
    (blank,) = cache.iterdir()
    good = content(blank)
    spoil(blank)
    assert made(tmp_path / "second") == by_mlflow
    assert good in [content(path) for path in cache.iterdir() if path.stat().st_size > 1000]
    assert made(tmp_path / "third") == by_mlflow


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_costs_time_only(cache, tmp_path, by_mlflow):
    cache.parent.mkdir()
    cache.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert made(tmp_path / "first") == by_mlflow


def test_a_cache_that_is_a_file_costs_time_only(cache, tmp_path, by_mlflow):
    cache.parent.write_text("no folder")
    assert made(tmp_path / "first") == by_mlflow
