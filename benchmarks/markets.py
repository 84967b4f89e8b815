"""Markets with known regimes: two without, two with planted ones, and four harder ones.

>>> bars = KINDS["GARCH"](n_bars=8_000, seed=3)

Prices walk within the bar and volume follows volatility in all of them, as in `market.synthetic`,
so that features of range and volume mean the same everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from hmm_exp.hmm import inference
from hmm_exp.judge.student_t import log_mixture
from hmm_exp.market import synthetic
from hmm_exp.market.bars import Bars
from hmm_exp.market.synthetic import MarketPlan, bars_of, make_market, tail_factors, unit_moves

VOLATILITY = 0.006  # of an hourly log return
IID_DF = 4.0
GARCH_DF = 5.0
ARCH, PERSISTENCE = 0.08, 0.99  # h_t = (1 - PERSISTENCE) + ARCH z^2 h + (PERSISTENCE - ARCH) h


def iid_market(n_bars: int, seed: int) -> Bars:
    """Independent Student-t returns of four degrees of freedom."""
    rng = np.random.default_rng(seed)
    volatility = np.full(n_bars, VOLATILITY)
    scale = volatility * tail_factors(rng, n_bars, IID_DF)
    return _without_regimes(volatility, scale, unit_moves(rng, n_bars), rng, seed)


def garch_market(n_bars: int, seed: int) -> Bars:
    """GARCH(1,1) with Student-t errors of five degrees of freedom (Bollerslev 1987)."""
    rng = np.random.default_rng(seed)
    tail, moves = tail_factors(rng, n_bars, GARCH_DF), unit_moves(rng, n_bars)
    errors = tail * moves.sum(axis=1) / np.sqrt(moves.shape[1])
    variance = np.ones(n_bars)
    for t in range(1, n_bars):
        before = variance[t - 1]
        news = ARCH * errors[t - 1] ** 2 + PERSISTENCE - ARCH
        variance[t] = 1.0 - PERSISTENCE + news * before
    volatility = VOLATILITY * np.sqrt(variance)
    return _without_regimes(volatility, volatility * tail, moves, rng, seed)


def _without_regimes(volatility, scale, moves, rng, seed) -> Bars:
    none = np.zeros(len(volatility), dtype=np.int64)
    return bars_of(MarketPlan(none, volatility, scale, np.zeros(len(volatility)), moves), rng, seed)


KINDS: dict[str, Callable[..., Bars]] = {
    "iid": iid_market,
    "GARCH": garch_market,
    "planted 2": partial(make_market, n_regimes=2),
    "planted 3": partial(make_market, n_regimes=3),
}
PLANTED = {"planted 2": 2, "planted 3": 3}
HARDER: dict[str, Callable[..., Bars]] = {
    "planted 3, df 5": partial(make_market, n_regimes=3, tail=5.0),
    "planted 3, df 4": partial(make_market, n_regimes=3, tail=4.0),
    "planted 3, volatility .004 to .010": partial(
        make_market, n_regimes=3, volatility=(0.004, 0.010)
    ),
    "planted 4": partial(make_market, n_regimes=4),
}
RIGHT = {"iid": 1, "planted 2": 2, "planted 3": 3} | dict(zip(HARDER, (3, 3, 3, 4), strict=True))


@dataclass(frozen=True, eq=False)
class TrueModel:
    """The chain and the Student-t densities of the log returns that `make_market` draws from."""

    transmat: np.ndarray  # shape (K, K)
    # `loc`, `scale`: log return per bar, shape (K,), calm first.
    loc: np.ndarray
    scale: np.ndarray
    df: float  # degrees of freedom, shared


def true_model(n_regimes: int) -> TrueModel:
    """What `make_market` draws its states and log returns from."""
    spread = partial(synthetic._spread, n_regimes=n_regimes)
    transmat = synthetic._leaps(n_regimes) / spread(synthetic._DWELL)[:, None]
    transmat += np.diag(1.0 - transmat.sum(axis=1))
    # Chi-square mixing with unit variance makes a Student-t that much narrower than its deviation.
    df = synthetic._TAIL
    scale = spread(synthetic._VOLATILITY) * np.sqrt((df - 2) / df)
    return TrueModel(transmat, spread(synthetic._DRIFT), scale, df)


def true_scores(n_regimes: int, next_return: np.ndarray) -> np.ndarray:
    """Log predictive density of every bar's next return by the model that made it, nats, (N,).

    It filters the returns alone with its own parameters: what no fit to returns can beat for long.
    """
    model = true_model(n_regimes)
    known = np.append(np.nan, next_return[:-1])  # a bar's own return
    steps = np.ones(len(known), dtype=np.int64)
    steps[0] = 0
    even = np.full(n_regimes, 1.0 / n_regimes)
    filtered = inference.filter(even, model.transmat, _densities(model, known), steps).probs
    ahead = np.ascontiguousarray(filtered @ model.transmat)
    return log_mixture(ahead, next_return, model.loc, model.scale, model.df)


def _densities(model: TrueModel, returns: np.ndarray) -> np.ndarray:
    """Log density of every return in every state, (N, K); zero where there is no return."""
    one = np.ones((len(returns), 1))
    columns = [
        log_mixture(one, returns, model.loc[k : k + 1], model.scale[k : k + 1], model.df)
        for k in range(len(model.loc))
    ]
    return np.nan_to_num(np.column_stack(columns))
