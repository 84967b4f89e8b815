"""Find and end processes in a server's folder: a running hmm-server, or leftovers of a killed one.

    occupied = FolderInUse.of(folder)
    if occupied.left:
        print(occupied.in_words())
        occupied.end()

`server.json` names processes by owner tags, so that a reused process number is not mistaken.
PostgreSQL is identified by its `postmaster.pid` and its working folder.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hmm_exp import owner
from hmm_exp.errors import TrackingError
from hmm_exp.files import written_beside

RECORD = "server.json"
_ENDS_WITHIN = 20.0  # seconds
_PROC = Path("/proc")


@dataclass(frozen=True)
class FolderInUse:
    """Processes running in a server's folder."""

    main: str | None  # the hmm-server of the folder, in words; None if none runs
    mlflow: int | None  # process group of the folder's MLflow server
    postgres: int | None  # process number of the folder's PostgreSQL

    @classmethod
    def of(cls, folder: Path) -> "FolderInUse":
        """Find the processes of a folder, which need not exist."""
        known = _read(folder)
        main = known.get("main", "")
        return cls(
            main=owner.in_words(main) if owner.is_alive(main) else None,
            mlflow=_live_group(known.get("mlflow"), folder),
            postgres=postmaster(folder / "database"),
        )

    @property
    def left(self) -> bool:
        """Whether processes are left without an hmm-server."""
        return self.main is None and (self.mlflow is not None or self.postgres is not None)

    def in_words(self) -> str:
        """Name the processes."""
        named = {"MLflow": self.mlflow, "PostgreSQL": self.postgres}
        return " and ".join(f"{name} (process {pid})" for name, pid in named.items() if pid)

    def end(self) -> None:
        """End MLflow, then PostgreSQL. Raises TrackingError if one does not end."""
        if self.mlflow is not None:
            _end_group(self.mlflow)
        if self.postgres is not None:
            _end_postmaster(self.postgres)


def write_record(folder: Path, server_pid: int) -> None:
    """Record this process and its MLflow server."""
    record = {"main": owner.this_process(), "mlflow": owner.tag_of(server_pid)}
    with written_beside(folder / RECORD) as part:
        part.write_text(json.dumps(record, indent=1) + "\n")


def forget(folder: Path) -> None:
    """Remove the record after its processes have ended."""
    (folder / RECORD).unlink(missing_ok=True)


def _read(folder: Path) -> dict[str, str]:
    """The record of a folder; empty if it is missing or damaged."""
    with suppress(OSError, ValueError):
        record = json.loads((folder / RECORD).read_text())
        return record if isinstance(record, dict) else {}
    return {}


def _live_group(tag: str | None, folder: Path) -> int | None:
    """Process group of a recorded server, if a member is alive."""
    if tag is None:
        return None
    pid = int(tag.split()[-2])
    here = [member for member in _members(pid) if _works_in(member, folder)]
    return pid if owner.is_alive(tag) or here else None


def _members(group: int) -> list[int]:
    """Processes of a group without zombies."""
    found = []
    for place in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of = place.read_text().rsplit(")", 1)[1].split()[:3]
            found += [int(place.parent.name)] if int(of) == group and state not in "ZX" else []
    return found


def postmaster(data: Path) -> int | None:
    """Process number of the PostgreSQL of a data folder."""
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if _works_in(pid, data) else None


def _works_in(pid: int, folder: Path) -> bool:
    """Whether a process is alive and its working folder is `folder` (unchecked without /proc)."""
    if owner.start_of(pid) is None:
        return False
    try:
        return (_PROC / str(pid) / "cwd").readlink() == folder.resolve()
    except OSError:
        return not _PROC.is_dir()


def _end_group(group: int) -> None:
    """End a process group by SIGTERM, then by SIGKILL."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(group, signal_number)
        if _wait_until(lambda: not _members(group)):
            return
    raise TrackingError(f"MLflow (process group {group}) does not end: kill it")


def _end_postmaster(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)  # a fast shutdown
    if not _wait_until(lambda: owner.start_of(pid) is None):
        raise TrackingError(f"PostgreSQL (process {pid}) does not end: kill it")


def _wait_until(ended: Callable[[], bool]) -> bool:
    """Wait until `ended` is true; False if it takes too long."""
    until = time.monotonic() + _ENDS_WITHIN
    while not ended():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
