"""Time of a request to `mlflow models serve`, by form and number of rows.

    python benchmarks/rest.py [--rows 1000,100000,1000000]

v1 on one-minute bars, three columns, two states, one worker. Asked: a million rows are answered
within the 60 seconds that MLflow's server gives a request.
"""

import argparse
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from hmm_exp.config import TrackingConfig
from hmm_exp.detector.detector import Detector
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.market.options import ReadOptions
from hmm_exp.serving.mlflow_model import log_detector
from hmm_exp.store.store import open_store

JSON, CSV = "application/json", "text/csv"
PARQUET = "application/vnd.apache.parquet"
PATIENCE = 600  # seconds for an answer; the server itself gives up after 60


def two_states() -> Detector:
    """A detector of one-minute bars that answers anything."""
    return Detector(
        recipe=Recipe.of_set("v1", ["1min"]),
        scaler_mean=np.array([0.0, 0.0, 0.001]),
        scaler_scale=np.array([0.001, 0.5, 0.001]),
        params=GaussianParams(
            startprob=np.array([0.5, 0.5]),
            transmat=np.array([[0.95, 0.05], [0.1, 0.9]]),
            means=np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]),
            covars=np.array([[0.5, 1.0, 0.3], [2.0, 1.0, 0.8]]),
        ),
        labels=("calm", "turbulent"),
        step=pd.Timedelta(minutes=1),
        reading=ReadOptions("open"),
        name="synthetic",
        min_history=60,
    )


def bars_as_text(n_rows: int) -> pd.DataFrame:
    """One-minute bars of a random walk, times written as text."""
    random = np.random.default_rng(0)
    close = 100 * np.exp(0.0005 * random.standard_normal(n_rows).cumsum())
    opens = np.concatenate([[100.0], close[:-1]])
    times = pd.date_range("2021-01-01", periods=n_rows, freq="min")
    return pd.DataFrame(
        {
            "timestamp": times.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "open": opens,
            "high": np.maximum(opens, close) * 1.001,
            "low": np.minimum(opens, close) * 0.999,
            "close": close,
            "volume": random.uniform(50, 150, n_rows),
        }
    )


def bodies(frame: pd.DataFrame) -> Iterator[tuple[str, str, bytes]]:
    """Name, content type and body of a request in every form."""
    for orient in ("records", "split"):
        text = frame.to_json(orient=orient, double_precision=15)
        yield f"dataframe_{orient}", JSON, f'{{"dataframe_{orient}": {text}}}'.encode()
    yield "text/csv", CSV, frame.to_csv(index=False).encode()
    content = io.BytesIO()
    frame.to_parquet(content)
    yield "parquet", PARQUET, content.getvalue()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="1000,100000,1000000", help="numbers of rows")
    sizes = [int(size) for size in parser.parse_args().rows.split(",")]
    print(f"{'form':20}{'rows':>11}{'MB sent':>9}{'status':>8}{'seconds':>9}{'MB back':>9}")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as address:
        ask(address, *next(bodies(bars_as_text(1000)))[1:])  # compiles
        for size in sizes:
            for name, kind, body in bodies(bars_as_text(size)):
                began = time.perf_counter()
                status, answer = ask(address, kind, body)
                seconds = time.perf_counter() - began
                assert status != 200 or len(json.loads(answer)["predictions"]) > size / 2
                sizes_mb = f"{len(body) / 1e6:9.1f}{status:8}{seconds:9.2f}{len(answer) / 1e6:9.1f}"
                print(f"{name:20}{size:11,}{sizes_mb}", flush=True)
                if status != 200:
                    print("  ", answer[:300].decode())
        print(f"largest memory of the server {largest_memory(address):,} MB")


def ask(address: str, kind: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of an answer."""
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Address of `mlflow models serve` for the detector, on loopback, until the block ends."""
    store = open_store(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))
    run_id = store.client.create_run(store.experiment_id).info.run_id
    model = log_detector(store.experiment_id, run_id, two_states())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = f"-m mlflow models serve --env-manager local -m {model.model_uri}"
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, *words.split(), "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ | {"MLFLOW_TRACKING_URI": store.uri, "PATH": tools},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/ping", process)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, process: subprocess.Popen) -> None:
    """Return when the server answers; end the program where it goes away."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit("the server has gone away")


def largest_memory(address: str) -> int:
    """Peak resident memory of the process that listens there, in MB (Linux)."""
    port = address.rsplit(":", 1)[1]
    peaks = [0]
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (place / "cmdline").read_bytes().decode(errors="replace")
            if "uvicorn" in command and port in command:
                status = (place / "status").read_text()
                peaks += [int(kb) // 1024 for kb in re.findall(r"VmHWM:\s+(\d+)", status)]
    return max(peaks)


if __name__ == "__main__":
    main()
