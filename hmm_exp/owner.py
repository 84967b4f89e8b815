"""Owner tags: host, process and start time of the process that works on a run.

Every RUNNING run has one, so that a dead owner can be distinguished from a slow one. The start time
is needed because process numbers are reused. A process on another host cannot be checked.
"""

import os
import socket
from pathlib import Path


def this_process() -> str:
    """Owner tag of this process: `host pid start`."""
    return tag_of(os.getpid())


def tag_of(pid: int) -> str:
    """Owner tag of a process of this machine."""
    return f"{socket.gethostname()} {pid} {start_of(pid) or '-'}"


def is_alive(owner: str | None) -> bool | None:
    """Whether the process of an owner tag is running; None if it is on another host."""
    try:
        host, pid, started = (owner or "").rsplit(" ", 2)
    except ValueError:
        return False  # runs of earlier versions have no owner
    if host != socket.gethostname():
        return None
    return start_of(int(pid)) == (None if started == "-" else started)


def is_dead(owner: str | None) -> bool:
    """Whether the process of an owner tag is known to be gone."""
    return is_alive(owner) is False


def in_words(owner: str) -> str:
    """An owner tag in words."""
    host, pid, _ = owner.rsplit(" ", 2)
    return f"process {pid} on {host}"


def start_of(pid: int) -> str | None:
    """Start time of a process in kernel ticks; None if it has ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _answers(pid)
    return None if fields[0] in "ZX" else fields[19]


def _answers(pid: int) -> str | None:
    """Whether a process accepts signals, for systems without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "?"
    return "?"
