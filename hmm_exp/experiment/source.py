"""Read the input of a run, bars or a ready feature table, with its digest and returns.

>>> source = read_source(config.data)
>>> source.next_return

With a cache (`cache.py`), one process of a sweep reads and the others map its arrays.
"""

import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.config import DataConfig
from hmm_exp.errors import DataError, SeveralSeriesError
from hmm_exp.experiment.cache import Content, entry
from hmm_exp.features.build import FeatureTable
from hmm_exp.features.recipe import Recipe
from hmm_exp.market.bars import OHLCV, Bars, bars_digest, timeframe_step
from hmm_exp.market.calendar import calendar_report
from hmm_exp.market.clean import stamped_frame
from hmm_exp.market.gaps import chain_steps, usual_step
from hmm_exp.market.load import read_bars, read_features
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.symbol_files import SymbolRows, files_of
from hmm_exp.market.synthetic import make_market

SCORES_FILE = "scores.parquet"  # of a run: the log scores of every base bar
STRATEGY_FILE = "strategy.csv"  # of a run: the strategy table


@dataclass(frozen=True, eq=False)
class Source:
    """The input as read: bars, or a ready feature frame when there are none."""

    bars: Bars | None
    frame: pd.DataFrame | None
    name: str
    digest: str
    report: dict[str, Any]
    time: pd.DatetimeIndex  # when each base bar (or ready row) is complete, UTC
    # Log return per base bar, shape (N,), NaN where the bar before is missing; None when a ready
    # table has no raw log return of its rows' timeframe.
    log_return: np.ndarray | None

    @property
    def next_return(self) -> np.ndarray | None:
        """Log return of the bar after each base bar, NaN at the end and across gaps."""
        if self.log_return is None:
            return None
        return np.append(self.log_return[1:], np.nan)

    def cut(self, bars: slice) -> "Source":
        """The same input, reduced to some of its base bars."""
        log_return = None if self.log_return is None else self.log_return[bars]
        inside = None
        if self.bars is not None:
            inside = replace(self.bars, frame=self.bars.frame.iloc[bars], states=None)
        return replace(self, bars=inside, time=self.time[bars], log_return=log_return)


def read_source(
    data: DataConfig,
    cache: Path | None = None,
    needs: tuple[str, ...] = OHLCV,
    cut: Path | None = None,
) -> Source:
    """Read bars or ready features as configured, once per process, file state and settings.

    All processes with the same folder `cache` read once. `needs` are the columns of bars that will
    be used, see `bars_from_frame`. In the folder `cut`, by default `cache`, a long table is kept by
    symbol.
    """
    settings = json.dumps(vars(data), sort_keys=True)
    files = files_of(str(data.path)) if _holds_several(data) else [data.path]
    state = tuple(part for file in files for part in _file_state(file))
    return _read(_ReadSettings(settings, state, needs, cache, cut or cache))


def forget_sources() -> None:
    """Let go of the inputs that this process has read."""
    _read.cache_clear()


def read_options(data: DataConfig) -> ReadOptions:
    """How the data is read; a synthetic market stamps the open of its bars."""
    return ReadOptions.of(replace(data, bar_stamp=data.bar_stamp or "open"))


def column_step(column: str) -> pd.Timedelta:
    """Bar length of a feature column, from its suffix."""
    return timeframe_step(column.rsplit("_", 1)[1])


@dataclass(frozen=True)
class _ReadSettings:
    """Key of `_read`; the folders of the cache are not part of it."""

    settings: str
    file_state: tuple[int | str, ...]
    needs: tuple[str, ...]
    cache: Path | None = field(compare=False)
    cut: Path | None = field(compare=False)


@lru_cache(maxsize=4)
def _read(reading: _ReadSettings) -> Source:
    data = DataConfig(**json.loads(reading.settings))
    key: list = [reading.settings, reading.file_state]
    if data.kind == "features":
        return _source_of_features(data, reading.cache, key)
    key.append(reading.needs)
    bars, digest = shared_bars(
        reading.cache, key, lambda: _read_bars(data, reading.needs, reading.cut)
    )
    return Source(
        bars=bars,
        frame=None,
        name=bars.name,
        digest=digest,
        report=bars.report,
        time=pd.DatetimeIndex(bars.frame.index),
        log_return=_log_returns(bars),
    )


def _read_bars(data: DataConfig, needs: tuple[str, ...], cut: Path | None) -> Bars:
    if data.kind == "synthetic":
        return make_market(data.n_bars, data.n_regimes, data.seed)
    try:
        several = _holds_several(data)
        rows = SymbolRows(str(data.symbol), data.symbol_column, cut) if several else None
        bars = read_bars(
            str(data.path), read_options(data), name=data.name, needs=needs, symbol=rows
        )
    except SeveralSeriesError as error:
        if error.column is None:
            raise
        column, first = shlex.quote(error.column), shlex.quote(error.first)
        raise DataError(
            f"{error}, or read one with data.symbol={first} data.symbol_column={column}"
        ) from None
    return replace(bars, report=bars.report | _calendar(data, bars.frame, bars.step))


def _holds_several(data: DataConfig) -> bool:
    """Whether `data.symbol` is one of several in the path; a download holds its symbol alone."""
    return data.symbol is not None and data.exchange is None


def _read_table(data: DataConfig) -> tuple[pd.DataFrame, dict]:
    frame, report = read_features(str(data.path), read_options(data), name=data.name)
    step = pd.Timedelta(usual_step(pd.DatetimeIndex(frame.index).as_unit("ns").asi8), unit="ns")
    return frame, report | _calendar(data, frame, step)


def _calendar(data: DataConfig, frame: pd.DataFrame, step: pd.Timedelta) -> dict[str, Any]:
    """Part of the data report on `data.calendar`; empty without one."""
    if data.calendar is None:
        return {}
    stamp, timezone = read_options(data).bar_stamp, data.timezone
    found = calendar_report(frame["timestamp"], step, stamp, timezone, data.calendar)
    return {"calendar": found}


def _file_state(path: str | None) -> tuple[int | str, ...]:
    """Path, size, times and inode of a file: a change of any reads it again."""
    if path is None:
        return ()
    try:
        stat = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()  # the reader reports it
    except (OSError, ValueError) as error:  # too long a name, a folder that is closed to the user
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"data.path={path}: {reason}") from None
    whole_path = str(Path(path).resolve())
    return (whole_path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _source_of_features(data: DataConfig, cache: Path | None, key: list) -> Source:
    frame, report = shared_ready(cache, key, lambda: _read_table(data))
    return Source(
        bars=None,
        frame=frame,
        name=report["name"],
        digest=_frame_digest(frame),
        report=report,
        time=pd.DatetimeIndex(frame.index),
        log_return=_ready_returns(frame, data.gaps),
    )


def _log_returns(bars: Bars) -> np.ndarray:
    log_close = np.log(bars.frame["close"].to_numpy())
    returns = np.diff(log_close, prepend=np.nan)
    returns[chain_steps(bars.time, bars.step.value, bars.gaps) != 1] = np.nan
    return returns


def _ready_returns(frame: pd.DataFrame, gaps: str) -> np.ndarray | None:
    """Raw return of the rows' own timeframe in a ready table; a coarser one is no target."""
    time = pd.DatetimeIndex(frame.index).as_unit("ns").asi8
    step = usual_step(time)
    columns = [name for name in frame.columns if name.startswith("close_logret_current_")]
    column = next((name for name in columns if column_step(name).value == step), None)
    if column is None:
        return None
    returns = frame[column].to_numpy(dtype=np.float64, copy=True)
    returns[chain_steps(time, step, gaps) != 1] = np.nan
    return returns if np.isfinite(returns).any() else None


def _frame_digest(frame: pd.DataFrame) -> str:
    code = hashlib.sha256(",".join(frame.columns).encode())
    code.update(pd.util.hash_pandas_object(frame).to_numpy().tobytes())
    return code.hexdigest()[:16]


def shared_bars(folder: Path | None, key: Any, read: Callable[[], Bars]) -> tuple[Bars, str]:
    """Bars and their digest, from the cache or read now."""

    def make() -> Content:
        bars = read()
        arrays = {"stamps": _nanoseconds(bars.frame["timestamp"]), "values": bars.ohlcv}
        if bars.states is not None:
            arrays["states"] = bars.states
        about = {
            "step": bars.step.as_unit("ns").value,
            "stamp": bars.stamp,
            "gaps": bars.gaps,
            "name": bars.name,
            "report": bars.report,
            "digest": bars_digest(bars),
        }
        return arrays, about

    arrays, about = entry(folder, "bars", key, make)
    step, stamp = about["step"], about["stamp"]
    bars = Bars(
        frame=stamped_frame(arrays["stamps"], arrays["values"], list(OHLCV), step, stamp),
        step=pd.Timedelta(step, unit="ns"),
        stamp=stamp,
        gaps=about["gaps"],
        name=about["name"],
        report=about["report"],
        states=arrays.get("states"),
    )
    return bars, about["digest"]


def shared_ready(
    folder: Path | None, key: Any, read: Callable[[], tuple[pd.DataFrame, dict]]
) -> tuple[pd.DataFrame, dict]:
    """A ready feature table and its data report, from the cache or read now."""

    def make() -> Content:
        frame, report = read()
        names = [name for name in frame.columns if name != "timestamp"]
        arrays = {
            "time": _nanoseconds(frame.index),
            "stamps": _nanoseconds(frame["timestamp"]),
            "values": np.ascontiguousarray(frame[names].to_numpy(dtype=np.float64)),
        }
        return arrays, {"names": names, "report": report}

    arrays, about = entry(folder, "ready", key, make)
    frame = pd.DataFrame(arrays["values"], _times(arrays["time"]), about["names"], copy=False)
    frame.insert(0, "timestamp", _times(arrays["stamps"]))
    return frame, about["report"]


def shared_features(
    folder: Path | None, digest: str, recipe: Recipe, build: Callable[[], FeatureTable]
) -> FeatureTable:
    """Feature table of the bars with this digest, from the cache or built now."""

    def make() -> Content:
        table = build()
        arrays = {
            "time": _nanoseconds(table.frame.index),
            "stamps": _nanoseconds(table.timestamp),
            "steps": table.steps,
            "X": table.X,
        }
        if table.ends is not None:
            arrays["ends"] = table.ends
        about = {"warmup_rows": table.warmup_rows, "n_missing": table.n_missing}
        return arrays, about | {"lost": table.lost}

    arrays, about = entry(folder, "features", [digest, recipe.to_dict()], make)
    time = _times(arrays["time"])
    return FeatureTable(
        frame=pd.DataFrame(arrays["X"], time, list(recipe.columns), copy=False),
        timestamp=pd.Series(_times(arrays["stamps"]), time, name="timestamp"),
        steps=arrays["steps"],
        warmup_rows=about["warmup_rows"],
        n_missing=about["n_missing"],
        recipe=recipe,
        ends=arrays.get("ends"),
        find_lost=lambda: about["lost"],
    )


def _nanoseconds(times: Any) -> np.ndarray:
    return pd.DatetimeIndex(times).as_unit("ns").asi8


def _times(nanoseconds: np.ndarray) -> pd.DatetimeIndex:
    times = pd.to_datetime(nanoseconds, utc=True, unit="ns").as_unit("ns")
    return times.rename("available_at")
