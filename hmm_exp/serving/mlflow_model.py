"""The detector as an MLflow model: stored without pickle, loaded without the checkout, served.

    model = mlflow.pyfunc.load_model("models:/hmm_regime/Production")
    regimes = model.predict(bars)  # timestamp, open, high, low, close, volume

Each call is one sequence: send the lookback, not one bar. What is stored is the detector as JSON
and this package's source, so that any process with the pinned packages can load it.
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
from mlflow.types.schema import AnyType
from mlflow.utils.environment import (
    _CONDA_ENV_FILE_NAME,
    _PYTHON_ENV_FILE_NAME,
    _REQUIREMENTS_FILE_NAME,
    _mlflow_conda_env,
    _PythonEnv,
)
from mlflow.utils.file_utils import local_file_uri_to_path

from hmm_exp.detector.detector import Detector
from hmm_exp.errors import ModelError, one_line
from hmm_exp.serving import rest
from hmm_exp.serving.answering import RegimeModel, input_columns
from hmm_exp.stored.document import FILE_NAME

MODEL_NAME = "model"
RUNTIME_PACKAGES = ("mlflow", "numba", "numpy", "omegaconf", "pandas", "pyarrow")

_PACKAGE = Path(__file__).resolve().parents[1]
_DATA, _CODE = f"data/{FILE_NAME}", "code"  # inside a stored model
_INFERENCE = (  # of the room `hmm`; nothing that fits
    *("__init__", "density", "inference", "params", "simd"),
)
_SOURCE = (  # what loading and predicting need of this package
    "__init__.py",
    "errors.py",
    "files.py",
    "compiling.py",
    "parallel.py",
    "config",
    "detector",
    "market",
    "features",
    *(f"hmm/{name}.py" for name in _INFERENCE),
    "stored",
    "serving",
    *(f"store/{name}.py" for name in ("__init__", "address", "folders", "health", "relocation")),
)


def log_detector(experiment_id: str, run_id: str, detector: Detector) -> LoggedModel:
    """Log the detector as the model of an experiment's run, in the store that MLflow is set to.

    Returns
    -------
    LoggedModel
        With `model_id` and `model_uri`, `models:/m-...`.
    """
    # The steps of `mlflow.pyfunc.log_model`, which works on the active run alone, puts a model of
    # any other into experiment 0, and copies the run's params and metric histories one by one.
    client = MlflowClient()
    model = client.create_logged_model(experiment_id, name=MODEL_NAME, source_run_id=run_id)
    if model.artifact_location.startswith("file:"):  # MLflow would copy it there
        folder = Path(local_file_uri_to_path(model.artifact_location))
        try:
            _save(folder, detector, model)
        except BaseException:  # a full disk leaves no half of a model
            shutil.rmtree(folder, ignore_errors=True)
            raise
    else:
        with tempfile.TemporaryDirectory() as name:
            _save(Path(name), detector, model)
            client.log_model_artifacts(model.model_id, name)
    model = client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def signature_of(detector: Detector) -> ModelSignature:
    """Columns that may be sent, all optional, and those that come back.

    Inputs are of any type: MLflow would refuse whole-numbered volumes as doubles and take one form
    of timestamp only. `RegimeModel` checks them, with better words.
    """
    answer = {
        "timestamp": DataType.datetime,
        "available_at": DataType.datetime,
        "state": DataType.long,
        "label": DataType.string,
    } | {f"p_state_{k}": DataType.double for k in range(detector.n_states)}
    return ModelSignature(
        inputs=Schema(
            [ColSpec(AnyType(), name, required=False) for name in input_columns(detector)]
        ),
        outputs=Schema([ColSpec(kind, name) for name, kind in answer.items()]),
    )


@cache
def requirements() -> list[str]:
    """Packages that loading and predicting need, at the versions in use."""
    return [f"{name}=={version(name)}" for name in RUNTIME_PACKAGES]


def sample_bars(detector: Detector) -> pd.DataFrame:
    """Made-up bars, as many as the detector asks for: enough to see that it answers."""
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


def _save(folder: Path, detector: Detector, model: LoggedModel) -> None:
    """Write the MLflow model: the detector, this package's source, the pinned packages.

    What `mlflow.pyfunc.save_model` writes; that searches all installed packages for the versions
    that were just given to it, and copies the source file by file.
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
    """The files that say which Python and packages a stored model needs, in MLflow's forms."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _mlflow_conda_env(folder / _CONDA_ENV_FILE_NAME, additional_pip_deps=requirements())
        _PythonEnv.current().to_yaml(folder / _PYTHON_ENV_FILE_NAME)
        (folder / _REQUIREMENTS_FILE_NAME).write_text("\n".join(requirements()))
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@cache
def _source() -> dict[str, bytes]:
    """Python files that a stored model needs, by their place in it."""
    places = [_PACKAGE / name for name in _SOURCE]
    files = [f for p in places for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    return {
        f"{_CODE}/{file.relative_to(_PACKAGE.parent).as_posix()}": file.read_bytes()
        for file in files
    }


def _load_pyfunc(data_path: str) -> RegimeModel:
    """MLflow's entry: the model from what `log_detector` stored."""
    model = RegimeModel(Detector.load(data_path))
    if rest.in_server():
        rest.answer_requests(model.answer)
    return model


_SUM_TOLERANCE = 1e-6


def tried(uri: str) -> Detector:
    """Load a model, let it predict, and give its detector.

    Raises
    ------
    ModelError
        Says on one line what is wrong with it.
    """
    path = list(sys.path)
    try:
        model = mlflow.pyfunc.load_model(uri, suppress_warnings=True)
        detector = model.get_raw_model()
        regimes = model.predict(sample_bars(detector))
        total = regimes.filter(like="p_state_").sum(axis=1)
    except Exception as error:  # whatever a stored model may raise
        text = one_line(f"{type(error).__name__}: {error}")
        raise ModelError(f"{uri} does not answer: {text}") from None
    finally:
        sys.path[:] = path  # MLflow leaves the model's own code in front
    if regimes.empty or not (abs(total - 1) < _SUM_TOLERANCE).all():
        raise ModelError(f"{uri} gives no probabilities that sum to one")
    return detector


def complaint(uri: str) -> str | None:
    """What is wrong with the model at `uri`, None when it answers."""
    try:
        tried(uri)
    except ModelError as error:
        return str(error)
    return None
