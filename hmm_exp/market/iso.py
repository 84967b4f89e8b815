"""The one form of written times, ISO 8601 in UTC as `2024-01-01T05:00:00Z`, and CSV with them.

>>> iso(pd.Timestamp("2024-01-01 06:00", tz="Europe/Berlin"))
'2024-01-01T05:00:00Z'
"""

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv


def iso(time: datetime | int | np.integer) -> str:
    """Text of a time with a zone, or of nanoseconds since 1970; a fraction only if it has one."""
    zone = None if isinstance(time, datetime) else "UTC"
    stamp = pd.Timestamp(time).tz_localize(zone) if zone else pd.Timestamp(time)
    return f"{stamp.tz_convert(None).isoformat()}Z"


def iso_texts(times: pd.Series | pd.DatetimeIndex) -> pa.Array:
    """Texts of T times with a zone, null if missing; with fractions if any of them has one."""
    naive = pd.DatetimeIndex(times).tz_convert(None).as_unit("ns")
    seconds = naive.as_unit("s")
    whole = ((seconds == naive) | naive.isna()).all()
    text = pa.array(seconds if whole else naive, from_pandas=True).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(text, " ", "T"), "Z", "")


def write_rows(table: pa.Table, to: Any, *, header: bool) -> None:
    """Write a table as CSV to a path or a file; texts are quoted only if one of them needs it."""
    texts = [column for column in table.columns if pa.types.is_string(column.type)]
    special = any(pc.any(pc.match_substring_regex(text, r'[",\r\n]')).as_py() for text in texts)
    style = "needed" if special else "none"
    options = pyarrow.csv.WriteOptions(include_header=header, quoting_style=style)
    pyarrow.csv.write_csv(table, to, options)
