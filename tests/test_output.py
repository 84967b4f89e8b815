"""Colours: on a terminal, of labels alone, and none where nobody wants them."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from hmm_exp.commands import monitor, server
from hmm_exp.output import coloured, has_colour, tinted


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    """The writing end of a real pseudo-terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        yield stream
    os.close(ours)


ENDS = """
from hmm_exp.command_line import exit_status
def action(_):
    from numba.core.errors import termcolor
    print(termcolor() and "done")
    return 0
exit_status(action, None)
"""


def test_a_command_leaves_no_escape_code_on_a_terminal_at_exit():
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", ENDS], stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 1000)
    os.close(ours)
    assert shown == b"done\r\n"


@pytest.mark.parametrize(
    ("environment", "on_terminal", "in_pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_a_terminal_has_colours_and_a_pipe_has_none_unless_told(
    environment, on_terminal, in_pipe, terminal, monkeypatch
):
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    assert has_colour(terminal) == on_terminal
    pipe = io.StringIO()
    assert has_colour(pipe) == in_pipe
    print("warning: 3 gaps", file=coloured(pipe))
    assert ("\x1b" in pipe.getvalue()) == in_pipe


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("error: no such file", "error:"),
        ("warning: 3 gaps", "warning:"),
        ("  warning: its lower bound is not above zero", "  warning:"),
        ("promoted: models:/hmm_regime/Production is version 2", "promoted:"),
        ("not promoted:", "not promoted:"),
        ("would be refused:", "would be refused:"),
        ("FAILED: v1@1H diag K=2 (run 1): no", "FAILED:"),
        ("[2/3] v1@1H diag K=3  FAILED: no such file", "FAILED:"),
        (
            "[1/3] a  K=2  BIC 5.0  1.2 s  ineligible: state 0 is empty",
            "ineligible: state 0 is empty",
        ),
    ],
)
def test_only_the_label_of_a_line_has_a_colour(line, label):
    shown = tinted(line)
    before, _, rest = shown.partition("\x1b[")
    code, _, rest = rest.partition("m")
    inside, _, after = rest.partition("\x1b[0m")
    assert code.isdigit()
    assert inside == label
    assert before + inside + after == line


@pytest.mark.parametrize(
    "line",
    ["", "a warning: none", '{"error": 1}', "v1 is promoted: no", "1,2,3", "regime at 2022: calm"],
)
def test_other_lines_stay_as_they_are(line):
    assert tinted(line) == line
    assert tinted(f"{line}\n{line}\n") == f"{line}\n{line}\n"


def test_a_command_has_a_red_error_where_there_are_colours(monkeypatch, capsys):
    words = ["--bars", "b.csv", "--model", "m", "--since", "soon"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert monitor.main(words) == 2
    assert capsys.readouterr().err.startswith("\x1b[31merror:\x1b[0m --since soon")
    with pytest.raises(SystemExit):
        server.parse(("--port", "0"))
    assert capsys.readouterr().err.startswith("\x1b[31merror:\x1b[0m ")
