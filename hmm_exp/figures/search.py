"""Figures of model selection: criteria by number of states, convergence, and BIC of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hmm_exp.figures import palette, scales, style
from hmm_exp.figures.panels import Sheet
from hmm_exp.figures.scales import Panel, cut
from hmm_exp.figures.text import width
from hmm_exp.judge.wording import capitalize

_CRITERIA = {  # column: colour, dashes, width
    "bic": (palette.INK, "-", 2.2),
    "icl": (palette.INK, (0, (1, 1.4)), 1.6),
    "hqc": (palette.GREY, (0, (5, 2)), 1.4),
    "aic": ("#9a9a9a", "-", 1.4),
    "cv": ("#8e5ea2", (0, (3, 1, 1, 1)), 1.8),
}
_COVARIANCES = {  # colour, dashes, marker
    "full": (palette.INK, "-", "s"),
    "full-t": ("#8e5ea2", "-", "s"),
    "diag": (palette.INK, (0, (5, 2)), "o"),
    "diag-t": ("#8e5ea2", (0, (5, 2)), "o"),
    "tied": ("#8a8a8a", "-", "^"),
    "spherical": ("#8a8a8a", (0, (1, 1.4)), "v"),
}
_SAME_OPTIMUM = 0.01  # nats, as `hmm.fit.AGREEMENT`
_FLOOR = 1e-3  # nats
_FAINT_INK = "#c4c4c4"


def criteria(table: pd.DataFrame, *, chosen: int | None = None, subject: str = "") -> Figure:
    """AIC, BIC, HQC and ICL by number of states, each relative to its lowest value.

    Lines join neighbouring numbers of states that were both tried.

    Parameters
    ----------
    table
        One row per number of states. Columns `n_states` and any of `bic aic hqc icl`; the row of
        one state is the null. With a boolean column `eligible`, ineligible fits are drawn hollow.
    chosen
        Number of states of the chosen model.
    """
    table = table.sort_values("n_states").reset_index(drop=True)
    band = "band: chosen" if chosen is not None else ""
    figure = style.new_figure(
        _criteria_title(table, chosen),
        "Above each criterion's lowest (ring)",
        band,
        _hollow(table),
        subject,
    )
    states = table["n_states"].to_numpy()
    names = [name for name in _CRITERIA if name in table and table[name].notna().any()]
    excess = {name: (table[name] - table[name].min()).to_numpy(float) for name in names}
    top = _axis_top(states, excess)
    sheet = Sheet(figure)
    panel = Panel(style.MARGIN, 48, style.WIDTH - style.MARGIN - 130, 320)
    panel = panel.scaled((states.min() - 0.4, states.max() + 0.4), (-0.05 * top, top))
    if chosen is not None:
        sheet.lines(
            [panel.at([chosen, chosen], panel.ylim)], palette.ACCENT, linewidths=8, alpha=0.15
        )
    for name in reversed(names):
        _draw_criterion(sheet, panel, table, name, excess[name])
    sheet.draw_frames([panel])
    sheet.name_axes(panel, "number of states", "above the lowest (2 × nats)")
    sheet.draw_xticks(panel, states, [str(n) for n in states], points=9)
    ticks = scales.round_ticks(0, top, 5) if len(table) > 1 else np.zeros(1)
    sheet.draw_yticks(panel, ticks, points=9)
    _name_lines(sheet, panel, names, excess)
    _note_null(sheet, panel, states, excess)
    return figure


def _axis_top(states: np.ndarray, excess: dict[str, np.ndarray]) -> float:
    """Upper end of the axis, without the null if it would flatten the other values."""
    every = np.concatenate(list(excess.values()))
    several = np.concatenate([v[states > 1] for v in excess.values()])
    most = np.nanmax(several, initial=0.0)
    if (states > 1).sum() > 1 and np.nanmax(every) > scales.OFF_SCALE * most > 0:
        return float(1.3 * most)
    return float(1.1 * np.nanmax(every)) or 1.0


def _draw_criterion(
    sheet: Sheet, panel: Panel, table: pd.DataFrame, name: str, excess: np.ndarray
) -> None:
    color, dashes, width = _CRITERIA[name]
    states = table["n_states"].to_numpy()
    course, eligible = _tried(states, excess), _eligible(table)
    dashed: dict[str, Any] = {"linestyle": dashes, "linewidth": width, "gid": name}
    sheet.line(*panel.at(*course), color=color, clip_box=sheet.box(panel), **dashed)
    seen = excess <= panel.ylim[1]
    for rows, face in ((eligible & seen, color), (~eligible & seen, "white")):
        if rows.any():
            sheet.marks(*panel.at(states[rows], excess[rows]), color=color, mfc=face, ms=5)
    best = panel.at(states[int(np.nanargmin(excess))], 0)
    sheet.marks(*best, color=palette.ACCENT, markersize=13, mfc="none", mew=1.8)


def _tried(n_states: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of states and their lowest values, NaN where not tried: lines break there."""
    numbers = np.arange(n_states.min(), n_states.max() + 1)
    lowest = np.full(len(numbers), np.nan)
    np.fmin.at(lowest, (n_states - numbers[0]).astype(np.intp), values)
    return numbers, lowest


def _name_lines(sheet: Sheet, panel: Panel, names: Sequence[str], excess: dict) -> None:
    """Draw a key in the right margin, in the order of the lines' ends."""
    top = panel.ylim[1]
    ends = {name: min(np.nan_to_num(excess[name][-1], nan=top), top) for name in names}
    right = panel.left + panel.width
    for i, name in enumerate(sorted(names, key=lambda n: -ends[n])):
        color, dashes, width = _CRITERIA[name]
        y = panel.bottom + (0.95 - 0.09 * i) * panel.height
        ends_of_line = [right + 24, right + 55]
        sheet.line(ends_of_line, [y, y], color=color, linestyle=dashes, linewidth=width)
        sheet.write(right + 63, y, name.upper(), va="center", fontsize=9, color=palette.INK)


def _note_null(sheet: Sheet, panel: Panel, states: np.ndarray, excess: dict) -> None:
    """Write the value of one state if it is off the axis."""
    name = next(iter(excess))
    if 1 not in states or not excess[name][states == 1][0] > panel.ylim[1]:
        return
    text = f"↑ one state: {name.upper()} {scales.number(excess[name][states == 1][0])} above"
    x, y = panel.at(0.75, panel.ylim[1])
    sheet.write(x, y - 8, text, va="top", fontsize=9)


def _criteria_title(table: pd.DataFrame, chosen: int | None) -> str:
    if len(table) == 1:
        return f"{capitalize(_states(int(table['n_states'].iloc[0])))}, nothing to compare with"
    tried, bic = table["n_states"].to_numpy(), table["bic"].to_numpy(float)
    order = np.argsort(bic, kind="stable")[: np.isfinite(bic).sum()]  # NaN are last
    ranked, bic = tried[order], bic[order]
    best = int(ranked[0])
    text = f"BIC is lowest at {_states(best)}"
    if len(bic) > 1:
        ahead = scales.number(round(bic[1] - bic[0], 1))
        pair = len(bic) == 2 and 1 in ranked  # one fit and its null: no search
        text = f"BIC of {_states(best)} is" if pair else f"{text},"
        text += f" {ahead} below {_states(int(ranked[1]))}"
    if not _eligible(table)[tried == best].all():
        text += ", but ineligible"
    if chosen is not None and chosen != best:
        text = f"{_states(chosen)} chosen; {text}"
    elif best == ranked.max() and (ranked > 1).sum() > 1:
        text += "; the grid ends there"
    return capitalize(text)


def _states(n: int) -> str:
    return "one state" if n == 1 else f"{n} states"


def _eligible(table: pd.DataFrame) -> np.ndarray:
    if "eligible" not in table:
        return np.ones(len(table), dtype=bool)
    return table["eligible"].fillna(True).to_numpy(bool)


def _hollow(table: pd.DataFrame) -> str:
    return "" if _eligible(table).all() else "hollow: ineligible"


def convergence(
    histories: Sequence[np.ndarray], *, polished: Sequence[bool] | None = None, subject: str = ""
) -> Figure:
    """Difference of every start from the best objective, by iteration, on a log axis.

    Parameters
    ----------
    histories
        Objective (log-likelihood plus log prior, nats) after every iteration of each start.
    polished
        Whether each start ran to its end; short ones are drawn faint. By default all did.
    """
    full = np.ones(len(histories), dtype=bool) if polished is None else np.asarray(polished, bool)
    finals = np.array([h[-1] if len(h) else -np.inf for h in histories])
    best = int(np.argmax(np.where(full, finals, -np.inf)))
    gaps = [np.maximum(finals[best] - np.asarray(h, dtype=float), _FLOOR) for h in histories]
    short = "" if full.all() else "faint: short starts"
    figure = style.new_figure(
        _convergence_title(finals, full, best, len(histories[best])),
        "Log-likelihood plus log prior",
        "thick: best start",
        f"dashed: {_SAME_OPTIMUM} nat",
        short,
        subject,
    )
    sheet = Sheet(figure)
    panel = _gap_panel(sheet, gaps)
    rest = full & (np.arange(len(full)) != best)
    _draw_starts(sheet, panel, [gaps[i] for i in np.flatnonzero(~full)], _FAINT_INK, 1.0)
    _draw_starts(sheet, panel, [gaps[i] for i in np.flatnonzero(rest)], palette.GREY, 1.2)
    _draw_starts(sheet, panel, [gaps[best]], palette.ACCENT, 2.6)
    return figure


def _draw_starts(
    sheet: Sheet, panel: Panel, gaps: Sequence[np.ndarray], color: str, width: float
) -> None:
    """Draw curves as one NaN-broken line, with a dot at the end of each."""
    gaps = [gap for gap in gaps if len(gap)]
    if not gaps:
        return
    x = np.concatenate([np.append(np.arange(1.0, len(gap) + 1), np.nan) for gap in gaps])
    y = np.concatenate([np.append(np.log10(gap), np.nan) for gap in gaps])
    sheet.line(*panel.at(x, y), color=color, linewidth=width)
    ends = [len(gap) for gap in gaps], [np.log10(gap[-1]) for gap in gaps]
    sheet.marks(*panel.at(*ends), color=color, markersize=width + 3)


def _gap_panel(sheet: Sheet, gaps: Sequence[np.ndarray]) -> Panel:
    """Panel in decades of nats, with a line at the tolerance of the same optimum."""
    longest = max(len(gap) for gap in gaps)
    highest = max(gap.max(initial=1.0) for gap in gaps)
    decades = np.arange(np.log10(_FLOOR), np.ceil(np.log10(highest)) + 1).round()
    panel = Panel(style.MARGIN, 48, style.WIDTH - style.MARGIN - 40, 316)
    low, high = np.log10(_FLOOR / 1.6), decades[-1]
    panel = panel.scaled((1 - 0.02 * longest, 1.02 * longest + 1), (float(low), float(high)))
    same = panel.at(panel.xlim, [np.log10(_SAME_OPTIMUM)] * 2)
    sheet.lines([same], palette.GREY, linewidths=0.8, linestyles=[(0, (4, 3))], zorder=0)
    sheet.draw_frames([panel])
    sheet.name_axes(panel, "iteration", "nats below the best final value")
    names = ["≤ 0.001", *(scales.number(10.0**d) for d in decades[1:])]
    sheet.draw_yticks(panel, decades, names, points=9)
    ticks = scales.round_ticks(1, longest, 6)
    sheet.draw_xticks(panel, ticks[ticks == ticks.round()], points=9)
    return panel


def _convergence_title(finals: np.ndarray, full: np.ndarray, best: int, n_iter: int) -> str:
    n, near = full.sum(), (full & (finals >= finals[best] - _SAME_OPTIMUM)).sum()
    if n == 1:
        return f"One start, ended after {n_iter} iterations"
    kind = "starts" if full.all() else "polished starts"
    text = f"{near} of {n} {kind} end within {_SAME_OPTIMUM} nat of the best"
    return f"{text}, which took {n_iter} iterations"


def bic_by_space(
    table: pd.DataFrame, *, winner: tuple[str, str, int] | None = None, subject: str = ""
) -> Figure:
    """BIC by number of states, one panel per observation space, one line per covariance type.

    BIC ranks fits in the same space only, so every panel has its own zero. `table` has one row per
    fit: `space`, `covariance`, `n_states`, `bic`; with a boolean column `eligible`, ineligible fits
    are drawn hollow. `winner` is the space, covariance and number of states of the sweep's winner.
    """
    spaces = list(dict.fromkeys(table["space"]))
    columns = min(len(spaces), 3)
    rows = -(-len(spaces) // columns)
    height = rows * (290 if rows == 1 else 220) + 130
    no_null = any(scales.far_null(part, "bic") for _, part in table.groupby("space"))
    figure = style.new_figure(
        _sweep_title(table, winner),
        "BIC above the lowest of its observation space (2 × nats)",
        "ringed: the winner" if winner else "",
        _hollow(table),
        "one state, far above, is not drawn" if no_null else "",
        subject,
        height=height,
    )
    sheet = Sheet(figure)
    panels = cut(len(spaces), columns, (style.MARGIN, 40, style.WIDTH + 30, height - 90), (62, 46))
    for i, (panel, space) in enumerate(zip(panels, spaces, strict=True)):
        part = table[table["space"] == space]
        panels[i] = _draw_space(sheet, panel, part, space, winner)
    sheet.draw_frames(panels)
    sheet.write(style.WIDTH / 2, 16, "number of states", ha="center", va="top", fontsize=9)
    _name_covariances(sheet, list(dict.fromkeys(table["covariance"])), height - 70)
    return figure


def save_bic_by_space(path: Path, table: pd.DataFrame, winner: tuple[str, str, int] | None) -> None:
    """Write `bic_by_space` to a file."""
    style.save(bic_by_space(table, winner=winner), path)


def _draw_space(sheet: Sheet, panel: Panel, part: pd.DataFrame, space: str, winner) -> Panel:
    """Draw the lines of one observation space; return the panel with its scale."""
    shown = part.assign(excess=part["bic"] - part["bic"].min()).sort_values("n_states")
    if scales.far_null(part, "bic"):
        shown = shown[shown["n_states"] > 1]
    states = np.unique(shown["n_states"])
    panel = panel.scaled(
        (states[0] - 0.5, states[-1] + 0.5), scales.padded(0, float(shown["excess"].max()) or 1.0)
    )
    for covariance, line in shown.groupby("covariance", sort=False):
        color, dashes, marker = _COVARIANCES.get(str(covariance), (palette.GREY, "-", "D"))
        course = _tried(line["n_states"].to_numpy(), line["excess"].to_numpy())
        sheet.line(*panel.at(*course), color=color, linestyle=dashes, linewidth=1.5)
        x, y = panel.at(line["n_states"], line["excess"])
        for rows, face in ((_eligible(line), color), (~_eligible(line), "white")):
            sheet.marks(x[rows], y[rows], marker=marker, color=color, mfc=face, markersize=6)
        if winner is not None and winner[:2] == (space, covariance):
            won = (line["n_states"] == winner[2]).to_numpy()
            sheet.marks(x[won], y[won], color=palette.ACCENT, markersize=15, mfc="none", mew=2)
    sheet.draw_title(panel, space)
    sheet.draw_yticks(panel, scales.round_ticks(0, panel.ylim[1], 4))
    sheet.draw_xticks(panel, states, [str(k) for k in states])
    return panel


def _name_covariances(sheet: Sheet, names: Sequence[str], y: float) -> None:
    left = 26.0
    for name in names:
        color, dashes, marker = _COVARIANCES.get(name, (palette.GREY, "-", "D"))
        sheet.line([left, left + 30], [y, y], color=color, linestyle=dashes, linewidth=1.5)
        sheet.marks(left + 15, y, marker=marker, color=color, markersize=6)
        sheet.write(left + 38, y, name, color=palette.INK, va="center_baseline", fontsize=9)
        left += 38 + width(name, 9) + 18


def _sweep_title(table: pd.DataFrame, winner: tuple[str, str, int] | None) -> str:
    n_spaces = table["space"].nunique()
    n_fits = int((table["n_states"] > 1).sum()) or len(table)  # one state is every panel's null
    fits = f"{n_fits} fits in {n_spaces} observation space{'s' if n_spaces > 1 else ''}"
    if winner is None:
        return f"{fits}: no eligible winner"
    space, covariance, n_states = winner
    return f"Winner: {space} with {_states(n_states)} and {covariance} covariance, of {fits}"
