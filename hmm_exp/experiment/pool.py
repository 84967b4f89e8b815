"""The train rows of many symbols as one training set, and one model fitted to them.

    pool = Pool.of(["BTC", "ETH"], lambda symbol: prepare(settings[symbol]))
    fits = fit_pool(pool)
    fits.chosen.params

Every symbol has its own split, season and scaler, fitted on its own train rows; the rows stand one
under the other, and a step of 0 starts every symbol. One symbol's bars are in memory at a time: the
pool keeps scaled train rows alone, and reads a symbol again when it needs more.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from hmm_exp.config import Config
from hmm_exp.config.checks import check_pool
from hmm_exp.errors import (
    DataError,
    FitError,
    HmmExpError,
    MissingColumnError,
    counted,
    features_named,
)
from hmm_exp.experiment.assess import next_return_criterion
from hmm_exp.experiment.build import traits_of
from hmm_exp.experiment.candidate import (
    Candidate,
    FittedRows,
    conditional,
    measured,
    ordered,
    search_of,
    train_steps,
)
from hmm_exp.experiment.fits import Progress, edge_warning, null_criteria
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.select import select, selection_table
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm import inference
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.fit import fit_larger
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.posterior import Posterior
from hmm_exp.hmm.states import posterior_spread
from hmm_exp.judge.naming import state_names
from hmm_exp.judge.split import VAL

LEAST_ROWS = 100  # complete train rows of a symbol: fewer give no scaler
Read = Callable[[str], Prepared]


@dataclass(frozen=True, eq=False)
class Pool:
    """The train rows of all symbols, one under the other.

    Attributes
    ----------
    config, recipe
        Settings and observation vector, those of the first symbol.
    read
        Gives a symbol prepared, again whenever it is asked.
    X
        Scaled train rows, shape (T, D), NaN where missing.
    steps
        Chain steps of the rows, shape (T,); 0 where a symbol or a sequence starts.
    returns
        Log returns at the rows' closes in standard deviations of their symbol, shape (T,), where
        the states are ordered by them; else None.
    volatility
        Column of X that the states are ordered by, or None.
    scalers, fingerprints
        By symbol.
    left_out
        Reasons why symbols are not in the pool, by symbol; reading one again may add to it.
    """

    config: Config
    recipe: Recipe
    read: Read
    X: np.ndarray
    steps: np.ndarray
    returns: np.ndarray | None
    volatility: int | None
    scalers: dict[str, StandardScaler]
    fingerprints: dict[str, str]
    left_out: dict[str, str]

    @classmethod
    def of(
        cls, symbols: Sequence[str], read: Read, progress: Progress = lambda text: None
    ) -> "Pool":
        """Read every symbol once and keep its train rows.

        A symbol that cannot be read, or is too short, is left out by name.

        Raises
        ------
        ConfigError
            The settings do not suit a pool.
        DataError
            Two symbols have different columns.
        FitError
            Fewer than two symbols can be used.
        """
        rows = _Rows()
        for number, symbol in enumerate(symbols, 1):
            progress(f"reading {symbol}, {number:,} of {len(symbols):,}")
            try:
                prepared = read(symbol)
            except MissingColumnError as error:
                rows.lacking[symbol] = error.column
            except HmmExpError as error:
                rows.left_out[symbol] = str(error)
            else:
                rows.add(symbol, prepared)
        rows.check()
        assert rows.config is not None
        assert rows.recipe is not None
        has_returns = len(rows.returns) == len(rows.scalers)
        return cls(
            config=rows.config,
            recipe=rows.recipe,
            read=read,
            X=_stacked(rows.X),
            steps=np.concatenate(rows.steps),
            returns=np.concatenate(rows.returns) if has_returns else None,
            volatility=rows.volatility,
            scalers=rows.scalers,
            fingerprints=rows.fingerprints,
            left_out=rows.left_out,
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols whose rows are in the pool."""
        return tuple(self.scalers)

    @property
    def fingerprint(self) -> str:
        """Same fingerprint, same model: settings and data of all symbols."""
        exact = json.dumps(["pool", self.fingerprints], sort_keys=True)
        return hashlib.sha256(exact.encode()).hexdigest()[:16]

    def again(self) -> Iterator[tuple[str, Prepared]]:
        """Every symbol prepared again, one at a time; one that has changed is left out by name."""
        for symbol, fingerprint in self.fingerprints.items():
            try:
                prepared = self.read(symbol)
            except HmmExpError as error:
                self.left_out[symbol] = str(error)
                continue
            if prepared.fingerprint != fingerprint:
                self.left_out[symbol] = "its data changed while the pool was fitted"
                continue
            yield symbol, prepared


class _Rows:
    """Train rows gathered symbol by symbol."""

    def __init__(self) -> None:
        self.X: list[np.ndarray] = []
        self.steps: list[np.ndarray] = []
        self.returns: list[np.ndarray] = []
        self.scalers: dict[str, StandardScaler] = {}
        self.fingerprints: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.lacking: dict[str, str] = {}  # column that a symbol does not have, by symbol
        self.first = ""  # name of the symbol whose settings these are
        self.config: Config | None = None
        self.recipe: Recipe | None = None
        self.volatility: int | None = None

    def add(self, symbol: str, prepared: Prepared) -> None:
        """Keep the train rows of a symbol, if they are enough. Raises ConfigError, DataError."""
        if self.config is None or self.recipe is None:
            check_pool(prepared.config)
            self.config, self.recipe = prepared.config, prepared.recipe
            self.first, self.volatility = symbol, prepared.volatility
        elif prepared.recipe != self.recipe:
            raise _different(symbol, prepared.recipe, self.first, self.recipe)
        rows = prepared.train
        X = prepared.X[rows]
        n_complete = int((~np.isnan(X).any(axis=1)).sum())
        if n_complete < LEAST_ROWS:
            few = counted(n_complete, "complete train row")
            self.left_out[symbol] = f"{few}: a pool needs {LEAST_ROWS} of every symbol"
            return
        self.X.append(X)
        self.steps.append(train_steps(prepared.table.steps, rows))
        if self.volatility is None and prepared.row_return is not None:
            returns = prepared.row_return[rows]
            self.returns.append(returns / np.nanstd(returns))
        self.scalers[symbol] = prepared.scaler
        self.fingerprints[symbol] = prepared.fingerprint

    def check(self) -> None:
        """Refuse different columns and fewer than two symbols."""
        known = next(iter(self.scalers), None)
        for symbol, column in self.lacking.items():
            if known is not None:
                raise DataError(
                    f"a pool with different columns: {symbol} has no {column}, which {known} has; "
                    f"leave it out by data.exclude=[{symbol}], or use features without {column}"
                )
            self.left_out[symbol] = f"no column named {column}"
        if len(self.scalers) < 2:
            why = [f"; {symbol}: {reason}" for symbol, reason in self.left_out.items()]
            raise FitError(
                f"a pool needs 2 symbols, {len(self.scalers)} can be used{''.join(why[:1])}"
            )


def _different(symbol: str, mine: Recipe, other: str, theirs: Recipe) -> DataError:
    """Error that names two symbols and the first difference of their columns."""
    if extra := [name for name in mine.columns if name not in theirs.columns]:
        what = f"{symbol} has {extra[0]}, which {other} has not"
    elif extra := [name for name in theirs.columns if name not in mine.columns]:
        what = f"{symbol} has no {extra[0]}, which {other} has"
    else:
        what = f"those of {symbol} and {other} are in another order, or of other windows"
    return DataError(
        f"a pool with different columns: {what}; name the common ones in features.columns"
    )


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Rows one under the other; every part is freed once it is copied."""
    out = np.empty((sum(map(len, parts)), parts[0].shape[1]))
    end = len(out)
    while parts:
        part = parts.pop()
        out[end - len(part) : end] = part
        end -= len(part)
    return out


@dataclass(frozen=True, eq=False)
class PoolFits:
    """All fits of a pool, and the one that was chosen."""

    pool: Pool
    candidates: list[Candidate]  # every number of states; measures are those of the pooled rows
    chosen: Candidate
    labels: tuple[str, ...]  # of the chosen model's states, one set for all symbols
    selection: pd.DataFrame  # rows of `selection.csv`
    warnings: list[str]


def fit_pool(pool: Pool, progress: Progress = lambda text: None) -> PoolFits:
    """Fit every number of states to a pool and choose one.

    The log-likelihood is the sum over symbols, so the criteria count the rows of all. The start
    probabilities are common to all sequences while EM runs; outside of it every symbol starts from
    the stationary distribution. `bic_next` is the sum over symbols, which have their own densities
    of the next return.

    Raises
    ------
    FitError
        No number of states can be fitted.
    """
    config = pool.config
    candidates, warnings = _candidates(pool, progress)
    if len(candidates) > 1:
        progress("reading validation")
        candidates = _with_validation(pool, candidates)
    null = null_criteria(pool.X, pool.steps, config, _ranks(pool))
    chosen = select(candidates, config.selection, null.get(config.selection.within))
    return PoolFits(
        pool=pool,
        candidates=candidates,
        chosen=chosen,
        labels=_labels(pool, chosen.params),
        selection=selection_table(candidates, chosen, null),
        warnings=warnings + edge_warning(pool.config, chosen),
    )


def _candidates(pool: Pool, progress: Progress) -> tuple[list[Candidate], list[str]]:
    candidates: list[Candidate] = []
    errors = []
    for n_states in pool.config.state_grid:
        progress(f"fitting {n_states} states to {len(pool.symbols):,} symbols")
        try:
            candidates.append(_fitted(pool, n_states, candidates))
        except FitError as error:
            errors.append(f"{n_states} states: {error}")
    if not candidates:
        raise FitError("; ".join(errors))
    return candidates, errors + [f"{c.n_states} states: {c.note}" for c in candidates if c.note]


def _fitted(pool: Pool, n_states: int, smaller: list[Candidate]) -> Candidate:
    with features_named(pool.recipe.columns):
        fitted, note = fit_larger(
            pool.X,
            pool.steps,
            n_states,
            search_of(pool.config),
            smaller=smaller[-1].fit if smaller else None,
            volatility=_ranks(pool),
        )
    params = ordered(fitted.params, pool.X, pool.steps, pool.volatility, pool.returns)
    observed = ~np.isnan(pool.X).any(axis=1)
    rows = FittedRows(log_density(params, pool.X), observed, pool.steps)
    return measured(replace(fitted, params=params), rows, pool.config, pool.recipe, note)


def _ranks(pool: Pool) -> np.ndarray | None:
    """What ranks the rows for starting points."""
    return None if pool.volatility is None else pool.X[:, pool.volatility]


def _with_validation(pool: Pool, candidates: list[Candidate]) -> list[Candidate]:
    """Add validation likelihoods and, where it decides, `bic_next`: sums over all symbols."""
    decides = pool.config.selection.within == "bic_next"
    log_lik, found = np.zeros(len(candidates)), np.zeros(len(candidates))
    for _, prepared in pool.again():
        n_val = int((~np.isnan(prepared.X).any(axis=1) & (prepared.part == VAL)).sum())
        for i, candidate in enumerate(candidates):
            posterior = Posterior(candidate.params, prepared.X, prepared.table.steps)
            known = conditional(prepared, posterior, {"val": n_val, "test": 0})
            log_lik[i] += known.get("val", 0.0)
            found[i] += next_return_criterion(prepared, posterior) if decides else 0.0
    return [
        replace(
            candidate,
            log_lik=candidate.log_lik | {"val": float(log_lik[i])},
            criteria=candidate.criteria | ({"bic_next": float(found[i])} if decides else {}),
        )
        for i, candidate in enumerate(candidates)
    ]


def _labels(pool: Pool, params: GaussianParams) -> tuple[str, ...]:
    """Names of the states: words for a feature are kept where they are right for every symbol."""
    ordered_by = _ordered_by(pool, params)
    titles = pool.recipe.titles
    traits = [traits_of(params, scaler, titles, ordered_by) for scaler in pool.scalers.values()]
    return state_names(*traits, n_states=params.n_states)


def _ordered_by(pool: Pool, params: GaussianParams) -> int | np.ndarray | None:
    if pool.volatility is not None or pool.returns is None:
        return pool.volatility
    density = log_density(params, pool.X)
    probs = inference.filter(params.startprob, params.transmat, density, pool.steps).probs
    return posterior_spread(probs, pool.returns)
