"""What SIGINT and SIGTERM raise arrives, whatever swallows it, and leaves its handling alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from hmm_exp import interrupts
from hmm_exp.interrupts import (
    TerminatedError,
    exit_status,
    ignore_further,
    interrupt_of,
    listening,
)

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


class Dropped:
    """An object whose destructor is interrupted; Python drops what that raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        send(self.number)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(1)


def caught(number: int) -> None:
    with suppress(BaseException):  # as a library may
        send(number)


def caught_again_and_again(number: int) -> None:
    for _ in range(3):
        caught(number)


@pytest.mark.parametrize(("number", "status"), SIGNALS)
@pytest.mark.parametrize("swallow", [Dropped, caught, caught_again_and_again])
def test_a_swallowed_interrupt_arrives_again(swallow, number, status, capsys):
    def work() -> None:
        swallow(number)
        time.sleep(10)

    with listening(), pytest.raises(KeyboardInterrupt) as raised:
        work()
    assert exit_status(raised.value) == status
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_an_error_after_a_swallowed_interrupt_counts_as_the_interrupt(number, status):
    error = ImportError("a compiled module failed to import")
    with listening():
        assert interrupt_of(error) is None
        caught(number)
        found = interrupt_of(error)
    assert exit_status(found) == status
    assert interrupt_of(error) is None  # outside of the block


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_handling_of_an_interrupt_is_not_disturbed(number):
    ended = []

    def work() -> None:
        try:
            send(number)
        finally:
            try:
                time.sleep(0.7)  # longer than it takes to see that nobody handles a signal
                raise ValueError("half made")
            except ValueError:
                time.sleep(0.7)
            ended.append(True)

    with listening():
        with pytest.raises(KeyboardInterrupt):
            work()
        ignore_further()
        send(number)
    assert ended == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("later", [False, True])
def test_further_signals_within_a_moment_do_not_cut_off_the_end(number, later, monkeypatch):
    ended = []

    def work() -> None:
        try:
            send(number)
        finally:
            for again in (number, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), again)
                time.sleep(0.05)
            ended.append(True)

    if later:
        monkeypatch.setattr(interrupts, "_ONE_STOP", 0.0)
    with listening(), pytest.raises(KeyboardInterrupt) as raised:
        work()
    assert ended == ([] if later else [True])
    if not later:
        assert exit_status(raised.value) == dict(SIGNALS)[number]


def test_what_was_there_before_is_there_afterwards():
    before = [signal.getsignal(number) for number, _ in SIGNALS]
    hook = sys.unraisablehook
    with listening():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number, _ in SIGNALS] == before
    assert sys.unraisablehook is hook


def test_another_thread_listens_to_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with listening():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_signal_that_is_ignored_from_the_start_stays_so():
    program = (
        "import os, signal, time\n"
        "from hmm_exp.interrupts import listening\n"
        "with listening():\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(.5); print('went on')\n"
    )

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    done = subprocess.run(
        [sys.executable, "-c", program], preexec_fn=ignore, capture_output=True, text=True
    )
    assert done.stdout == "went on\n", done.stderr


def test_sigterm_is_an_interrupt():
    assert issubclass(TerminatedError, KeyboardInterrupt)
