"""A little of `benchmarks/fuzz.py`: hostile input is a right answer or one line."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_hostile_overrides_are_accepted_or_refused_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--overrides", "45"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert sum(map(int, counts.values())) == 45
    assert int(counts["accepted"]) >= 5  # or the check would be of one thing only
    assert int(counts["refused in one line"]) >= 30
    assert not list(tmp_path.iterdir())
