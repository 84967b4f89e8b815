"""A detector from wherever it lies: the registry, a run, a folder, a file.

detector = hmm_exp.load_detector("models:/hmm_regime/Production")
"""

import re
import tempfile
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from hmm_exp.detector import FILE_NAME, Detector
from hmm_exp.errors import ModelError

_SQLITE = "sqlite:///"
_SCHEME = re.compile(r"[a-z][a-z0-9+-]+:/")
_BARE_RUN = re.compile(r"runs:/[^/]+/?")


def load_detector(source: str | Path) -> Detector:
    """Load a detector.

    Parameters
    ----------
    source
        `models:/hmm_regime/Production`, another version or alias of it, `runs:/<run id>`, any URI
        of an MLflow model that holds a detector, its folder, or a `detector.json`. URIs are looked
        up in the store that MLflow is set to (`MLFLOW_TRACKING_URI`, else `mlflow.db` here).

    Raises
    ------
    ModelError
        When there is no such model, or it holds no detector.
    """
    if not _SCHEME.match(str(source)):
        return _from_path(Path(source))
    uri = f"{str(source).rstrip('/')}/model" if _BARE_RUN.fullmatch(str(source)) else str(source)
    _check_store(uri)
    with tempfile.TemporaryDirectory() as folder:
        try:
            local = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        except (MlflowException, OSError, ImportError) as error:
            raise ModelError(f"no model at {source}: {' '.join(str(error).split())}") from None
        return _from_path(Path(local), uri)


def _from_path(path: Path, uri: str | None = None) -> Detector:
    """Read the detector of a file, a folder, or the folder of an MLflow model."""
    for candidate in (path / "data" / FILE_NAME, path / FILE_NAME, path):
        if candidate.is_file():
            return Detector.load(candidate)
    raise ModelError(f"no detector at {uri or path}: neither {FILE_NAME} nor a model that holds it")


def _check_store(uri: str) -> None:
    """Refuse to look into a store that is not there; MLflow would make an empty one."""
    store = mlflow.get_tracking_uri()
    if not uri.startswith(("models:/", "runs:/")) or not store.startswith(_SQLITE):
        return
    if not Path(store.removeprefix(_SQLITE)).is_file():
        raise ModelError(
            f"no model at {uri}: no tracking store at {store}; go where the sweep ran or set "
            "MLFLOW_TRACKING_URI"
        )
