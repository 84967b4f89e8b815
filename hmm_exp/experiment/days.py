"""The regimes of a run by day: few numbers, for a page that shows many symbols.

>>> write_days(result, folder)
>>> pd.read_parquet(folder / "days.parquet")
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from hmm_exp.experiment.decided import at_close
from hmm_exp.experiment.result import RunResult
from hmm_exp.judge.split import SPLIT_NAMES

DAYS_FILE = "days.parquet"
LABELS = b"labels"  # key of the file's metadata: JSON list of the states' labels, calm first


def write_days(result: RunResult, folder: Path) -> None:
    """Write `DAYS_FILE`: the columns of `by_day`, and the labels of the states as metadata."""
    table = pa.Table.from_pandas(by_day(result), preserve_index=False)
    labels = json.dumps(list(result.detector.labels)).encode()
    table = table.replace_schema_metadata({LABELS: labels})
    pa.parquet.write_table(table, folder / DAYS_FILE)


def by_day(result: RunResult) -> pd.DataFrame:
    """Close and decided regime of every UTC day with a bar.

    Returns
    -------
    DataFrame
        In time order: `day` (date); `close` of its last bar; `regime` that most of its bars have,
        the calmer of equal ones, -1 if none is decided; `split` of the last bar: `train`, `val`,
        `test`, or `before`.
    """
    prepared = result.prepared
    bars = prepared.source.bars
    assert bars is not None
    regimes = at_close(prepared, result.decided)
    dates = pd.DatetimeIndex(bars.frame.index).tz_convert(None).floor("D")
    days, day = np.unique(dates.to_numpy(), return_inverse=True)
    counts = np.zeros((len(days), result.n_states), dtype=np.int64)
    decided = regimes >= 0
    np.add.at(counts, (day[decided], regimes[decided]), 1)
    last = np.append(np.flatnonzero(np.diff(day)), len(day) - 1)
    names = np.array([SPLIT_NAMES[part] for part in prepared.target_part[last]])
    return pd.DataFrame(
        {
            "day": pd.DatetimeIndex(days).date,
            "close": bars.frame["close"].to_numpy()[last].astype(np.float32),
            "regime": np.where(counts.any(axis=1), counts.argmax(axis=1), -1).astype(np.int8),
            "split": names,
        }
    )
