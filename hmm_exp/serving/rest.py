"""Read and answer requests to MLflow's REST server: body to frame, regimes to JSON or CSV.

    frame = read_body(body, "text/csv", names)
    kind = answer_kind("text/csv")  # of the header Accept
    text = answer_text(regimes, kind)

MLflow's scoring server reads the body before it calls a model. Its reader answers a bad body with a
stack trace or with the whole body, cannot read `text/csv` for columns of any type, and needs more
than a minute for a million rows. MLflow has no setting for another reader, so `answer_requests`
replaces one function, `scoring_server.invocations`, in the server's process only. The header
`Accept`, which that function does not get, comes from around the server's decorator of requests.
"""

import inspect
import io
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from hmm_exp.errors import DataError
from hmm_exp.market.iso import arrow_table, iso_texts, write_rows

JSON, CSV = "application/json", "text/csv"
MOST_ROWS = 1_000_000
MOST_BYTES = 256 * 2**20
MOST_CELLS = 64 * MOST_ROWS
Reads = Callable[[str], bool]

_SERVER = "mlflow.pyfunc.scoring_server"
_PARAMETERS = ["data", "content_type", "model", "input_schema"]
_INSTEAD = "send the newest rows only, or read the file with hmm-apply"
_LOG = logging.getLogger(__name__)
_accept: ContextVar[str | None] = ContextVar("accept", default=None)  # of this request


class RefusedError(DataError):
    """A refused request body.

    Attributes
    ----------
    status
        HTTP status of the response.
    """

    def __init__(self, line: str, status: int = 400) -> None:
        super().__init__(line)
        self.status = status


def in_server() -> bool:
    """Whether this is a process of MLflow's scoring server."""
    return f"{_SERVER}.app" in sys.modules


def answer_requests(answer: Callable[[bytes, str | None, str], str]) -> None:
    """Make this server answer every request with the text `answer(body, content_type, kind)`.

    `kind` is JSON or CSV, as the request's `Accept` wants it.

    A server whose function has other parameters is not changed; a warning is logged.
    """
    server = sys.modules[_SERVER]
    if list(inspect.signature(server.invocations).parameters) != _PARAMETERS:
        _LOG.warning("unknown scoring server of this MLflow: it reads the requests itself")
        return

    _note_accept(server)

    def invocations(data: bytes, content_type: str | None, model: Any, input_schema: Any) -> Any:
        try:
            kind = answer_kind(_accept.get())
            text = answer(data, content_type, kind)
        except Exception as error:
            if error.__cause__ is not None:  # log the trace, do not send it
                _LOG.warning("request failed", exc_info=error.__cause__)
            raise
        return server.InvocationsResponse(text, 200, kind)

    server.invocations = invocations  # type: ignore[attr-defined]


def _note_accept(server: Any) -> None:
    """Make a server note the header `Accept` of each request, for its thread of `invocations`."""
    decorate = getattr(server, "_async_catch_mlflow_exception", None)
    if decorate is None:  # in another version of MLflow: all answers are JSON
        return

    def decorate_noting(handle: Callable[[Any], Awaitable[Any]]) -> Any:
        @wraps(handle)
        async def noting(request: Any) -> Any:
            _accept.set(request.headers.get("accept"))
            return await handle(request)

        return decorate(noting)

    server._async_catch_mlflow_exception = decorate_noting


def read_body(body: bytes, content_type: str | None, reads: Reads) -> pd.DataFrame:
    """Read the frame of a request.

    Parameters
    ----------
    body
        Body of the request.
    content_type
        `application/json`, `text/csv` or `application/vnd.apache.parquet`, in UTF-8.
    reads
        Whether a column of that name may be read; the frame may have others.

    Raises
    ------
    RefusedError
        Unknown content type (415), body too large (413), or not a table (400).
    """
    read = _reader(content_type)
    if len(body) > MOST_BYTES:
        raise RefusedError(
            f"the body has {len(body) / 2**20:,.0f} MB, the most is {MOST_BYTES >> 20}: {_INSTEAD}",
            status=413,
        )
    frame = read(body, reads)
    _check_length(len(frame))
    return frame


def answer_kind(accept: str | None) -> str:
    """Content type of an answer, `application/json` or `text/csv`, by a request's `Accept`.

    The type of the higher quality (RFC 9110, 12.5.1); JSON when the header ranks neither first.
    """
    quality = {JSON: 0.0, CSV: 0.0}
    for part in (accept or "").lower().split(","):
        kind, _, rest = part.partition(";")
        found = re.search(r"\bq\s*=\s*([\d.]+)", rest)
        with suppress(ValueError):  # such as 1.2.3
            if (kind := kind.strip()) in quality:
                quality[kind] = float(found[1]) if found else 1.0
    return CSV if quality[CSV] > quality[JSON] else JSON


def answer_text(answer: pd.DataFrame, kind: str = JSON) -> str:
    """Regimes as JSON in MLflow's form, `{"predictions": [{"timestamp": ...}, ...]}`, or as CSV."""
    if kind == CSV:
        text = io.BytesIO()
        write_rows(arrow_table(answer), text, header=True)
        return text.getvalue().decode()
    names = list(answer)
    columns = [_plain(answer[name]) for name in names]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return json.dumps({"predictions": rows})


def _plain(column: pd.Series) -> list:
    """Values for `json`, times as text."""
    is_time = isinstance(column.dtype, pd.DatetimeTZDtype)
    return iso_texts(column).to_pylist() if is_time else column.tolist()


def _reader(content_type: str | None) -> Callable[[bytes, Reads], pd.DataFrame]:
    kind, *parameters = [part.strip().lower() for part in (content_type or "").split(";")]
    if kind not in _READERS:
        raise RefusedError(f"content type {kind[:60]!r}: send {', '.join(_READERS)}", status=415)
    if {*parameters} - {"", "charset=utf-8", 'charset="utf-8"'}:
        raise RefusedError(
            f"content type {kind} with {'; '.join(parameters)[:60]!r}: send UTF-8 and no parameter",
            status=415,
        )
    return _READERS[kind]


def _check_length(n_rows: int) -> None:
    if n_rows > MOST_ROWS:
        raise RefusedError(
            f"the request holds {n_rows:,} rows, the most is {MOST_ROWS:,}: {_INSTEAD}", status=413
        )


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        line = f"the body is not UTF-8: byte 0x{byte:02x} at {error.start}"
        raise RefusedError(line) from None


def _from_json(body: bytes, reads: Reads) -> pd.DataFrame:
    request = _parsed(_text(body))
    forms = list(request) if isinstance(request, dict) else []
    if len(forms) != 1 or forms[0] not in _FORMS:
        there = ", ".join(form[:30] for form in forms[:5]) or "none"
        raise RefusedError(
            f"the JSON must be an object with one of the keys {', '.join(_FORMS)} and no other; "
            f"it has {there}"
        )
    return _FORMS[forms[0]](request[forms[0]], reads)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise RefusedError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise RefusedError("the JSON is nested too deeply") from None
    except ValueError:
        digits = sys.get_int_max_str_digits()
        raise RefusedError(f"the JSON holds a number of over {digits:,} digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise RefusedError(f"an object of the JSON has the key {twice[:60]!r} more than once")
    return made


def _records(rows: Any, reads: Reads) -> pd.DataFrame:
    """Frame of `[{"open": 1, ...}, ...]`, known columns only."""
    if not isinstance(rows, list):
        raise RefusedError("the rows must be a list of objects")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RefusedError(f"data row {number} must be an object with the columns' names")
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if reads(name)]
    if len(rows) * len(names) > MOST_CELLS:
        raise RefusedError(f"{len(rows):,} rows of {len(names):,} names: {_INSTEAD}", status=413)
    return pd.DataFrame(rows, columns=names)


def _split(parts: Any, reads: Reads) -> pd.DataFrame:
    """Frame of `{"columns": ["open", ...], "data": [[1, ...], ...]}`; an index may hold times."""
    if not isinstance(parts, dict) or not {"columns", "data"} <= {*parts} <= {*_SPLIT}:
        raise RefusedError(f"dataframe_split must be an object of {', '.join(_SPLIT)}")
    columns, rows = parts["columns"], parts["data"]
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise RefusedError("columns of dataframe_split must be a list of names")
    if not isinstance(rows, list):
        raise RefusedError("data of dataframe_split must be a list of rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != len(columns):
            raise RefusedError(f"data row {number} must be a list of {len(columns)} values")
    index = parts.get("index")
    if not isinstance(index, list) or len(index) != len(rows):
        return pd.DataFrame(rows, columns=columns)
    return pd.DataFrame(rows, columns=columns, index=pd.Index(index, name="index"))


def _inputs(columns: Any, reads: Reads) -> pd.DataFrame:
    """Frame of `{"open": [1, ...], ...}`, or of rows like `_records`."""
    if isinstance(columns, list):
        return _records(columns, reads)
    if not isinstance(columns, dict) or not all(isinstance(v, list) for v in columns.values()):
        raise RefusedError("inputs must be an object of lists, one a column, or a list of objects")
    if len({len(values) for values in columns.values()}) > 1:
        raise RefusedError("the columns of inputs must be of one length")
    return pd.DataFrame(columns)


def _from_csv(body: bytes, reads: Reads) -> pd.DataFrame:
    content = _text(body).encode()
    if not content.strip():
        raise RefusedError("the body is empty")
    blocks = pa_csv.ReadOptions(block_size=len(content) + 1)  # all rows decide a type
    try:
        return pa_csv.read_csv(pa.BufferReader(content), blocks).to_pandas(date_as_object=False)
    except pa.ArrowException as error:
        raise RefusedError(f"the body is not CSV: {error}") from None


def _from_parquet(body: bytes, reads: Reads) -> pd.DataFrame:
    try:
        file = pa_parquet.ParquetFile(pa.BufferReader(body))
        _check_length(file.metadata.num_rows)
        return file.read().to_pandas(date_as_object=False)
    except (pa.ArrowException, OSError) as error:
        raise RefusedError(f"the body is not Parquet: {error}") from None


_SPLIT = ("columns", "data", "index")
_FORMS = {
    "dataframe_records": _records,
    "dataframe_split": _split,
    "instances": _records,
    "inputs": _inputs,
}
_READERS = {
    JSON: _from_json,
    CSV: _from_csv,
    "application/vnd.apache.parquet": _from_parquet,
}
