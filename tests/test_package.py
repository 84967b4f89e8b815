"""The package as it is installed: its commands, what it makes public, its types and version."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module

import pytest

import hmm_exp
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMMANDS = PROJECT["project"]["scripts"]
ASKED = {"hmm-train", "hmm-apply", "hmm-promote", "hmm-report", "hmm-monitor"}


def test_the_commands_are_declared():
    assert set(COMMANDS) >= ASKED


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_leads_to_a_function(name):
    module, function = COMMANDS[name].split(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"hmm-train"}))
def test_the_help_of_a_command_has_examples(name, capsys):
    module, function = COMMANDS[name].split(":")
    with pytest.raises(SystemExit) as left:
        getattr(import_module(module), function)(["--help"])
    assert left.value.code == 0
    assert re.search(rf"^ +({name}|python -m {module}) ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem
)
def test_a_script_holds_nothing_that_a_wheel_would_lack(path):
    assert len(path.read_text().splitlines()) <= 15


def test_everything_public_is_there():
    for name in hmm_exp.__all__:
        assert getattr(hmm_exp, name) is not None
    assert dir(hmm_exp) == sorted(hmm_exp.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'fit'"):
        _ = hmm_exp.fit


def test_importing_the_package_costs_nothing():
    program = "import sys, hmm_exp; sys.exit('numpy' in sys.modules or 'omegaconf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_version_is_written_once():
    assert "version" in PROJECT["project"]["dynamic"]
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text()
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "hmm_exp/version.py"
    assert f"## {hmm_exp.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_types_are_shipped():
    assert (ROOT / "hmm_exp" / "py.typed").exists()
