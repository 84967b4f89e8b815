"""A pool of four small synthetic symbols, and a planted panel of ready tables."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from hmm_exp.config import (
    Config,
    CovarianceConfig,
    DataConfig,
    FeaturesConfig,
    ModelConfig,
    SplitConfig,
    checked,
)
from hmm_exp.experiment.pool import Pool
from hmm_exp.experiment.pool_result import PoolResult, run_pool
from hmm_exp.experiment.prepare import Prepared, prepare
from hmm_exp.experiment.run import run

SYMBOLS = ("BTC", "ETH", "SOL", "DOGE")
# Carriers of planted observations: a table holds them ready, whatever their names.
COLUMNS = [
    f"{name}_1H"
    for name in (
        *("log_volume_delta_current", "close_ret_zscore_20", "volume_rvol_20"),
        *("close_over_vwap", "close_log_ratio_vwap", "close_open_pct_current"),
    )
]
_VOLATILITY = np.array([0.002, 0.006, 0.018])  # of a log return, by planted state


def settings(symbol: str, **model) -> Config:
    """A symbol of synthetic bars, another market for every name."""
    known = {"n_init": 2, "n_states": 2} | model
    data = DataConfig(n_bars=900 + 20 * len(symbol), bar_stamp="open", name=symbol)
    seed = 1 + sum(map(ord, symbol))
    config = Config(data=replace(data, seed=seed), model=replace(ModelConfig(), **known))
    return checked(config)


def reader(configs: dict[str, Config]) -> Callable[[str], Prepared]:
    """Reads a symbol as its settings say."""
    return lambda symbol: prepare(configs[symbol])


def own_scores(configs: dict[str, Config]) -> dict[str, pd.DataFrame]:
    """Scores of a model of each symbol, as a store gives them."""
    found = {}
    for symbol, config in configs.items():
        scores = run(prepare(config)).assessment.scores
        time = pd.DatetimeIndex(scores["available_at"]).tz_convert(None)
        found[symbol] = scores.set_index(time)
    return found


@cache
def small_pool() -> PoolResult:
    """Four symbols and two states, compared with nothing."""
    configs = {symbol: settings(symbol) for symbol in SYMBOLS}
    return run_pool(Pool.of(SYMBOLS, reader(configs)), lambda symbol: None)


def planted_panel(folder: Path, shared: bool, n_symbols: int = 12, seed: int = 0) -> PoolResult:
    """A pool of short tables, drawn from one planted model or from one each, and its comparison."""
    base = Config(
        data=DataConfig(kind="features", path="x", bar_stamp="open"),
        features=FeaturesConfig(name="columns", columns=COLUMNS),
        covariance=CovarianceConfig(type="full"),
        model=replace(ModelConfig(), n_init=4, n_states=3),
        split=SplitConfig(train=0.3, val=0.5, test=0.2),
    )
    one, configs = _model(np.random.default_rng(seed)), {}
    for i in range(n_symbols):
        rng = np.random.default_rng(100 + 1000 * seed + i)
        path = folder / f"S{i}.csv"
        _table(rng, *(one if shared else _model(rng)), n_rows=800).to_csv(path, index=False)
        data = replace(base.data, path=str(path), name=f"S{i}")
        configs[f"S{i}"] = checked(replace(base, data=data))
    return run_pool(Pool.of([*configs], reader(configs)), own_scores(configs).get)


def _model(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Means (3, 6) of the observations and transitions (3, 3)."""
    K = len(_VOLATILITY)
    means, stay = 0.8 * rng.standard_normal((K, len(COLUMNS))), rng.uniform(0.9, 0.97, K)
    transmat = np.repeat((1 - stay)[:, None] / (K - 1), K, axis=1)
    np.fill_diagonal(transmat, stay)
    return means, transmat


def _table(
    rng: np.random.Generator, means: np.ndarray, transmat: np.ndarray, n_rows: int
) -> pd.DataFrame:
    states = [int(rng.integers(len(means)))]
    for _ in range(n_rows - 1):
        states.append(int(rng.choice(len(means), p=transmat[states[-1]])))
    X = means[states] + rng.standard_normal((n_rows, len(COLUMNS)))
    frame = pd.DataFrame(X, columns=COLUMNS)
    frame.insert(0, "timestamp", pd.date_range("2021-01-01", periods=n_rows, freq="h"))
    return frame.assign(close_logret_current_1H=_VOLATILITY[states] * rng.standard_normal(n_rows))
