"""The command of a run and the package versions it ran with."""

import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

import hmm_exp
from hmm_exp.errors import redacted
from hmm_exp.store.store import git_sha

PROGRAM = "hmm_exp.train"
ENVIRONMENT_FILE = "environment.txt"  # artifact of a sweep's parent and of a single run


def command_line() -> str:
    """The command that started this process, for a shell, without a sweep id and passwords."""
    words = [word for word in sys.argv[1:] if not word.startswith("sweep_id=")]
    script = Path(sys.argv[0])
    start = ["python", "-m", PROGRAM] if script.stem == PROGRAM.split(".")[1] else [script.name]
    return redacted(shlex.join([*start, *words]))


def environment() -> str:
    """Versions of what numbers depend on, one a line: this package, Python, and all it requires."""
    lines = [f"hmm_exp {hmm_exp.__version__}" + (f" (commit {sha})" if (sha := git_sha()) else "")]
    lines.append(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    installed = dict(map(_name_and_version, metadata.distributions()))
    lines += [
        f"{name}=={version}"
        for name, version in sorted(installed.items(), key=lambda item: item[0].lower())
    ]
    return "\n".join(lines) + "\n"


def _name_and_version(found: metadata.Distribution) -> tuple[str, str]:
    """Name and version of a package, from the head of its metadata; parsing all of it is slow."""
    head = (found.read_text("METADATA") or found.read_text("PKG-INFO") or "").split("\n\n", 1)[0]
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    return fields.get("Name", ""), fields.get("Version", "")
