"""Answer a frame or an HTTP request with regimes, or refuse it with a one-line reason.

model = RegimeModel(detector)
regimes = model.predict(bars)  # timestamp, open, high, low, close, volume
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from hmm_exp.detector.detector import Detector
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.detector.sent import Table, check_kinds, frame_of
from hmm_exp.errors import LONGEST_LINE, HmmExpError, one_line
from hmm_exp.market.clean import StampedRows
from hmm_exp.market.columns import tidy
from hmm_exp.market.time_column import time_column
from hmm_exp.serving import rest

_SETTING = re.compile(r"; set data\.\w+")
_REMEDY = re.compile(r"data\.bad_rows=drop (leave|keep)s")
_OPTION = re.compile(r"\bdata\.(?=\w+=)")


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
        The model, or a pool of many symbols' models.
    """

    def __init__(self, detector: Detector | PooledDetector) -> None:
        self.detector = detector

    def predict(self, frame: Table) -> pd.DataFrame:
        """Compute the regime of every row from the rows up to it.

        Parameters
        ----------
        frame
            What `Detector.filter` takes: times (text, datetimes or epochs) with open, high, low,
            close and volume, or with the feature columns of the model, of which no cell may be
            missing. One sequence of at least `min_history` bars. A model trained on another time
            or volume column reads the column of that name. A pool also takes a column `symbol`,
            and one sequence of each symbol.

        Returns
        -------
        DataFrame
            `timestamp, available_at, state, label, regime, in_training, p_state_0 ...`; of a pool
            `symbol` first

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
            frame = rest.read_body(body, content_type, self.detector.reads)
            return rest.answer_text(self._regimes(frame), kind)

    def get_raw_model(self) -> Detector | PooledDetector:
        """Return the detector or the pool; MLflow defines the name."""
        return self.detector

    def _regimes(self, table: Table) -> pd.DataFrame:
        frame = frame_of(table)
        if isinstance(self.detector, PooledDetector):
            return self.detector.each(frame, _checked)
        return _checked(self.detector, frame)


def _checked(detector: Detector, frame: pd.DataFrame) -> pd.DataFrame:
    """Regimes of bars, or of feature rows whose cells are all numbers."""
    if detector.holds_features(frame):
        _check_features(tidy(frame)[0], detector)
    return detector.filter(frame)


@contextmanager
def _refusals(detector: Detector | PooledDetector) -> Iterator[None]:
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


def _check_features(frame: pd.DataFrame, detector: Detector) -> None:
    """Refuse feature cells that are not finite numbers; the detector checks the columns.

    A row that lacks a feature can be omitted and then counts as missing.
    """
    times = time_column(frame, detector.reading)
    present = [name for name in detector.recipe.columns if name in frame]
    check_kinds(frame, present, times.name)
    rows = StampedRows(frame, times, present, detector.reading)
    rows.need_stamps()
    missing = ~np.isfinite(rows.values) & ~rows.text
    rows.need_cells(
        [("text instead of a number", rows.text), ("a missing or infinite number", missing)]
    )


def _for_caller(line: str, detector: Detector | PooledDetector) -> str:
    """Adapt an error to the caller: no `data.` settings, and advice on what to send."""
    text = _SETTING.sub("", line)
    text = _OPTION.sub("", _REMEDY.sub(r"\1", text))  # "leave them out", "keep the last"
    if "send " in text:
        return one_line(text, LONGEST_LINE)
    time, *bar = detector.bar_columns
    rows = f"{detector.min_history} rows of {time} with {', '.join(bar)}"
    advice = f": send at least {rows}, or with the features"
    return one_line(one_line(text, max(100, LONGEST_LINE - len(advice))) + advice, LONGEST_LINE)
