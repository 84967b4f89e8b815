"""The real `mlflow models serve` of a promoted model: answers, refusals, nothing of the machine."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmm_exp.config import GateConfig
from hmm_exp.registry.promotion import promote
from hmm_exp.serving.mlflow_model import sample_bars
from hmm_exp.store.store import Store
from tests.small_detector import (
    candidate,
    ready_features,
    small_detector,
)
from tests.test_serving_mlflow_model import BAD_REQUESTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return sample_bars(small_detector())


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory):
    """Address of a real server of the promoted model, on loopback."""
    run_id = candidate(store, small_detector())
    decision = promote(store.client, run_id, registry_name="hmm_regime", gate=GateConfig())
    assert decision.promoted, decision
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = "-m mlflow models serve --env-manager local -m models:/hmm_regime/Production"
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *words.split(), "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | {"MLFLOW_TRACKING_URI": store.uri, "PATH": tools},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        assert _answers(f"{address}/ping", process), log.read_text()
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str, process: subprocess.Popen, patience: float = 240.0) -> bool:
    """Wait until a server answers; False when it went away or takes too long."""
    until = time.monotonic() + patience
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def post(server: str, body: object, kind: str | None = "application/json") -> tuple[int, dict]:
    """Status and answer of a request; a body that is not bytes becomes JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        connection.request(
            "POST", "/invocations", data, {} if kind is None else {"Content-Type": kind}
        )
        answer = connection.getresponse()
        return answer.status, json.load(answer)


def records(frame: pd.DataFrame) -> dict:
    """Body of a request: what `frame.to_json` writes, nulls for NaN."""
    text = frame.to_json(orient="records", date_format="iso", date_unit="s", double_precision=15)
    return {"dataframe_records": json.loads(text)}


def test_the_server_answers_bars_and_features(server, bars):
    expected = small_detector().filter(bars)
    for frame in (bars, ready_features(bars)):
        status, answer = post(server, records(frame))
        assert status == 200
        got = pd.DataFrame(answer["predictions"])
        assert list(got.columns) == list(expected.columns)
        np.testing.assert_allclose(got["p_state_0"], expected["p_state_0"], atol=1e-9)
        assert list(pd.to_datetime(got["available_at"])) == list(expected["available_at"])


def test_the_server_refuses_bad_requests_with_status_400_and_one_line(server, bars):
    for case in BAD_REQUESTS:
        spoil, words = case.values
        status, answer = post(server, records(spoil(bars)))
        assert (case.id, status) == (case.id, 400)
        assert "send" in answer["message"], case.id
        assert "\n" not in answer["message"], case.id
        if "nan" not in words:  # a null in JSON
            assert words in answer["message"], case.id
    for body in ({"dataframe_records": []}, {"dataframe_split": {"columns": ["open"], "data": []}}):
        status, answer = post(server, body)
        assert status == 400
        assert "no rows" in answer["message"]


def test_the_server_answers_csv_and_parquet_as_json(server, bars):
    as_json = post(server, records(bars))
    assert as_json[0] == 200
    text = bars.to_csv(index=False)
    assert text.startswith("timestamp,open,high,low,close,volume\n")
    for kind, body in (("text/csv", text.encode()), (PARQUET, bars.to_parquet())):
        assert post(server, body, kind) == as_json, kind


def test_the_server_answers_csv_to_who_accepts_it(server, bars):
    expected = pd.DataFrame(post(server, records(bars))[1]["predictions"])
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=60)
    kinds = {"Content-Type": "text/csv", "Accept": "text/csv"}
    with contextlib.closing(connection):
        connection.request("POST", "/invocations", bars.to_csv(index=False).encode(), kinds)
        answer = connection.getresponse()
        assert answer.getheader("Content-Type").startswith("text/csv")
        got = pd.read_csv(answer)
        pd.testing.assert_frame_equal(got, expected, check_exact=True)
        connection.request("POST", "/invocations", b"close\n1\n", kinds)
        refused = connection.getresponse()
        assert (refused.status, "send timestamp with" in json.load(refused)["message"]) == (
            400,
            True,
        )


PARQUET = "application/vnd.apache.parquet"
OVER_A_MILLION = pd.DataFrame({"close": np.ones(1_000_001)})
HOSTILE_REQUESTS = {
    "no JSON": (400, b"{" + b"x" * 2_000_000, "application/json", "not JSON"),
    "nested": (400, b"[" * 200_000, "application/json", "nested too deeply"),
    "5,000 digits": (400, b'{"inputs": ' + b"9" * 5000 + b"}", "application/json", "digits"),
    "Latin-1": (400, b'{"inputs": "\xe4"}', "application/json", "not UTF-8: byte 0xe4 at 12"),
    "unknown key": (400, {"dataframe_records": [], "volume": "x"}, "application/json", "no other"),
    "a long cell": (400, {"inputs": {"close": ["x" * 2_000_000]}}, "application/json", "no column"),
    "no CSV": (400, b"timestamp,close\n1,2,3\n", "text/csv", "not CSV"),
    "no Parquet": (400, b"PAR1PAR1", PARQUET, "not Parquet"),
    "XML": (415, b"<bars/>", "application/xml", "application/json, text/csv"),
    "no type": (415, b"{}", None, "application/json, text/csv"),
    "too long": (
        413,
        OVER_A_MILLION.to_parquet(),
        PARQUET,
        "1,000,001 rows, the most is 1,000,000",
    ),
}


def test_the_server_shows_a_hostile_caller_one_short_line_and_no_more(server):
    for name, (expected, body, kind, words) in HOSTILE_REQUESTS.items():
        status, answer = post(server, body, kind)
        assert (name, status) == (name, expected)
        assert set(answer) <= {"error_code", "message", "sqlstate", "error_class"}, name
        assert answer["error_code"] == "INVALID_PARAMETER_VALUE", name
        assert words in answer["message"], name
        assert "send" in answer["message"], name
        assert answer["message"].isprintable(), name
        assert len(answer["message"]) <= 300, name


def test_the_server_refuses_years_that_have_no_nanoseconds(server, bars):
    for year in ("1500", "2300", "9999"):
        body = json.dumps(records(bars)).replace("2021-", f"{year}-").encode()
        status, answer = post(server, body)
        assert (year, status) == (year, 400)
        assert len(answer["message"]) <= 300
        assert "stack_trace" not in answer
