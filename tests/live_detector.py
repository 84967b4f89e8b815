"""Detectors made by hand over any recipe, and bars of any length with gaps, for live tests."""

from dataclasses import replace

import numpy as np
import pandas as pd

from hmm_exp.detector.decision import Decision
from hmm_exp.detector.detector import Detector
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.market.bars import Bars
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.synthetic import make_market

SHORT = {"window": 5, "vwap_hours": 48.0}  # windows that a small market fills
BAR = ["timestamp", "open", "high", "low", "close", "volume"]


def live_detector(
    recipe: Recipe,
    *,
    step: str = "1h",
    n_states: int = 3,
    covariance_type: str = "diag",
    heavy_tailed: bool = False,
    gaps: str = "split",
    stamp: str = "open",
    seed: int = 0,
    decision: Decision = Decision("hysteresis", enter=0.7, leave=0.2),  # noqa: B008
) -> Detector:
    """States that are neither certain nor alike on any bars."""
    random = np.random.default_rng(seed)
    D, K = len(recipe.columns), n_states
    spread = random.uniform(1, 4, (K, D))
    covars = {
        "diag": spread,
        "full": np.eye(D) * spread[:, None, :] + 0.3,
        "tied": np.diag(spread[0]) + 0.3,
        "spherical": spread[:, 0],
    }
    stays = random.uniform(0.8, 0.98, K)
    leaves = (1 - stays[:, None]) * (1 - np.eye(K)) / max(K - 1, 1)
    params = GaussianParams(
        startprob=np.full(K, 1 / K),
        transmat=np.ones((1, 1)) if K == 1 else np.diag(stays) + leaves,
        means=random.normal(size=(K, D)),
        covars=covars[covariance_type],
        covariance_type=covariance_type,
        df=np.linspace(2.5, 30.0, K) if heavy_tailed else None,
    )
    base = pd.Timedelta(step)
    return Detector(
        recipe=recipe,
        scaler_mean=random.normal(0, 0.01, D),
        scaler_scale=random.uniform(0.01, 1, D),
        params=params,
        labels=tuple(f"vol-{k + 1}" for k in range(K)),
        step=base,
        reading=ReadOptions(stamp, gaps),
        name="live",
        min_history=recipe.warmup(base) + 10,
        decision=decision,
        train_end=pd.Timestamp("2021-03-25", tz="UTC"),
    )


def gappy_bars(
    n_bars: int,
    *,
    step: str = "1h",
    gaps: str = "split",
    stamp: str = "open",
    lost: float = 0.03,
    seed: int = 0,
) -> Bars:
    """Bars that begin in the middle of a day; single ones and two longer stretches are missing."""
    random = np.random.default_rng(seed)
    market, length = make_market(n_bars=n_bars, seed=seed), pd.Timedelta(step)
    opened = pd.date_range("2021-03-01 05:00", periods=n_bars, freq=length, tz="UTC", unit="ns")
    opened = opened.floor(length)
    frame = market.frame.set_index(pd.DatetimeIndex(opened + length, name="available_at"))
    frame["timestamp"] = opened if stamp == "open" else opened + length
    keep = random.random(n_bars) >= lost
    for missing in (12, 40) if lost else ():
        first = int(random.integers(n_bars // 4, n_bars - 50))
        keep[first : first + missing] = False
    return replace(
        market, frame=frame[keep], step=length, stamp=stamp, gaps=gaps, name="live", states=None
    )


def records(bars: Bars) -> list[dict]:
    """Bars one by one, as a feed would give them."""
    return bars.frame[BAR].to_dict("records")


def part(bars: Bars, rows: slice) -> Bars:
    """Some of the bars."""
    return replace(bars, frame=bars.frame.iloc[rows])
