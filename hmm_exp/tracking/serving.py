"""The detector as an MLflow model: stored without pickle, loaded without the checkout, served.

    model = mlflow.pyfunc.load_model("models:/hmm_regime/Production")
    regimes = model.predict(bars)  # timestamp, open, high, low, close, volume

Each call is one sequence: send the lookback, not one bar. What is stored is the detector as JSON
beside this package's source, so that any process with the pinned packages can load it.
"""

import re
import shutil
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
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

from hmm_exp.detector import FILE_NAME, Detector
from hmm_exp.errors import DataError, HmmExpError
from hmm_exp.market.bars import OHLCV
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.rows import Rows

MODEL_NAME = "model"
RUNTIME_PACKAGES = ("mlflow", "numba", "numpy", "omegaconf", "pandas", "pyarrow")

_PACKAGE = Path(__file__).resolve().parents[1]
_DATA, _CODE = f"data/{FILE_NAME}", "code"  # inside a stored model
_INFERENCE = (  # of the room `hmm`; nothing that fits
    *("__init__", "density", "lanes", "params", "recursions", "threads"),
)
_SOURCE = (  # what loading and predicting need of this package
    "__init__.py",
    "errors.py",
    "compiling.py",
    "writing.py",
    "config",
    "detector.py",
    "market",
    "features",
    *(f"hmm/{name}.py" for name in _INFERENCE),
    "stream",
    "tracking/__init__.py",
    "tracking/serving.py",
    "tracking/loading.py",
)
_SETTING = re.compile(r"; set data\.\w+")
_REMEDY = re.compile(r"data\.bad_rows=drop (leave|keep)s")


class RequestError(MlflowException):
    """Input that has no answer, in one line; the REST server answers it with status 400.

    The server would put the whole frame before `message`; here `message` stays as it was raised.
    """

    def __init__(self, line: str) -> None:
        self._line = line
        super().__init__(line, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """What is wrong and what to send instead."""
        return self._line

    @message.setter
    def message(self, text: str) -> None:
        pass


class RegimeModel:
    """The detector behind MLflow's `predict`: bars or ready features in, filtered regimes out."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Regime of every row from the rows up to it.

        Parameters
        ----------
        frame
            `timestamp` (text, datetimes or epochs) with `open high low close volume`, or with the
            feature columns of the model: one sequence of at least `min_history` bars.

        Returns
        -------
        DataFrame
            `timestamp, available_at, state, label, p_state_0 ...`

        Raises
        ------
        RequestError
            When there is no answer: says what is wrong and what to send.
        """
        try:
            return self._regimes(frame)
        except HmmExpError as error:
            raise RequestError(_for_caller(error, self.detector)) from None

    def get_raw_model(self) -> Detector:
        """Give the detector itself, by MLflow's name for it."""
        return self.detector

    def _regimes(self, frame: pd.DataFrame) -> pd.DataFrame:
        columns = self.detector.recipe.columns
        if frame.empty:
            raise DataError("no rows, or none of the known columns")
        has_features = any(name in frame for name in columns)
        if has_features and not all(name in frame for name in OHLCV):
            _check_cells(frame, columns)
        return self.detector.filter(frame)


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
    names = ("timestamp", *OHLCV, *detector.recipe.columns)
    answer = {
        "timestamp": DataType.datetime,
        "available_at": DataType.datetime,
        "state": DataType.long,
        "label": DataType.string,
    } | {f"p_state_{k}": DataType.double for k in range(detector.n_states)}
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), name, required=False) for name in names]),
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
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2021-01-01", periods=n_bars, freq=detector.step, tz="UTC"),
            "open": opens,
            "high": np.maximum(opens, close) * (1 + 0.002 * random.random(n_bars)),
            "low": np.minimum(opens, close) * (1 - 0.002 * random.random(n_bars)),
            "close": close,
            "volume": random.uniform(50, 150, n_bars),
        }
    )


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
    return RegimeModel(Detector.load(data_path))


def _check_cells(frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Refuse feature cells that are no number; which columns lack, the detector says.

    A row that lacks a feature need not be sent: left out, it counts as missing all the same.
    """
    present = [name for name in columns if name in frame]
    if "timestamp" not in frame:
        return
    rows = Rows(frame["timestamp"], frame[present], ReadOptions("open"))
    rows.need_stamps()
    missing = ~np.isfinite(rows.values) & ~rows.text
    rows.need_cells(
        [("text instead of a number", rows.text), ("a missing or infinite number", missing)]
    )


def _for_caller(error: HmmExpError, detector: Detector) -> str:
    """What is wrong and what to send, in a caller's words: a request has no `data.` options."""
    text = _SETTING.sub("", " ".join(str(error).split()))
    text = _REMEDY.sub(r"\1", text)  # "leave them out", "keep the last"
    if "send " in text:
        return text
    return f"{text}: send at least {detector.min_history} rows of {detector.input_hint}"
