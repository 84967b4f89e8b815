"""The history of a registered model: all versions, one version, or two compared."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from hmm_exp.detector.detector import Detector
from hmm_exp.errors import DataError, TrackingError
from hmm_exp.hmm.states import Agreement, agreement
from hmm_exp.judge.states import expected_dwell
from hmm_exp.market.bars import Bars
from hmm_exp.market.iso import iso
from hmm_exp.registry.detectors import in_production
from hmm_exp.registry.versions import STAGE, Versions, champion_of
from hmm_exp.serving.load import load_single
from hmm_exp.tracking import tags
from hmm_exp.tracking.ui import in_a_line, plain_table

_METRICS = ("bic", "return_gain_test", "return_gain_test_bound", "ewma_gain_test")


def list_lines(versions: Versions) -> list[str]:
    """The versions as a table, followed by the gate's reasons and the labels of each.

    Raises TrackingError if there is none.
    """
    table = pd.DataFrame([_row(version) for version in versions.all()])
    if table.empty:
        raise TrackingError(f"{versions.name} has no versions: promote first")
    reasons = [
        f"version {row['version']}: {text}"
        for _, row in table.iterrows()
        for text in [*row["reasons"].split("; "), f"labels {row['labels']}" * bool(row["labels"])]
        if text
    ]
    shown = plain_table(table.drop(columns=["reasons", "labels"]).dropna(axis=1, how="all"))
    return [*shown.splitlines(), *([""] if reasons else []), *reasons]


def champion_lines(client: MlflowClient, pattern: str) -> list[str]:
    """The versions in Production of all models whose names match, as a table.

    Raises ModelError if there is none.
    """
    rows = [{"model": found.name} | _row(found) for found in in_production(client, pattern)]
    about = ["status", "replaces", "reasons", "labels"]
    return plain_table(
        pd.DataFrame(rows).drop(columns=about).dropna(axis=1, how="all")
    ).splitlines()


def version_lines(version: ModelVersion) -> list[str]:
    """All records of one version, one `name  value` per line."""
    about = {
        "version": f"{version.version} of {version.name}",
        "status": _status(version),
        "since": _moment(version.creation_timestamp),
        "run": version.run_id,
        "description": in_a_line(version.description),
        **{name: text for name, text in sorted(version.tags.items()) if text},
    }
    width = max(map(len, about))
    lines = []
    for name, text in about.items():
        first, *more = str(text).split("; ") if name.startswith("gate_") else [str(text)]
        lines.append(f"{name:<{width}}  {first}")
        lines += [f"{'':<{width}}  {line}" for line in more]
    return lines


def load_version(versions: Versions, number: str) -> tuple[str, Detector]:
    """Name of a version for tables, and its detector."""
    version = champion_of(versions.get(number))
    return f"version {version.version}", load_single(version.uri)


def parameter_table(old: Detector, new: Detector, names: tuple[str, str]) -> pd.DataFrame:
    """Differences between two detectors: column `what` and one text column for each.

    Means and spreads (raw units) are compared if both have the same columns and number of states.
    """
    mine, theirs = _described(old), _described(new)
    alike = old.recipe.titles == new.recipe.titles and old.n_states == new.n_states
    if alike:
        mine |= _parameters(old)
        theirs |= _parameters(new)
    rows = [
        {"what": what, names[0]: mine[what], names[1]: theirs[what]}
        for what in mine
        if mine[what] != theirs[what]
    ]
    return pd.DataFrame(rows, columns=["what", *names])


def parameter_lines(old: Detector, new: Detector, names: tuple[str, str]) -> list[str]:
    """Lines of `parameter_table` for the terminal."""
    table = parameter_table(old, new, names)
    if table.empty:
        return [f"{names[0]} and {names[1]} have the same parameters"]
    return plain_table(table).splitlines()


@dataclass(frozen=True, eq=False)
class RegimeDifference:
    """Differences between the regimes of two detectors on the same bars."""

    agreement: Agreement  # agreement of their filtered states, at the rows of the coarser detector
    same_label: float  # share of those rows with the same label
    # Number of rows by pair of labels, one table row per label of the older detector.
    together: pd.DataFrame
    latest: pd.Series | None  # last row with different labels; None if there is none


def compare_regimes(
    old: Detector, new: Detector, bars: Bars, names: tuple[str, str]
) -> RegimeDifference:
    """Filter the same bars with two detectors and count the differences.

    Raises DataError if the bars do not fit one of them, or no row has a regime from both.
    """
    both = _side_by_side(old.filter(bars), new.filter(bars))
    if both.empty:
        raise DataError(f"no row of {len(bars):,} bars has a regime from both versions")
    states = both[["state", "state_new"]].to_numpy(np.int64)
    match = agreement(states[:, 0], states[:, 1], old.n_states, new.n_states)
    assert match is not None
    differs = both["label"] != both["label_new"]
    counts = pd.crosstab(both["label"], both["label_new"])
    together = counts.reindex(index=old.labels, columns=new.labels, fill_value=0)
    together = together.rename_axis(index=names[0], columns=names[1])
    latest = both[differs].iloc[-1] if differs.any() else None
    return RegimeDifference(match, float(1.0 - differs.mean()), together, latest)


def difference_lines(found: RegimeDifference, names: tuple[str, str]) -> list[str]:
    """Lines of a regime difference for the terminal."""
    match = found.agreement
    pairs = ", ".join(f"{a}-{b}" for a, b in enumerate(match.match) if b >= 0)
    lines = [
        f"same label on {found.same_label:.1%} of {match.n_rows:,} shared rows; states matched "
        f"{pairs} agree on {match.share:.1%}",
        "",
        *found.together.to_string().splitlines(),
    ]
    if found.latest is not None:
        row = found.latest
        lines += [
            "",
            f"last difference {iso(row['available_at'])}: {row['label']} by "
            f"{names[0]}, {row['label_new']} by {names[1]}",
        ]
    return lines


def _row(version: ModelVersion) -> dict[str, object]:
    known = version.tags
    metrics = {name: float(known.get(name, "nan")) for name in _METRICS}
    return {
        "version": str(version.version),
        "status": _status(version),
        "since": _moment(version.creation_timestamp),
        "cell": known.get(tags.CELL, ""),
        "instrument": known.get(tags.INSTRUMENT, ""),
        "bic": metrics["bic"],
        "gain_t": metrics["return_gain_test"],
        "bound": metrics["return_gain_test_bound"],
        "gain_ewma": metrics["ewma_gain_test"],
        "gate": known.get(tags.GATE, ""),
        "replaces": known.get(tags.REPLACES, ""),
        "sweep": known.get(tags.SWEEP_ID, ""),
        "reasons": known.get(tags.GATE_REASONS, ""),
        "labels": known.get(tags.LABELS, ""),
    }


def _status(version: ModelVersion) -> str:
    if version.tags.get(tags.PROMOTION) == tags.STARTED:
        return "interrupted"
    if version.current_stage == STAGE:
        return STAGE
    return "rolled back" if tags.ROLLED_BACK in version.tags else str(version.current_stage)


def _moment(milliseconds: int) -> str:
    return iso(pd.Timestamp(milliseconds // 1000, unit="s", tz="UTC"))


def _described(detector: Detector) -> dict[str, str]:
    recipe = detector.recipe
    return {
        "columns": ", ".join(recipe.titles),
        "window": str(recipe.window),
        "season": f"hour of {recipe.season}" if recipe.season else "none",
        "states": str(detector.n_states),
        "labels": ", ".join(detector.labels),
        "covariance": detector.params.covariance_type,
        "bars": str(detector.step),
        "bar stamp": detector.stamp,
        "gaps": detector.gaps,
        "trained until": str(detector.meta.get("train_end", "")),
        "history needed": str(detector.min_history),
    }


def _parameters(detector: Detector) -> dict[str, str]:
    """Dwell time, means and spreads of every state, raw units, four digits."""
    params, scale = detector.params, detector.scaler_scale
    means = params.means * scale + detector.scaler_mean
    spread = np.sqrt(np.diagonal(params.covariances(), axis1=1, axis2=2)) * scale
    found = {}
    for state, dwell in enumerate(expected_dwell(params.transmat)):
        found[f"state {state} dwell"] = f"{dwell:.4g}"
        if params.df is not None:
            found[f"state {state} df"] = f"{params.df[state]:.4g}"
        for column, name in enumerate(detector.recipe.titles):
            value = f"{means[state, column]:.4g} ± {spread[state, column]:.4g}"
            found[f"state {state} {name}"] = value
    return found


def _side_by_side(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Regimes of both at the rows of the coarser one; of the other its latest known row."""
    columns = ["available_at", "state", "label"]
    theirs = new[columns].rename(columns={"state": "state_new", "label": "label_new"})
    new_is_coarser = len(new) < len(old)
    left, right = (theirs, old[columns]) if new_is_coarser else (old[columns], theirs)
    return pd.merge_asof(left, right, on="available_at").dropna()
