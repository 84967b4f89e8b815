"""A SQLite store that was moved or copied: its database names the folder of artifacts absolutely.

MLflow resolves every place of artifacts when it writes it into the database, so that a store
cannot be moved with `mv` alone. `check_place` refuses one before MLflow makes the old folder anew;
`relocate` writes into the database where the artifacts lie now.
"""

import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from mlflow.utils.file_utils import local_file_uri_to_path

from hmm_exp.errors import TrackingError
from hmm_exp.store.address import ARTIFACTS, DATABASE, sqlite_uri

_PLACES = (  # columns in which MLflow keeps addresses of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
_SOME = 20  # runs that show where the artifacts of all lie


def check_name(database: Path) -> None:
    """Refuse a folder from which MLflow cannot load models: it decodes their path twice.

    Raises TrackingError; the database need not exist yet.
    """
    if re.search("%[0-9A-Fa-f]{2}", str(database.parent)):
        raise TrackingError(
            f"{database.parent}: MLflow loads no models from a path with % and two hexadecimal "
            "digits; rename the folder or set tracking.uri to a store elsewhere"
        )


def check_place(database: Path) -> None:
    """Refuse a store whose artifacts are recorded elsewhere than they lie. Raises TrackingError."""
    for place in elsewhere(database):
        option = "" if database == Path.cwd() / DATABASE else _option(database)
        raise TrackingError(
            f"{database} was moved or copied: it keeps its artifacts in {place}; move it back, or "
            f"use those in its own folder from now on: hmm-sweeps{option} relocate"
        )


def elsewhere(database: Path) -> list[Path]:
    """Folders in which the database of a moved or copied store looks for its artifacts.

    Such a folder has the name that this package gives it, lies in another folder than the database,
    and is gone, or has a database of that name next to it, or its runs lie in the folder of this
    database. Any other place of artifacts was chosen, and stays.
    """
    here = database.parent / ARTIFACTS
    with closing(_opened(database)) as connection:
        return [
            place
            for place in dict.fromkeys(_recorded(connection))
            if place.resolve() != here.resolve()
            and (
                not place.exists()
                or (place.parent / database.name).is_file()
                or any((here / run).is_dir() for run in _runs(connection, place, most=_SOME))
            )
        ]


def relocate(database: Path) -> list[str]:
    """Let a moved or copied store use the artifacts in its folder; gives what was done.

    Raises
    ------
    TrackingError
        When there are none, or some lie only where the store was.
    """
    from filelock import FileLock  # a stored model, which has this module too, does without

    here = database.parent / ARTIFACTS
    places = elsewhere(database)
    if not places:
        return [f"{database} was neither moved nor copied: nothing is changed"]
    if not here.is_dir():
        raise TrackingError(f"there is no {here}: move or copy {places[0]} there first")
    lines = []
    with FileLock(f"{database}.lock"), closing(sqlite3.connect(database)) as connection, connection:
        for place in places:
            left = [run for run in _runs(connection, place) if _only_in(place, here, run)]
            if left:
                raise TrackingError(
                    f"{len(left)} runs have their artifacts only in {place} (first {left[0]}): "
                    f"copy what {here} lacks from there first"
                )
            changed = sum(_rewritten(connection, place, here, *column) for column in _PLACES)
            lines.append(f"{changed} addresses of artifacts lead to {here}, no longer to {place}")
    return lines


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)


def _recorded(connection: sqlite3.Connection) -> Iterator[Path]:
    """Folders of the experiments that have the name of ours."""
    query = "SELECT artifact_location FROM experiments WHERE lifecycle_stage = 'active'"
    for (location,) in connection.execute(query):
        if location and location.startswith("file:"):
            place = Path(local_file_uri_to_path(location))
            if place.name == ARTIFACTS:
                yield place


def _runs(connection: sqlite3.Connection, place: Path, most: int = -1) -> list[str]:
    """Ids of the runs whose artifacts are recorded in a folder, the oldest first."""
    start = f"{place.as_uri()}/"
    query = (
        "SELECT run_uuid FROM runs WHERE substr(artifact_uri, 1, ?) = ? ORDER BY start_time LIMIT ?"
    )
    return [run for (run,) in connection.execute(query, (len(start), start, most))]


def _only_in(place: Path, here: Path, run: str) -> bool:
    return (place / run).is_dir() and not (here / run).is_dir()


def _rewritten(
    connection: sqlite3.Connection, old: Path, new: Path, table: str, column: str
) -> int:
    """Replace a folder at the start of the addresses in a column; gives how many changed."""
    changed = 0
    for before, now in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
        found = connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
        )
        changed += found.rowcount
    return changed


def _option(database: Path) -> str:
    return f" --tracking-uri {shlex.quote(sqlite_uri(database))}"
