"""Rows of a feature table that no model can use, by reason.

>>> usable_in_words(table, "v2@1D of dax", usable=5_852)
'features v2@1D of dax: 5,852 of 8,846 rows usable; 719 to fill the windows, ...'
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from hmm_exp.features.recipe import FEATURES, Recipe

if TYPE_CHECKING:
    from hmm_exp.features.build import FeatureTable

Lost = dict[str, dict[str, Any]]
"""Rows and columns (`{"rows": 3, "columns": [...]}`) by reason, in the order of `lost_rows`."""

_NO_VOLUME, _NO_RANGE, _NO_MOVE = "without volume", "where high equals low", "of equal returns"
_REASONS = {
    "volume_rvol_{w}": _NO_VOLUME,
    "close_over_vwap": _NO_VOLUME,
    "close_log_ratio_vwap": _NO_VOLUME,
    "log_range_current": _NO_RANGE,
    "close_ret_zscore_{w}": _NO_MOVE,
}
WINDOWS, GAPS = "to fill the windows", "after gaps"
_BEFORE, _INCOMPLETE = "before the first complete row", "with a missing value"


def lost_rows(X: np.ndarray, bridged: np.ndarray, recipe: Recipe, filling: np.ndarray) -> Lost:
    """Count the incomplete rows; each counts once, under its first reason.

    The reasons in order: windows that fill, bars without volume or range or with equal returns
    (missing even if gaps are bridged), gaps.

    Parameters
    ----------
    X, bridged
        Values of all rows, and the same with `data.gaps=bridge`, shape (T, D); NaN where missing.
    filling
        Rows at which windows may still fill, shape (T,).
    """
    missing, left = np.isnan(X), np.isnan(X).any(axis=1)
    cells = {WINDOWS: missing & filling[:, None]}
    reasons = [_REASONS.get(FEATURES[place].template, WINDOWS) for _, place in recipe.sources()]
    for reason in dict.fromkeys([*_REASONS.values(), WINDOWS]):
        columns = np.array([name == reason for name in reasons])
        cells[reason] = cells.get(reason, False) | (np.isnan(bridged) & columns)
    cells[GAPS] = missing
    lost: Lost = {}
    for reason, where in cells.items():
        rows = where.any(axis=1) & left
        if rows.any():
            columns = where[rows].any(axis=0)
            names = [recipe.columns[i] for i in np.flatnonzero(columns)]
            lost[reason] = {"rows": int(rows.sum()), "columns": names}
            left = left & ~rows
    return lost


def usable_in_words(
    table: "FeatureTable", name: str, usable: int | None = None, sessions: bool = False
) -> str:
    """Usable rows of a table in one line, and the reasons of the others.

    Parameters
    ----------
    table
        The features.
    name
        What the line calls them.
    usable
        Complete rows, if a season leaves fewer than the table has.
    sessions
        Whether the bars look like those of a session market, which `data.gaps=bridge` is for.
    """
    rows, complete = table.warmup_rows + len(table), len(table) - table.n_missing
    usable = complete if usable is None else usable
    lost = table.lost or _unexplained(table)
    parts = [
        f"{found['rows']:,} {reason}{_columns(reason, found['columns'], table.recipe, sessions)}"
        for reason, found in lost.items()
    ]
    if usable < complete:
        parts.append(f"{complete - usable:,} at hours that train lacks")
    return "; ".join([f"features {name}: {usable:,} of {rows:,} rows usable", *parts])


def _columns(reason: str, names: list[str], recipe: Recipe, sessions: bool) -> str:
    """The columns of a reason and the setting that helps, in brackets."""
    if reason in (WINDOWS, _BEFORE):
        return ""
    if reason in _REASONS.values() and len(names) < len(recipe.columns):
        return f" (features.exclude=[{','.join(names)}])"
    option = ": data.gaps=bridge" if reason == GAPS and sessions else ""
    return f" ({', '.join(names)}{option})"


def _unexplained(table: "FeatureTable") -> Lost:
    """What a ready table shows of its incomplete rows."""
    empty = np.flatnonzero(np.isnan(table.X).any(axis=0))
    columns = [table.recipe.columns[i] for i in empty]
    lost: Lost = {
        _BEFORE: {"rows": table.warmup_rows, "columns": []},
        _INCOMPLETE: {"rows": table.n_missing, "columns": columns},
    }
    return {reason: found for reason, found in lost.items() if found["rows"]}
