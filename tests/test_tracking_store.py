"""Patience with a store that does not answer: once, and again after it has answered."""

import itertools
import socket

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.tracking import MlflowClient

from hmm_exp.config import TrackingConfig
from hmm_exp.errors import TrackingError
from hmm_exp.tracking import store
from hmm_exp.tracking.store import patiently
from hmm_exp.tracking.stored import read_scores
from tests.small_detector import forget_store, store_in


@pytest.fixture
def gone(monkeypatch):
    """Client of a server on a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(store, "_lost", False)
    mlflow.set_tracking_uri(uri)
    yield MlflowClient(uri)
    forget_store()


def tries_of(client: MlflowClient, patience: float) -> tuple[int, str]:
    """How often the store is tried until patience ends, and what is said then."""
    tries = itertools.count()

    def action():
        next(tries)
        return client.get_run("any")

    with pytest.raises(TrackingError) as caught:
        patiently(action, patience)
    return next(tries), str(caught.value)


def test_patience_runs_out_once_and_comes_back_with_the_store(gone):
    assert tries_of(gone, 0.5)[0] > 1
    assert tries_of(gone, 600.0)[0] == 1
    assert tries_of(gone, 600.0)[0] == 1
    assert patiently(lambda: "an answer", 600.0) == "an answer"
    assert tries_of(gone, 0.5)[0] > 1


def test_a_server_that_is_gone_is_one_short_line(gone):
    _, line = tries_of(gone, 0.0)
    uri = gone.tracking_uri
    assert line == f"the tracking store {uri} does not answer: Connection refused"


def test_opening_a_store_can_be_tried_again(gone):
    tries = itertools.count()

    def opened():
        if next(tries) == 0:
            store.check_store(TrackingConfig(uri=gone.tracking_uri))
        return "open"

    assert patiently(opened, 10.0) == "open"


def test_a_store_that_is_gone_is_not_taken_for_a_run_without_the_file(gone, workdir):
    with pytest.raises(MlflowException, match="refused"):
        read_scores(gone, "any")
    there = store_in(workdir)
    run_id = there.client.create_run(there.experiment_id).info.run_id
    assert read_scores(there.client, run_id) is None
    assert read_scores(there.client, "0" * 32) is None


def test_what_a_store_says_itself_is_told_and_no_password(gone):
    mlflow.set_tracking_uri("http://me:secret@127.0.0.1:9")

    def action():
        raise MlflowException("database\n is locked")

    with pytest.raises(TrackingError) as caught:
        patiently(action, 0.0)
    said = "the tracking store http://127.0.0.1:9 does not answer: database is locked"
    assert str(caught.value) == said


def test_a_refusal_is_no_silence(gone):
    def action():
        raise MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)

    with pytest.raises(MlflowException, match="no such run"):
        patiently(action, 600.0)
    assert not store._lost
