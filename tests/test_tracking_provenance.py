"""What a run tells of how it was started."""

import shlex
import sys
from importlib import metadata

import hmm_exp
from hmm_exp.tracking.provenance import command_line, environment


def test_the_command_is_what_a_shell_reads_without_the_sweep_it_went_on_with(monkeypatch):
    words = ["-m", "model.n_states=2,3", "data.path='my bars.csv'", "sweep_id=20240101-000000-abcd"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/hmm_exp/train.py", *words])
    assert shlex.split(command_line()) == ["python", "-m", "hmm_exp.train", *words[:-1]]
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/hmm-train", "-m"])
    assert command_line() == "hmm-train -m"


def test_the_environment_names_versions():
    lines = environment().splitlines()
    assert lines[0].startswith(f"hmm_exp {hmm_exp.__version__}")
    assert lines[1].startswith("Python 3.")
    assert any(line.startswith("hmmlearn==") for line in lines)
    whole = {f"{one.metadata['Name']}=={one.version}" for one in metadata.distributions()}
    assert set(lines[2:]) == whole
