"""Bars, ready tables and features as entries of a sweep's cache, and back, with the same bits.

Reading a file, checking it and computing windows is the same work for every cell of an observation
space; see `cache` for where it is kept.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.experiment.cache import Content, entry
from hmm_exp.features.build import FeatureTable
from hmm_exp.features.recipe import Recipe
from hmm_exp.market.bars import OHLCV, Bars, bars_digest
from hmm_exp.market.validate import stamped_frame


def shared_bars(folder: Path | None, key: Any, read: Callable[[], Bars]) -> tuple[Bars, str]:
    """Bars and their digest."""

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
    """A ready feature table, and its data report."""

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
    """Feature table of the bars with a digest."""

    def make() -> Content:
        table = build()
        arrays = {
            "time": _nanoseconds(table.frame.index),
            "stamps": _nanoseconds(table.timestamp),
            "steps": table.steps,
            "X": table.X,
        }
        return arrays, {"warmup_rows": table.warmup_rows, "n_missing": table.n_missing}

    arrays, about = entry(folder, "features", [digest, recipe.to_dict()], make)
    time = _times(arrays["time"])
    return FeatureTable(
        frame=pd.DataFrame(arrays["X"], time, list(recipe.columns), copy=False),
        timestamp=pd.Series(_times(arrays["stamps"]), time, name="timestamp"),
        steps=arrays["steps"],
        warmup_rows=about["warmup_rows"],
        n_missing=about["n_missing"],
        recipe=recipe,
    )


def _nanoseconds(times: Any) -> np.ndarray:
    return pd.DatetimeIndex(times).as_unit("ns").asi8


def _times(nanoseconds: np.ndarray) -> pd.DatetimeIndex:
    times = pd.to_datetime(nanoseconds, utc=True, unit="ns").as_unit("ns")
    return times.rename("available_at")
