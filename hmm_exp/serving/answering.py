"""Answer a frame or an HTTP request with regimes, or refuse it with a one-line reason.

model = RegimeModel(detector)
regimes = model.predict(bars)  # timestamp, open, high, low, close, volume
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from numbers import Real

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from hmm_exp.detector.detector import Detector, named
from hmm_exp.errors import LONGEST_LINE, DataError, HmmExpError, one_line
from hmm_exp.market.clean import StampedRows
from hmm_exp.market.columns import check_one_series
from hmm_exp.market.time_column import time_column
from hmm_exp.serving import rest

_SETTING = re.compile(r"; set data\.\w+")
_REMEDY = re.compile(r"data\.bad_rows=drop (leave|keep)s")
_OPTION = re.compile(r"\bdata\.(?=\w+=)")
_MISSING = (type(None), type(pd.NA), type(pd.NaT))
_NUMBERS = (str, Real, Decimal, *_MISSING)  # allowed types of numeric cells
_TIMES = (*_NUMBERS, date, np.datetime64)
_MOST_BITS = 1000  # of an integer; a double holds up to 1023


class RequestError(MlflowException):
    """Input that cannot be answered, with a one-line reason and the HTTP status.

    MLflow's server would prefix `message` with the whole frame; here `message` is read-only.
    """

    def __init__(self, line: str, status: int = 400) -> None:
        self._line, self.status = line, status
        super().__init__(line, INTERNAL_ERROR if status >= 500 else INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The reason, and what to send instead."""
        return self._line

    @message.setter
    def message(self, text: str) -> None:
        pass

    def get_http_status_code(self) -> int:
        """HTTP status of the response."""
        return self.status


class RegimeModel:
    """The detector behind MLflow's `predict`: bars or features in, filtered regimes out.

    Attributes
    ----------
    detector
        The model.
    columns
        Columns that it reads; others are ignored.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.columns = input_columns(detector)

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Compute the regime of every row from the rows up to it.

        Parameters
        ----------
        frame
            `timestamp` (text, datetimes or epochs) with `open high low close volume`, or with the
            feature columns of the model: one sequence of at least `min_history` bars. A model
            trained on another time or volume column reads the column of that name.

        Returns
        -------
        DataFrame
            `timestamp, available_at, state, label, regime, in_training, p_state_0 ...`

        Raises
        ------
        RequestError
            The frame cannot be answered; the message says what to send.
        """
        with _refusals(self.detector):
            return self._regimes(frame)

    def answer(self, body: bytes, content_type: str | None, kind: str = rest.JSON) -> str:
        """Answer the body of a request with a text of this kind; raises like `predict`."""
        with _refusals(self.detector):
            frame = rest.read_body(body, content_type, self.columns)
            return rest.answer_text(self._regimes(frame), kind)

    def get_raw_model(self) -> Detector:
        """Return the detector; MLflow defines the name."""
        return self.detector

    def _regimes(self, frame: pd.DataFrame) -> pd.DataFrame:
        check_one_series(frame)
        frame = frame.loc[:, frame.columns.isin(self.columns)]
        if frame.empty:
            raise DataError("no rows, or none of the known columns")
        twice = frame.columns[frame.columns.duplicated()]
        if len(twice):
            raise DataError(f"columns named more than once: {named(list(twice.unique()))}")
        _check_kinds(frame, self.detector.bar_columns[0])
        if self.detector.holds_features(frame):
            _check_features(frame, self.detector)
        else:
            _check_bars(frame, self.detector)
        return self.detector.filter(frame)


def input_columns(detector: Detector) -> tuple[str, ...]:
    """Columns that a detector reads in a frame of bars or features."""
    return tuple(dict.fromkeys((*detector.bar_columns, *detector.recipe.columns)))


@contextmanager
def _refusals(detector: Detector) -> Iterator[None]:
    """Turn every error into a RequestError, with errors of other libraries as its cause.

    Texts of unexpected errors may contain paths and are not sent to the caller.
    """
    try:
        yield
    except HmmExpError as error:
        line = _for_caller(str(error), detector)
        raise RequestError(line, getattr(error, "status", 400)) from None
    except (ArithmeticError, TypeError, ValueError) as error:
        line = f"the request cannot be read: {type(error).__name__}: {error}"
        raise RequestError(_for_caller(line, detector)) from error
    except Exception as error:
        raise RequestError(f"the model failed: {type(error).__name__}", 500) from error


def _check_kinds(frame: pd.DataFrame, time: str) -> None:
    """Refuse cells that are neither numbers nor texts, nor times in the column `time`."""
    for name in frame.columns:
        column, kinds = frame[name], _TIMES if name == time else _NUMBERS
        if column.dtype != object:
            if not _fits(column.dtype.type, kinds):
                raise DataError(f"column {name} holds values of type {column.dtype}")
            continue
        for row, cell in enumerate(column, 1):
            if not _fits(type(cell), kinds):
                kind = type(cell).__name__
                raise DataError(f"column {name} holds a value of type {kind} in data row {row}")
            if isinstance(cell, int) and cell.bit_length() > _MOST_BITS:
                raise DataError(f"column {name} holds a number beyond 1e300 in data row {row}")


def _fits(kind: type, kinds: tuple[type, ...]) -> bool:
    return issubclass(kind, kinds) and not issubclass(kind, bool)


def _check_bars(frame: pd.DataFrame, detector: Detector) -> None:
    """Refuse bars with missing columns; the times may be the index."""
    time, *others = detector.bar_columns
    needs = {
        detector.reading.volume if name == "volume" else name for name in detector.recipe.needs
    }
    others = [name for name in others if name in needs]
    indexed = isinstance(frame.index, pd.DatetimeIndex) or frame.index.name is not None
    needed = others if indexed else [time, *others]
    if missing := [name for name in needed if name not in frame]:
        raise DataError(f"no column {named(missing)}")


def _check_features(frame: pd.DataFrame, detector: Detector) -> None:
    """Refuse feature cells that are not finite numbers; the detector checks the columns.

    A row that lacks a feature can be omitted and then counts as missing.
    """
    time = detector.bar_columns[0]
    present = [name for name in detector.recipe.columns if name in frame]
    if time not in frame:
        return
    rows = StampedRows(frame, time_column(frame, detector.reading), present, detector.reading)
    rows.need_stamps()
    missing = ~np.isfinite(rows.values) & ~rows.text
    rows.need_cells(
        [("text instead of a number", rows.text), ("a missing or infinite number", missing)]
    )


def _for_caller(line: str, detector: Detector) -> str:
    """Adapt an error to the caller: no `data.` settings, and advice on what to send."""
    text = _SETTING.sub("", line)
    text = _OPTION.sub("", _REMEDY.sub(r"\1", text))  # "leave them out", "keep the last"
    if "send " in text:
        return one_line(text, LONGEST_LINE)
    time, *bar = detector.bar_columns
    rows = f"{detector.min_history} rows of {time} with {', '.join(bar)}"
    advice = f": send at least {rows}, or with the features"
    return one_line(one_line(text, max(100, LONGEST_LINE - len(advice))) + advice, LONGEST_LINE)
