"""The lease that serialises promotions among machines, on a real store and over a real server."""

import subprocess
import sys
import threading
import time

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hmm_exp.errors import TrackingError
from hmm_exp.registry import lease as leases
from hmm_exp.registry.lease import Lease, is_void, lease


@pytest.fixture(scope="module")
def client(store) -> MlflowClient:
    return store.client


@pytest.fixture
def name(client, request) -> str:
    client.create_registered_model(request.node.name)
    return request.node.name


def flags(client: MlflowClient, name: str) -> dict[str, str]:
    return client.get_registered_model(name).tags


def take(client: MlflowClient, name: str) -> None:
    """Hold the lease for a moment, or fail at once."""
    with lease(client, name, patience=0.0):
        pass


def test_holders_never_overlap(client, name):
    inside, most, entered = 0, 0, 0

    def hold() -> None:
        nonlocal inside, most, entered
        with lease(client, name):
            inside += 1
            most, entered = max(most, inside), entered + 1
            time.sleep(0.05)
            inside -= 1

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entered) == (1, 4)
    assert flags(client, name) == {}


def test_the_later_reader_sees_both_flags(client, name):
    first, second = Lease(client, name), Lease(client, name)
    assert first.raise_flag() == []
    assert len(second.raise_flag()) == 1
    assert len(first.raise_flag()) == 1


def test_a_refusal_names_the_holder(client, name):
    why = r"is running: process \d+ on "
    with lease(client, name), pytest.raises(TrackingError, match=why):
        take(client, name)
    assert flags(client, name) == {}


def test_a_holder_that_died_on_this_machine_bars_nobody(client, name):
    code = "from hmm_exp.owner import this_process; print(this_process())"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dead = f"{time.time() + 1000:.0f} {gone.stdout.strip()}"
    client.set_registered_model_tag(name, f"{leases.PREFIX}dead", dead)
    with lease(client, name, patience=0.0):
        assert len(flags(client, name)) == 1


@pytest.mark.parametrize(
    ("void_in", "barred"), [(100.0, True), (-30.0, True), (-100.0, False), (86_400.0, False)]
)
def test_a_flag_from_another_machine_is_void_a_minute_after_its_time(client, void_in, barred):
    name = f"elsewhere {void_in}"
    client.create_registered_model(name)
    text = f"{time.time() + void_in:.0f} another-host 1 1"
    client.set_registered_model_tag(name, f"{leases.PREFIX}theirs", text)
    if barred:
        with pytest.raises(TrackingError, match="process 1 on another-host"):
            take(client, name)
    else:
        take(client, name)
    assert (f"{leases.PREFIX}theirs" in flags(client, name)) is barred


def test_a_flag_is_void_after_its_time_and_when_no_clock_can_have_set_it():
    now = 1_700_000_000.0
    day = 86_400.0
    assert not is_void(f"{now + 600:.0f}", now)
    assert not is_void(f"{now - 59:.0f}", now)
    assert is_void(f"{now - 61:.0f}", now)
    assert not is_void(f"{now + 659:.0f}", now)  # set a moment ago by a clock that is ahead
    assert is_void(f"{now + 661:.0f}", now)
    assert not is_void(f"{now + 661:.0f}", now, lasts=1000.0)
    assert is_void(f"{now + day:.0f}", now)  # the clock went back a day since
    assert is_void(f"{now:.0f}", now + day)  # or ahead
    for damaged in ("", "soon", "nan", "inf", "-inf"):
        assert is_void(damaged, now)


def test_a_lease_is_measured_by_the_monotonic_clock(client, name, monkeypatch):
    with lease(client, name) as held:
        for now in (0.0, 4e9):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            held.check()
        monkeypatch.undo()


def test_a_damaged_flag_is_taken_down(client, name):
    for damaged in ("", "soon another-host 1 1"):
        client.set_registered_model_tag(name, f"{leases.PREFIX}theirs", damaged)
        take(client, name)
        assert flags(client, name) == {}


def test_a_lease_that_runs_out_or_is_taken_down_stops_its_holder(client, name):
    with lease(client, name) as held:
        held.check()
        held._ends = time.monotonic() + leases.MARGIN - 1.0
        with pytest.raises(TrackingError, match="ran out after 600 seconds"):
            held.check()
    with lease(client, name) as held:
        held.take_down()
        with pytest.raises(TrackingError, match="ran out"):
            held.check()


def test_a_model_made_for_the_lease_alone_goes_with_it(client):
    with lease(client, "made"):
        assert len(flags(client, "made")) == 1
    with pytest.raises(MlflowException, match="not found"):
        client.get_registered_model("made")


def test_other_tags_and_a_model_that_was_there_stay(client, name):
    client.set_registered_model_tag(name, "about", "kept")
    with lease(client, name):
        pass
    assert flags(client, name) == {"about": "kept"}
    assert mlflow.get_tracking_uri().startswith("sqlite")
