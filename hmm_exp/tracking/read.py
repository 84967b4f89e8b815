"""Read the files of a run from the store; a missing file is None, not an error."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import append_to_uri_path, is_local_uri

from hmm_exp.config import DataConfig
from hmm_exp.errors import HmmExpError
from hmm_exp.experiment.source import SCORES_FILE, Source, read_source
from hmm_exp.judge.unscored import Unscored
from hmm_exp.market.bars import OHLCV
from hmm_exp.tracking import tags

READERS = 8  # threads, for files of many runs: a store on a server answers several at a time
REGIMES_FILE = "regimes.csv"
LEADERBOARD_FILE = "leaderboard.csv"  # of a sweep, a panel or a symbol: one row a cell
SYMBOLS_FILE = "symbols.csv"  # of a panel: one row a symbol
CONFIG_FILE, REPORT_FILE = "config.json", "data_report.json"
_REGIME_COLUMNS = ("available_at", "split", "state")
_KEPT = 32  # validation scores of so many runs
_VALIDATION: dict[tuple[str, str], pd.DataFrame] = {}  # by store and run, the last read at the end


def unscored_of(run: Run) -> Unscored:
    """Reasons for missing scores of a run, by score; empty when none is missing."""
    return json.loads(run.data.tags.get(tags.UNSCORED, "{}"))


def read_scores(client: MlflowClient, run: str | Run) -> pd.DataFrame | None:
    """Log predictive densities of every base bar's next return, in time order.

    Parameters
    ----------
    run
        A run, or its id, for which the store is asked.

    Returns
    -------
    DataFrame or None
        Index `available_at` (UTC without a zone); `split` of the return, and `model_score,
        static_score, ewma_score` in nats, NaN where not scored; where there are bars, `close`.
    """
    with _local(client, run, SCORES_FILE) as path:
        return None if path is None else by_time(pd.read_parquet(path))


def read_validation(client: MlflowClient, run: Run) -> pd.DataFrame | None:
    """`read_scores` on validation. A process keeps those of the last finished runs.

    The choice of a winner, the reality check and the verdict read the same runs one after another.
    """
    key = (client.tracking_uri, run.info.run_id)
    kept = _VALIDATION.pop(key, None)
    if kept is None:
        scores = read_scores(client, run)
        if scores is None:
            return None
        kept = scores[scores["split"] == "val"]
    if run.info.status == "FINISHED":  # else its files may come yet
        _VALIDATION[key] = kept
    while len(_VALIDATION) > _KEPT:
        _VALIDATION.pop(next(iter(_VALIDATION)))
    return kept


def read_regimes(client: MlflowClient, run: str | Run) -> pd.DataFrame | None:
    """Filtered state of every row: index `available_at` (UTC without a zone), `split`, `state`."""
    with _local(client, run, REGIMES_FILE) as path:
        if path is None:
            return None
        wanted = pyarrow.csv.ConvertOptions(include_columns=_REGIME_COLUMNS)
        return by_time(pyarrow.csv.read_csv(path, convert_options=wanted).to_pandas())


def by_time(table: pd.DataFrame) -> pd.DataFrame:
    """A table by its `available_at` in UTC without a zone, which only newer files write."""
    time = pd.to_datetime(table["available_at"], utc=True).dt.tz_convert(None).dt.as_unit("ns")
    return table.assign(available_at=time).set_index("available_at")


def read_table(
    client: MlflowClient, run: str | Run, name: str, texts: Iterable[str] = ()
) -> pd.DataFrame | None:
    """A CSV file of a run; the columns `texts` stay texts, whatever they look like."""
    types = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()))
    with _local(client, run, name) as path:
        if path is None:
            return None
        return pyarrow.csv.read_csv(path, convert_options=types).to_pandas()


def read_text(client: MlflowClient, run: str | Run, name: str) -> str | None:
    """A text file of a run."""
    with _local(client, run, name) as path:
        return None if path is None else path.read_text()


def read_bytes(client: MlflowClient, run: str | Run, name: str) -> bytes | None:
    """A file of a run as it is."""
    with _local(client, run, name) as path:
        return None if path is None else path.read_bytes()


def read_data(client: MlflowClient, run_id: str) -> Source | None:
    """The data of a run; None when it is not here, or has changed since."""
    with _local(client, run_id, CONFIG_FILE) as path:
        settings = {} if path is None else json.loads(path.read_text())
    names = [field.name for field in fields(DataConfig)]
    data = {name: settings[f"data.{name}"] for name in names if f"data.{name}" in settings}
    if not data:
        return None
    report = json.loads(read_text(client, run_id, REPORT_FILE) or "{}")
    try:
        source = read_source(DataConfig(**data), needs=tuple(report.get("needs", OHLCV)))
    except (HmmExpError, OSError):
        return None
    return source if source.digest == client.get_run(run_id).data.tags[tags.DATA_DIGEST] else None


@contextmanager
def _local(client: MlflowClient, run: str | Run, name: str) -> Iterator[Path | None]:
    """One artifact for as long as it is read, None where there is none.

    It is read in place, or from a copy where a server keeps it. A store that does not answer
    raises: it is not taken for a run without the file.
    """
    found = _found(client, run) if isinstance(run, str) else run
    if found is None:
        yield None
        return
    place = append_to_uri_path(found.info.artifact_uri, name)
    if is_local_uri(place):
        path = Path(local_file_uri_to_path(place))
        yield path if path.is_file() and path.stat().st_size else None  # cut off by a full disk
        return
    with tempfile.TemporaryDirectory() as folder:
        copied = None
        try:  # `client.download_artifacts` would read the whole run twice
            copied = download_artifacts(
                artifact_uri=place, dst_path=folder, tracking_uri=client.tracking_uri
            )
        except (MlflowException, OSError):
            if _is_there(client, found.info.run_id, name):
                raise
        yield None if copied is None else Path(copied)


def _found(client: MlflowClient, run_id: str) -> Run | None:
    """A run, None where it is gone."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise


def _is_there(client: MlflowClient, run_id: str, name: str) -> bool:
    """Whether a run lists a file."""
    above = name.rpartition("/")[0] or None
    return any(item.path == name for item in client.list_artifacts(run_id, above))


def densities_of(run: Run) -> str | None:
    """Covariance type of a cell, followed by `-t` for Student-t states; None if not recorded."""
    covariance = run.data.params.get("covariance.type")
    heavy_tailed = run.data.params.get("model.emission") == "student_t"
    return f"{covariance}-t" if covariance and heavy_tailed else covariance
