"""A child that is idle helps its parent: it calls a function of the package there."""

import os
import signal
import sys

import pandas as pd
import pytest

from hmm_exp.report.course import Course, PageCharts
from hmm_exp.report.page import DRAW
from hmm_exp.sweep import child
from hmm_exp.sweep.finish import DRAW_BIC


@pytest.fixture
def helper():
    """The child of this process."""
    yield child.worker()
    child.dismiss()


def test_a_function_is_called_in_the_child(helper):
    assert child.helped("os:getpid")() == helper.pid
    child.dismiss()
    assert child.helped("os:getpid")() == os.getpid()


def test_the_parent_goes_on_until_it_needs_the_result(helper, tmp_path):
    os.mkfifo(path := tmp_path / "pipe")
    result = child.helped("pathlib:Path.read_text", path)  # ends when something is written
    path.write_text("written by the parent")
    assert result() == "written by the parent"


@pytest.mark.parametrize("loss", ["before", "meanwhile"])
def test_what_a_lost_child_cannot_do_is_done_here(helper, loss):
    if loss == "before":
        helper.stop()
    result = child.helped("os:getpid")
    if loss == "meanwhile":
        helper.stop()
    assert result() == os.getpid()


def test_what_fails_there_fails_here_with_its_own_error(helper):
    with pytest.raises(FileNotFoundError):
        child.helped("os:stat", "/no/such/file")()
    assert child.helped("os:getpid")() == helper.pid  # and it still helps


@pytest.mark.skipif(sys.platform != "linux", reason="processes are stopped by SIGSTOP")
@pytest.mark.parametrize("size", [10, 5_000_000])  # a large argument does not fit into the channel
def test_a_child_that_stands_still_is_not_waited_for(helper, monkeypatch, size):
    child.helped("os:getpid")()
    monkeypatch.setattr(child, "_HELP_WITHIN", 1.0)
    os.kill(helper.pid, signal.SIGSTOP)
    assert child.helped("builtins:len", b"x" * size)() == size
    assert helper.gone


def test_what_cannot_be_sent_is_done_here(helper):
    assert child.helped("operator:call", lambda: 3)() == 3


def criteria() -> pd.DataFrame:
    """Criteria of two cells in one space."""
    return pd.DataFrame(
        {
            "space": "v1@1H",
            "covariance": "diag",
            "n_states": [2, 3],
            "bic": [110.0, 100.0],
            "eligible": True,
        }
    )


def course() -> Course:
    """Regimes of two rows, without prices."""
    times = pd.date_range("2024-01-01", periods=2, freq="h", name="available_at")
    regimes = pd.DataFrame({"split": ["train", "val"], "state": [0, 1]}, index=times)
    probs = pd.DataFrame({"p_state_0": [0.9, 0.2], "p_state_1": [0.1, 0.8]}, index=times)
    return Course(["calm", "turbulent"], regimes, probs, None)


def test_it_draws_what_the_end_of_a_sweep_shows(helper, tmp_path):
    child.prepare_help("hmm_exp.report.charts", "no.such.module")
    charts = child.helped(DRAW, course(), criteria())()
    assert isinstance(charts, PageCharts)
    assert charts.timeline is not None
    assert list(charts.criteria) == ["v1@1H"]
    path = tmp_path / "bic.png"
    child.helped(DRAW_BIC, path, criteria(), ("v1@1H", "diag", 3))()
    assert path.read_bytes().startswith(b"\x89PNG")
