"""Load a detector from the registry, a run, a folder or a file.

detector = hmm_exp.load_detector("models:/hmm_regime/Production")

Only `detector.json` of an MLflow model is read. Unlike `mlflow.pyfunc.load_model`, this ignores the
`MLmodel` file, which may name code to import, and runs no code of the model. MLflow takes a second
to import, so that it is imported only for what is not a folder or file.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hmm_exp.detector.detector import Detector
from hmm_exp.detector.pooled import PooledDetector, read_detector
from hmm_exp.errors import ModelError, TrackingError, one_line
from hmm_exp.store.address import VARIABLE, resolve_uri, sqlite_path

_BARS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
_SCHEME = re.compile(r"[a-z][a-z0-9+-]+:/")
_RUN_URI = re.compile(r"runs:/([^/]+)(/.*)?")
_RUN_ID = re.compile(r"[0-9a-fA-F]{6,32}")


def load_detector(source: str | Path) -> Detector | PooledDetector:
    """Load a detector, or the pool of many symbols' detectors that share one model.

    Parameters
    ----------
    source
        `models:/hmm_regime/Production`, another version or alias of it, `runs:/<run id>` (the
        beginning of an id, at least 6 characters, will do), any URI
        of an MLflow model with a detector, its folder, or a `detector.json`. URIs are resolved in
        MLflow's current store (`MLFLOW_TRACKING_URI`, else `mlflow.db` in this folder).

    Returns
    -------
    Detector or PooledDetector
        What the model holds; `load_single` refuses a pool.

    Raises
    ------
    ModelError
        The model does not exist or holds no detector.
    """
    if not _SCHEME.match(str(source)):
        return detector_in(Path(source))
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = str(source)
    with tempfile.TemporaryDirectory() as folder, store_for(uri):
        if run := _RUN_URI.fullmatch(uri):
            uri = f"runs:/{_full_id(run[1])}{(run[2] or '').rstrip('/') or '/model'}"
        try:
            local = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        except (MlflowException, OSError, ImportError) as error:
            raise ModelError(f"no model at {source}: {one_line(error)}") from None
        return detector_in(Path(local), uri)


def load_single(source: str | Path) -> Detector:
    """Load a detector as `load_detector`; a pool is refused. Raises ModelError."""
    return _single(load_detector(source), source)


def find_detector(name: str) -> Detector:
    """Load a detector by its name on a command line: as `load_single`, or a run's id.

    The id may be shortened. An existing path comes first.
    """
    return _single(find_model(name), name)


def find_model(name: str) -> Detector | PooledDetector:
    """Load a detector or a pool by a name as for `find_detector`."""
    if Path(name).exists():
        return read_detector(name)
    return load_detector(f"runs:/{name}" if _RUN_ID.fullmatch(name) else name)


def _single(found: Detector | PooledDetector, source: str | Path) -> Detector:
    if isinstance(found, PooledDetector):
        raise ModelError(
            f"{source} is one model of {len(found.symbols):,} symbols, and one detector is needed: "
            f"in Python load_detector(...).of({found.symbols[0]!r}) gives it"
        )
    return found


def _full_id(run: str) -> str:
    """Id of a run that may be shortened, in MLflow's current store."""
    from mlflow.tracking import MlflowClient

    from hmm_exp.store.run_ids import full_run_id

    try:
        return full_run_id(MlflowClient(), run)
    except TrackingError as error:
        raise ModelError(f"no model of run {run}: {error}") from None


def detector_in(path: Path, uri: str | None = None) -> Detector | PooledDetector:
    """Read the detector of a file or of a folder, such as that of an MLflow model, found at `uri`.

    Raises ModelError if it holds no detector, with the `uri` in place of the path.
    """
    try:
        return read_detector(path)
    except ModelError as error:
        raise ModelError(str(error).replace(str(path), uri or str(path))) from None


@contextmanager
def store_for(uri: str) -> Iterator[None]:
    """Point MLflow at its current store, after a check that the store exists and works.

    MLflow would create a missing store and retry a broken one for minutes. Raises ModelError.
    """
    if not uri.startswith(("models:/", "runs:/")):
        yield
        return
    import mlflow

    from hmm_exp.store.health import check_answer
    from hmm_exp.store.relocation import check_place

    try:
        given = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        store = resolve_uri(given, VARIABLE)
        path = sqlite_path(store)
        if path is not None and not path.is_file():
            raise TrackingError(
                f"no tracking store at {store}; change to the folder of the sweep or set {VARIABLE}"
            )
        check_answer(store)
        if path is not None:
            check_place(path)
    except TrackingError as error:
        raise ModelError(f"no model at {uri}: {error}") from None
    # MLflow would percent-encode the address, and print bars where tqdm is.
    with _environment({VARIABLE: store, _BARS: os.environ.get(_BARS, "false")}):
        yield


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
