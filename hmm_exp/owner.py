"""The process that works on a run: host, number and start, to distinguish a dead from a slow one.

It is a tag on every RUNNING run. A process number alone is reused by the system. A process on
another host cannot be checked: its state is unknown.
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
    """Whether the process of an owner tag still runs; None when it is on another host."""
    try:
        host, pid, started = (owner or "").rsplit(" ", 2)
    except ValueError:
        return False  # from before runs had owners
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
    """When a process started, in the kernel's ticks; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _answers(pid)
    return None if fields[0] in "ZX" else fields[19]


def _answers(pid: int) -> str | None:
    """Where there is no /proc: whether the process takes signals."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "?"
    return "?"
