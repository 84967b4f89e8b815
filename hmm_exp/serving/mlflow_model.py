"""The detector as an MLflow model: logged, loaded by `mlflow.pyfunc`, and smoke-tested.

    model = mlflow.pyfunc.load_model("models:/hmm_regime/Production")
    regimes = model.predict(bars)  # timestamp, open, high, low, close, volume

Each call takes one sequence with its lookback, not a single bar; a pool takes one of each symbol,
with a column `symbol`. The stored model holds the
detector as JSON and this package's source, without pickle, so that any process with the pinned
packages can load it. `smoke_test` loads a stored model and lets it predict.
"""

import shutil
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema
from mlflow.utils.environment import (
    _CONDA_ENV_FILE_NAME,
    _PYTHON_ENV_FILE_NAME,
    _REQUIREMENTS_FILE_NAME,
    _mlflow_conda_env,
    _PythonEnv,
)
from mlflow.utils.file_utils import local_file_uri_to_path

from hmm_exp.detector.detector import Detector
from hmm_exp.detector.pooled import SYMBOL, PooledDetector, read_detector
from hmm_exp.errors import ModelError, one_line
from hmm_exp.serving import rest
from hmm_exp.serving.answering import RegimeModel
from hmm_exp.stored.document import FILE_NAME

MODEL_NAME = "model"
RUNTIME_PACKAGES = ("mlflow", "numba", "numpy", "omegaconf", "pandas", "pyarrow")

_PACKAGE = Path(__file__).resolve().parents[1]
_DATA, _CODE = f"data/{FILE_NAME}", "code"  # inside a stored model
_SUM_TOLERANCE = 1e-6  # of probabilities
_INFERENCE = (  # modules of `hmm` without the fitting code
    *("__init__", "density", "inference", "loops", "params", "rows", "simd", "stretches"),
)
_SOURCE = (  # parts of this package needed to load and predict
    "__init__.py",
    "version.py",
    "errors.py",
    "files.py",
    "compiling.py",
    "owner.py",
    "parallel.py",
    "config",
    "detector",
    "market",
    "features",
    *(f"hmm/{name}.py" for name in _INFERENCE),
    *(f"uncertainty/{name}.py" for name in ("__init__", "estimates")),
    "stored",
    "serving",
    *(
        f"store/{name}.py"
        for name in ("__init__", "address", "folders", "health", "relocation", "run_ids")
    ),
)


def log_detector(
    experiment_id: str, run_id: str, detector: Detector | PooledDetector
) -> LoggedModel:
    """Log the detector, or the pool, as the model of a run, in MLflow's current store.

    Returns
    -------
    LoggedModel
        With `model_id` and `model_uri`, `models:/m-...`.
    """
    # These are the steps of `mlflow.pyfunc.log_model`, which logs only to the active run (models of
    # others go to experiment 0) and copies the run's params and metric histories one by one.
    client = MlflowClient()
    model = client.create_logged_model(experiment_id, name=MODEL_NAME, source_run_id=run_id)
    if model.artifact_location.startswith("file:"):  # MLflow would copy it there
        folder = Path(local_file_uri_to_path(model.artifact_location))
        try:
            _save(folder, detector, model)
        except BaseException:  # a full disk leaves no partial model
            shutil.rmtree(folder, ignore_errors=True)
            raise
    else:
        with tempfile.TemporaryDirectory() as name:
            _save(Path(name), detector, model)
            client.log_model_artifacts(model.model_id, name)
    model = client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def smoke_test(uri: str) -> Detector | PooledDetector:
    """Load a model, let it predict on sample bars, and return its detector.

    Raises ModelError if the model cannot be loaded, or gives no probabilities.
    """
    path = list(sys.path)
    try:
        model = mlflow.pyfunc.load_model(uri, suppress_warnings=True)
        detector = model.get_raw_model()
        regimes = model.predict(sample_bars(detector))
        total = regimes.filter(like="p_state_").sum(axis=1)
    except Exception as error:  # a stored model may raise anything
        text = one_line(f"{type(error).__name__}: {error}")
        raise ModelError(f"{uri} does not answer: {text}") from None
    finally:
        sys.path[:] = path  # MLflow leaves the model's code in front
    if regimes.empty or not (abs(total - 1) < _SUM_TOLERANCE).all():
        raise ModelError(f"{uri} gives no probabilities that sum to one")
    return detector


def smoke_test_failure(uri: str) -> str | None:
    """Why the model at `uri` fails its smoke test; None if it passes."""
    try:
        smoke_test(uri)
    except ModelError as error:
        return str(error)
    return None


def signature_of(detector: Detector | PooledDetector) -> ModelSignature:
    """Output columns alone.

    Inputs are left to `RegimeModel`: by a schema of them MLflow would drop `Close` for `close`, and
    an index of times, before the model sees the table.
    """
    kinds = {
        SYMBOL: DataType.string,
        "timestamp": DataType.datetime,
        "available_at": DataType.datetime,
        "state": DataType.long,
        "label": DataType.string,
        "regime": DataType.long,
        "in_training": DataType.boolean,
    }
    return ModelSignature(
        outputs=Schema(
            [ColSpec(kinds.get(name, DataType.double), name) for name in detector.columns]
        ),
    )


@cache
def requirements() -> list[str]:
    """Packages needed to load and predict, pinned to the installed versions."""
    return [f"{name}=={version(name)}" for name in RUNTIME_PACKAGES]


def sample_bars(detector: Detector | PooledDetector) -> pd.DataFrame:
    """Synthetic bars, just enough for the detector, or the first of a pool, to give a regime."""
    if isinstance(detector, PooledDetector):
        symbol = detector.symbols[0]
        bars = sample_bars(detector.of(symbol))
        bars.insert(0, SYMBOL, symbol)
        return bars
    n_bars = detector.min_history + int(detector.row_step / detector.step)
    random = np.random.default_rng(0)
    close = 100 * np.exp(0.005 * random.standard_normal(n_bars).cumsum())
    opens = np.concatenate([[100.0], close[:-1]])
    columns = (
        pd.date_range("2021-01-01", periods=n_bars, freq=detector.step, tz="UTC"),
        opens,
        np.maximum(opens, close) * (1 + 0.002 * random.random(n_bars)),
        np.minimum(opens, close) * (1 - 0.002 * random.random(n_bars)),
        close,
        random.uniform(50, 150, n_bars),
    )
    return pd.DataFrame(dict(zip(detector.bar_columns, columns, strict=True)))


def _save(folder: Path, detector: Detector | PooledDetector, model: LoggedModel) -> None:
    """Write the files of `mlflow.pyfunc.save_model`: detector, source, pinned packages.

    That function would search all installed packages for the versions already known here, and copy
    the source file by file.
    """
    files = _environment() | _source()
    for room in {(folder / name).parent for name in (*files, _DATA)}:
        room.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    detector.save(folder / _DATA)
    described = Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        model_id=model.model_id,
        run_id=model.source_run_id,
        signature=signature_of(detector),
        metadata={"input": detector.input_hint},
        model_size_bytes=(folder / _DATA).stat().st_size,
    )
    mlflow.pyfunc.add_to_model(
        described,
        loader_module=__name__,
        data=_DATA,
        code=_CODE,
        conda_env=_CONDA_ENV_FILE_NAME,
        python_env=_PYTHON_ENV_FILE_NAME,
    )
    described.save(folder / MLMODEL_FILE_NAME)


@cache
def _environment() -> dict[str, bytes]:
    """MLflow's files with the Python version and packages of a stored model, by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _mlflow_conda_env(folder / _CONDA_ENV_FILE_NAME, additional_pip_deps=requirements())
        _PythonEnv.current().to_yaml(folder / _PYTHON_ENV_FILE_NAME)
        (folder / _REQUIREMENTS_FILE_NAME).write_text("\n".join(requirements()))
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@cache
def _source() -> dict[str, bytes]:
    """Source files of a stored model, by their path in it."""
    places = [_PACKAGE / name for name in _SOURCE]
    files = [f for p in places for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    return {
        f"{_CODE}/{file.relative_to(_PACKAGE.parent).as_posix()}": file.read_bytes()
        for file in files
    }


def _load_pyfunc(data_path: str) -> RegimeModel:
    """Load a stored model; MLflow calls this."""
    model = RegimeModel(read_detector(data_path))
    if rest.in_server():
        rest.answer_requests(model.answer)
    return model
