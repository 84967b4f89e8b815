"""How the end of a run that did not finish is told."""

import pytest

from hmm_exp.errors import TrackingError
from hmm_exp.tracking.record import one_line, status_after


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (KeyboardInterrupt(), "interrupted", "KILLED"),
        (EOFError(), "EOFError", "FAILED"),
        (EOFError(" "), "EOFError", "FAILED"),
        (TrackingError(), "TrackingError", "FAILED"),
        (TrackingError("no such\n  run"), "no such run", "FAILED"),
        (ValueError("of\n  two lines"), "ValueError: of two lines", "FAILED"),
    ],
)
def test_an_error_is_one_line_and_an_interrupt_is_no_failure(error, line, status):
    assert (one_line(error), status_after(error)) == (line, status)
