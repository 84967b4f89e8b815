"""An error as one line: its text, what the machine refuses, or its type and text."""

import errno
import os
import pickle
import shutil
import sqlite3

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from hmm_exp.errors import (
    LONGEST_LINE,
    DataError,
    FeatureError,
    FitError,
    described,
    features_named,
    interrupt_behind,
    one_line,
    refusal,
)


def system_error(number: int, *files: str) -> OSError:
    first, *second = files or (None,)
    return OSError(number, os.strerror(number), first, None, *second)


READ_ONLY = "cannot write to /x: Read-only file system"
FULL = sqlite3.OperationalError("database or disk is full")
COPIED = shutil.Error([("a.png", "b/a.png", str(system_error(errno.ENOSPC, "a.png", "b/a.png")))])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (system_error(errno.ENOSPC), "No space left on device"),
        (system_error(errno.ENOSPC, "x.csv"), "No space left on device: x.csv"),
        (system_error(errno.EDQUOT, "x.csv"), "Disk quota exceeded: x.csv"),
        (system_error(errno.EROFS, "part", "x.csv"), "Read-only file system: x.csv"),
        (system_error(errno.EMFILE, "x.csv"), "Too many open files: x.csv"),
        (system_error(errno.EFBIG), "File too large"),
        (COPIED, "No space left on device: b/a.png"),
        (FULL, "database or disk is full"),
        (OperationalError("INSERT INTO runs ...", {}, FULL), "database or disk is full"),
        (MlflowException(f"(sqlite3.OperationalError) {FULL}\n(Background)"), str(FULL)),
        (OSError("[Errno 28] Error writing. No space left on device"), "No space left on device"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_what_the_machine_refuses_is_told_in_its_own_words(error, line):
    assert refusal(error) == line
    assert described(error) == line


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "No such file"), ValueError("full"), MlflowException("gone")]
)
def test_another_error_is_no_refusal(error):
    assert refusal(error) is None
    assert described(error).startswith(f"{type(error).__name__}: ")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (EOFError(), "EOFError"),
        (EOFError(" "), "EOFError"),
        (DataError(), "DataError"),
        (DataError("no such\n  file"), "no such file"),
        (DataError(READ_ONLY), READ_ONLY),
        (ValueError("of\n  two lines"), "ValueError: of two lines"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_any_error_is_described_in_one_line(error, line):
    assert described(error) == line


def hidden_by(second: Exception, error: BaseException, chain: object) -> Exception:
    """An error of a clean-up that came after another, as libraries raise it."""
    try:
        try:
            raise error
        finally:
            if chain == "plain":
                raise second
            raise second from chain
    except Exception as raised:
        return raised


@pytest.mark.parametrize("chain", ["plain", None, ValueError("what the clean-up met")])
def test_an_interrupt_behind_another_error_is_found(chain):
    interrupt = KeyboardInterrupt()
    once = hidden_by(AttributeError("half made"), interrupt, chain)
    twice = hidden_by(DataError("unreadable"), once, chain)
    for error in (interrupt, once, twice):
        assert interrupt_behind(error) is interrupt
        assert described(error) == "interrupted"
    failed = hidden_by(DataError("unreadable"), ValueError("no"), chain)
    assert interrupt_behind(failed) is None
    assert described(failed) == "unreadable"


@pytest.mark.parametrize("longest", [60, 130, 294, 1000])
def test_a_line_is_bounded_and_keeps_both_ends(longest):
    text = "begin " + "x" * 5000 + " end"
    assert len(one_line(text, longest)) == longest
    assert one_line(text, longest).startswith("begin ")
    assert one_line(text, longest).endswith(" end")
    assert len(f"error: {described(ValueError(text))}") <= LONGEST_LINE


def test_a_feature_of_an_engine_gets_the_name_of_its_column():
    error = FeatureError("feature 1 is constant: leave feature 12 out", feature=1)
    again = pickle.loads(pickle.dumps(error))
    assert (again.feature, str(again)) == (1, str(error))
    named = r"^vol_1H is constant: leave feature 12 out$"
    with pytest.raises(FitError, match=named), features_named(["ret_1H", "vol_1H"]):
        raise again
    with pytest.raises(FitError, match=r"^no start$"), features_named([]):
        raise FitError("no start")
