"""The one form of written times: ISO 8601 in UTC, as `2024-01-01T05:00:00Z`.

>>> iso(pd.Timestamp("2024-01-01 06:00", tz="Europe/Berlin"))
'2024-01-01T05:00:00Z'
"""

from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


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
