"""Detect and repair a SQLite store that was moved or copied.

MLflow records absolute paths of artifacts, so that a store cannot be moved with `mv` alone.
`check_place` refuses a moved store before MLflow recreates the old folder; `relocate` updates the
paths in the database.
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

_PLACES = (  # columns with addresses of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
_SAMPLE = 20  # runs checked to locate the artifacts


def check_name(database: Path) -> None:
    """Refuse a folder from which MLflow cannot load models, since it decodes their path twice.

    Raises TrackingError. The database need not exist yet.
    """
    if re.search("%[0-9A-Fa-f]{2}", str(database.parent)):
        raise TrackingError(
            f"{database.parent}: MLflow loads no models from a path with % and two hexadecimal "
            "digits; rename the folder or set tracking.uri to a store elsewhere"
        )


def check_place(database: Path) -> None:
    """Refuse a store whose artifacts are not in the recorded place. Raises TrackingError."""
    for place in outdated_places(database):
        is_default = database == Path.cwd() / DATABASE
        option = "" if is_default else f" --tracking-uri {shlex.quote(sqlite_uri(database))}"
        raise TrackingError(
            f"{database} was moved or copied: its artifacts are recorded in {place}; move it back, "
            f"or switch to the artifacts in its own folder: hmm-sweeps{option} relocate"
        )


def outdated_places(database: Path) -> list[Path]:
    """Recorded artifact folders that show that the store was moved or copied.

    Such a folder has this package's name for it and is not next to the database. Also, it is gone,
    or has a database of the same name next to it, or its runs are next to this database. Any other
    place was chosen by the user.
    """
    here = database.parent / ARTIFACTS
    read_only = f"file:{quote(str(database))}?mode=ro"
    with closing(sqlite3.connect(read_only, uri=True)) as connection:
        return [
            place
            for place in dict.fromkeys(_recorded(connection))
            if place.resolve() != here.resolve()
            and (
                not place.exists()
                or (place.parent / database.name).is_file()
                or any((here / run).is_dir() for run in _runs(connection, place, most=_SAMPLE))
            )
        ]


def relocate(database: Path) -> list[str]:
    """Point a moved or copied store at the artifacts in its folder; return lines to print.

    Raises TrackingError if there are none, or some are only in the old place.
    """
    from filelock import FileLock  # not needed by stored models, which contain this module

    here = database.parent / ARTIFACTS
    places = outdated_places(database)
    if not places:
        return [f"{database} was neither moved nor copied: nothing to change"]
    if not here.is_dir():
        raise TrackingError(f"there is no {here}: move or copy {places[0]} there first")
    lines = []
    with FileLock(f"{database}.lock"), closing(sqlite3.connect(database)) as connection, connection:
        for place in places:
            runs = _runs(connection, place)
            left = [run for run in runs if (place / run).is_dir() and not (here / run).is_dir()]
            if left:
                raise TrackingError(
                    f"{len(left)} runs have their artifacts only in {place} (first {left[0]}): "
                    f"copy what {here} lacks from there first"
                )
            changed = sum(_replace_folder(connection, place, here, *column) for column in _PLACES)
            lines.append(f"changed {changed} artifact addresses from {place} to {here}")
    return lines


def _recorded(connection: sqlite3.Connection) -> Iterator[Path]:
    """Artifact folders of experiments with this package's name for them."""
    query = "SELECT artifact_location FROM experiments WHERE lifecycle_stage = 'active'"
    for (location,) in connection.execute(query):
        if location and location.startswith("file:"):
            place = Path(local_file_uri_to_path(location))
            if place.name == ARTIFACTS:
                yield place


def _runs(connection: sqlite3.Connection, place: Path, most: int = -1) -> list[str]:
    """Ids of the runs with artifacts recorded in a folder, oldest first."""
    start = f"{place.as_uri()}/"
    query = (
        "SELECT run_uuid FROM runs WHERE substr(artifact_uri, 1, ?) = ? ORDER BY start_time LIMIT ?"
    )
    return [run for (run,) in connection.execute(query, (len(start), start, most))]


def _replace_folder(
    connection: sqlite3.Connection, old: Path, new: Path, table: str, column: str
) -> int:
    """Replace a folder at the start of a column's addresses; return the number of changes."""
    changed = 0
    for before, now in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
        found = connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
        )
        changed += found.rowcount
    return changed
