"""Tables and metrics of a fitted model's states: moments, transitions, dwell, persistence.

>>> summary = StateSummary(labels, columns, transmat, stationary, means, covars, states, steps)
>>> diagnostics_table(summary, {"train": next_bar_train, "test": next_bar_test})
              table   row  column     value
  transition_matrix  calm    calm  0.981...
>>> persistence_metrics(filtered, smoothed, steps)["mean_dwell_bars"]
41.3

A visit is a stretch of rows with the same label inside one sequence. Its length is counted in chain
steps, as is the expected dwell time 1 / (1 - a_kk): bars missing inside a visit belong to it, bars
missing at a change of the label to neither visit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from hmm_exp.hmm.health import expected_dwell
from hmm_exp.hmm.rows import largest_column, row_sums
from hmm_exp.uncertainty.estimates import StandardErrors

YEAR = pd.Timedelta(days=365.25)
# Tables with errors; the last two of Student-t states.
ESTIMATED = ("transition_matrix", "state_means", "state_deviations", "state_scales", "tails")


@dataclass(frozen=True)
class StateSummary:
    """A fitted model and its filtered label path, states in order."""

    labels: Sequence[str]  # name of every state, unique, K of them
    columns: Sequence[str]  # names of the features, D of them
    # `transmat`, `stationary`: transition matrix (K, K) and its stationary distribution (K,).
    transmat: np.ndarray
    stationary: np.ndarray
    # `means`, `covars`: in raw units, (K, D) and (K, D, D): see `raw_means` and `raw_covars`.
    means: np.ndarray
    covars: np.ndarray
    states: np.ndarray  # filtered label of every row, shape (T,)
    steps: np.ndarray  # chain steps from the row before, shape (T,)
    # Degrees of freedom of Student-t states, shape (K,); None for Gaussian states.
    df: np.ndarray | None = None


def raw_means(means: np.ndarray, scaler_mean: np.ndarray, scaler_scale: np.ndarray) -> np.ndarray:
    """Means of scaled features (K, D) in the features' own units, (K, D)."""
    return means * scaler_scale + scaler_mean


def raw_covars(covars: np.ndarray, scaler_scale: np.ndarray) -> np.ndarray:
    """Covariance matrices of scaled features (K, D, D) in the features' own units, (K, D, D)."""
    return covars * np.outer(scaler_scale, scaler_scale)


class Wide(NamedTuple):
    """A table of numbers by row and column; a frame of pandas takes a millisecond to make."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray  # (rows, columns)


def state_tables(summary: StateSummary) -> dict[str, Wide]:
    """Wide tables by state: transitions, long-run shares, dwell times, moments and df."""
    labels, columns = summary.labels, summary.columns
    deviations = np.sqrt(np.diagonal(summary.covars, axis1=1, axis2=2))
    shares = occupancy(summary.states, len(labels))
    tails = {} if summary.df is None else {"tails": Wide(labels, ["df"], summary.df[:, None])}
    return {
        "transition_matrix": Wide(labels, labels, summary.transmat),
        "stationary": Wide(labels, ["share"], summary.stationary[:, None]),
        "occupancy": Wide(labels, ["share"], shares[:, None]),
        "dwell": dwell_table(summary),
        "state_means": Wide(labels, columns, summary.means),
        "state_deviations": Wide(labels, columns, deviations),
        "state_covariances": _covariances(summary),
        **tails,
    }


def _covariances(summary: StateSummary) -> Wide:
    """Raw-unit covariances: one row per state, one column `a * b` per pair of features."""
    names = np.asarray(summary.columns, dtype=object)
    first, second = np.triu_indices(len(names), 1)
    pairs = list(names[first] + " * " + names[second])
    return Wide(summary.labels, pairs, summary.covars[:, first, second])


def dwell_table(summary: StateSummary) -> Wide:
    """Expected and observed dwell in bars, number of visits, share of one-bar visits."""
    n_states = len(summary.labels)
    visits = find_visits(summary.states, summary.steps)
    measured = {
        "expected_bars": expected_dwell(summary.transmat),
        "observed_bars": observed_dwell(visits, n_states),
        "visits": np.bincount(visits.state, minlength=n_states),
        "one_bar_share": one_bar_shares(visits, n_states),
    }
    return Wide(summary.labels, list(measured), np.column_stack(list(measured.values())))


def error_tables(summary: StateSummary, errors: StandardErrors) -> dict[str, Wide]:
    """Wide tables of standard errors, robust ones and ends of intervals, in the errors' units.

    Those of Student-t states have scales and df too.
    """
    ends = {"se": "error", "robust_se": "robust", "lower": "lower", "upper": "upper"}
    columns = (summary.labels, summary.columns, summary.columns, summary.columns, ["df"])
    tables = {}
    for name, own, part in zip(ESTIMATED, columns, errors.parts, strict=False):
        shape = (len(summary.labels), len(own))
        for end, field in ends.items():
            values = getattr(part, field).reshape(shape)
            tables[f"{name}_{end}"] = Wide(summary.labels, own, values)
    for part in errors.tails[:1]:
        tables["state_scales"] = Wide(summary.labels, summary.columns, part.value)
    return tables


def diagnostics_table(
    summary: StateSummary,
    next_bar: Mapping[str, pd.DataFrame] | None = None,
    errors: StandardErrors | None = None,
    more: Mapping[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """All tables of a model in one tidy frame `table, row, column, value`.

    Parameters
    ----------
    summary
        The fitted model and its filtered path.
    next_bar
        `next_bar_table` per split, stacked as `next_bar_{split}`.
    errors
        In raw units, stacked as `{table}_se`, `_robust_se`, `_lower` and `_upper`.
    more
        Further tables by name.
    """
    tables = state_tables(summary)
    for name, table in (more or {}).items():
        tables[name] = Wide(table.index.tolist(), table.columns.tolist(), table.to_numpy(float))
    for split, table in (next_bar or {}).items():
        columns = table.columns.tolist()
        tables[f"next_bar_{split}"] = Wide(summary.labels, columns, table.to_numpy(float))
    return tidy(tables | ({} if errors is None else error_tables(summary, errors)))


def tidy(tables: Mapping[str, Wide]) -> pd.DataFrame:
    """Stack wide tables row by row, without the values that are not finite."""
    cells = [
        (name, str(row), str(column), value)
        for name, table in tables.items()
        for row, values in zip(table.rows, table.values.tolist(), strict=True)
        for column, value in zip(table.columns, values, strict=True)
        if math.isfinite(value)
    ]
    names = ("table", "row", "column", "value")
    return pd.DataFrame(dict(zip(names, map(list, zip(*cells, strict=True)), strict=True)))


class Visits(NamedTuple):
    """Visits in time order."""

    state: np.ndarray  # (V,) int64
    length: np.ndarray  # (V,) int64, chain steps


def find_visits(states: np.ndarray, steps: np.ndarray) -> Visits:
    """Cut a label path into visits.

    Parameters
    ----------
    states
        Label of every row, shape (T,).
    steps
        Chain steps from the row before, shape (T,); 0 starts a sequence.
    """
    if len(states) == 0:
        return Visits(np.empty(0, np.int64), np.empty(0, np.int64))
    opens = np.r_[True, (states[1:] != states[:-1]) | (steps[1:] == 0)]
    first = np.flatnonzero(opens)
    last = np.r_[first[1:], len(states)] - 1
    clock = np.cumsum(steps)  # chain time, constant where a sequence starts
    return Visits(states[first].astype(np.int64), clock[last] - clock[first] + 1)


def observed_dwell(visits: Visits, n_states: int) -> np.ndarray:
    """Mean length of a visit per state in bars, shape (K,); NaN for a state never visited."""
    count, total = _counts(visits, n_states)
    return np.divide(total, count, out=np.full(n_states, np.nan), where=count > 0)


def one_bar_shares(visits: Visits, n_states: int) -> np.ndarray:
    """Share of one-bar visits per state, shape (K,); NaN for a state never visited."""
    count, _ = _counts(visits, n_states)
    single = np.bincount(visits.state[visits.length == 1], minlength=n_states)
    return np.divide(single, count, out=np.full(n_states, np.nan), where=count > 0)


def occupancy(states: np.ndarray, n_states: int) -> np.ndarray:
    """Share of the labelled rows in each state, shape (K,); a negative label means none."""
    count = np.bincount(states[states >= 0], minlength=n_states)
    return count / max(int(count.sum()), 1)


def mean_entropy(probs: np.ndarray) -> float:
    """Mean entropy of the state probabilities (T, K), nats per row."""
    logs = np.log(np.where(probs > 0.0, probs, 1.0))
    return float(-row_sums(probs * logs).mean())


def revision_rate(filtered_states: np.ndarray, smoothed_states: np.ndarray) -> float:
    """Share of rows whose smoothed label differs from the filtered one."""
    return float(np.mean(filtered_states != smoothed_states))


def persistence_metrics(
    filtered: np.ndarray, smoothed: np.ndarray, steps: np.ndarray
) -> dict[str, float]:
    """Persistence of the label path in single numbers; undefined ones are left out.

    Parameters
    ----------
    filtered, smoothed
        State probabilities, shape (T, K), T at least 1.
    steps
        Chain steps from the row before, shape (T,).

    Returns
    -------
    dict
        `mean_dwell_bars`, `one_bar_visit_share`, `posterior_entropy` (filtered, nats per row),
        `revision_rate`, and `switches_per_1000` chain steps if there is any step.
    """
    states = largest_column(filtered)
    visits = find_visits(states, steps)
    metrics = {
        "mean_dwell_bars": float(visits.length.mean()),
        "one_bar_visit_share": float(np.mean(visits.length == 1)),
        "posterior_entropy": mean_entropy(filtered),
        "revision_rate": revision_rate(states, largest_column(smoothed)),
    }
    rate = switches_per_1000(states, steps)
    return metrics if rate is None else metrics | {"switches_per_1000": rate}


def visit_metrics(
    regimes: np.ndarray, steps: np.ndarray, time: pd.DatetimeIndex
) -> dict[str, float]:
    """How often decided regimes change and how long they hold; undefined numbers are left out.

    Parameters
    ----------
    regimes
        Decided regime of successive rows, shape (T,).
    steps
        Chain steps from the row before, shape (T,).
    time
        When the rows were known, shape (T,).

    Returns
    -------
    dict
        `switches_per_year`: changes from row to row over the years of 365.25 days from the first
        row to the last. `mean_regime_visit_bars`: mean length of a visit in chain steps.
    """
    if len(regimes) == 0:
        return {}
    metrics = {"mean_regime_visit_bars": float(find_visits(regimes, steps).length.mean())}
    years = (time[-1] - time[0]) / YEAR
    if years > 0:
        metrics["switches_per_year"] = np.count_nonzero(np.diff(regimes)) / years
    return metrics


def switches_per_1000(states: np.ndarray, steps: np.ndarray) -> float | None:
    """Changes of the label per 1000 chain steps; None without steps."""
    linked = steps[1:] > 0
    if not linked.any():
        return None
    switches = np.count_nonzero((states[1:] != states[:-1]) & linked)
    return 1000.0 * switches / float(steps[1:].sum())


def _counts(visits: Visits, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    """Number and total length of every state's visits."""
    count = np.bincount(visits.state, minlength=n_states)
    return count, np.bincount(visits.state, weights=visits.length, minlength=n_states)
