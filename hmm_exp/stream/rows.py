"""Ready feature rows in chunks, filtered as if they had come in one table."""

import numpy as np
import pandas as pd

from hmm_exp.errors import DataError
from hmm_exp.hmm import recursions
from hmm_exp.market.gaps import chain_steps
from hmm_exp.stream.model import StreamModel


class RowStream:
    """A filter over feature rows that remembers where it was.

    Parameters
    ----------
    model
        What turns rows into regimes.
    """

    def __init__(self, model: StreamModel) -> None:
        self.model = model
        self._startprob = model.params.stationary()
        self._probs: np.ndarray | None = None
        self._last: np.ndarray = np.empty(0, np.int64)  # `available_at` of the last row

    def extend(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Take rows and give their regimes; those before the first complete one are dropped.

        Parameters
        ----------
        rows
            Index `available_at`, increasing and later than all before; `timestamp` and the
            columns of the recipe.

        Raises
        ------
        DataError
            When a column is missing.
        """
        columns = list(self.model.recipe.columns)
        missing = [name for name in columns if name not in rows]
        if missing:
            raise DataError(f"no column {', '.join(missing)}: the model needs {', '.join(columns)}")
        X = rows[columns].to_numpy(dtype=np.float64)
        first = self._first(X)
        rows, X = rows.iloc[first:], X[first:]
        probs = self._filtered(X, pd.DatetimeIndex(rows.index)) if len(rows) else X[:, :0]
        available_at = pd.DatetimeIndex(rows.index)
        return self.model.regime_frame(pd.DatetimeIndex(rows["timestamp"]), available_at, probs)

    def _first(self, X: np.ndarray) -> int:
        """Row to begin with: the first complete one, where none has come yet."""
        if self._probs is not None:
            return 0
        complete = ~np.isnan(X).any(axis=1)
        return int(complete.argmax()) if complete.any() else len(X)

    def _filtered(self, X: np.ndarray, available_at: pd.DatetimeIndex) -> np.ndarray:
        model = self.model
        time = np.concatenate([self._last, available_at.as_unit("ns").asi8])
        steps = chain_steps(time, model.row_step.as_unit("ns").value, model.gaps)
        scaled = (X - model.scaler_mean) / model.scaler_scale
        filtered = recursions.filter_rows(
            model.params, scaled, steps[len(self._last) :], self._startprob, self._probs
        )
        self._last, self._probs = time[-1:], filtered.probs[-1]
        return filtered.probs
