"""Render a panel as one HTML page that loads nothing from elsewhere: a map, a table, the symbols.

>>> html = panel_page(read_panel(client, "latest"))

The page holds regimes as one byte a day and closes as two, compressed; it draws them itself. All
text of the store is escaped by the template, or is JSON that the page writes as text.
"""

import base64
import math
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

import hmm_exp
from hmm_exp.figures.palette import regime_colors
from hmm_exp.judge.wording import capitalize, percent
from hmm_exp.market.iso import iso
from hmm_exp.report import panel_words
from hmm_exp.report.page import assets, script_json, template, with_minus
from hmm_exp.report.panel import PanelSubject
from hmm_exp.report.panel_map import (
    CLOSED,
    LEVEL,
    NO_BAR,
    PARTS,
    RegimeMap,
    SymbolDays,
    common_rises,
    regime_map,
    similar_order,
)
from hmm_exp.report.panel_words import GROUPS, STALE, RegimeNow
from hmm_exp.report.tables import TableCell, plain
from hmm_exp.report.words import signed
from hmm_exp.tracking import tags

ASSETS = ("report.css", "panel.css", "shared.js", "drawing.js", "panel.js", "symbol.js")
MOST_DAYS = 20  # common days shown
CODES = 65_534  # steps of a close between the lowest and the highest; one more is a missing close
_SHADED = 0.95  # quantile of the gains' sizes that has the full shade
_COLUMNS = {  # of a symbol's leaderboard: name on the page and format
    "cell": ("cell", ""),
    "K": ("K", "{:.0f}"),
    "bic": ("BIC", "{:,.1f}"),
    "gain_t": ("over static", "{:+.4f}"),
    "gain_ewma": ("over EWMA", "{:+.4f}"),
    "gain_range": ("over range EWMA", "{:+.4f}"),
    "gain_hour": ("over EWMA by hour", "{:+.4f}"),
    "gain_both": ("over range EWMA by hour", "{:+.4f}"),
    "s": ("seconds", "{:.1f}"),
    "eligible": ("eligible", ""),
    "run": ("run", ""),
}
_SCALE = regime_colors(841)  # has the places of up to eight regimes: 840 is their common multiple


def panel_page(subject: PanelSubject) -> str:
    """Render a panel as an HTML page."""
    shown = {name: one for name, one in subject.days.items() if len(one.day)}
    found, now = regime_map(shown), panel_words.regimes_now(subject)
    rises = common_rises(found)
    main = subject.main
    started = datetime.fromtimestamp(main.info.start_time // 1000, UTC)
    sweep_id = main.data.tags[tags.SWEEP_ID]
    return template("panel.html").render(
        **assets(*ASSETS),
        subject=subject,
        sweep_id=sweep_id,
        summary=panel_words.summary(subject, now),
        groups=_groups(now),
        ramp=regime_colors(8),
        rows=_rows(subject, now),
        years=_years(found),
        rises=[
            {"rise": rise, "names": [found.symbols[row] for row in rise.rows]}
            for rise in sorted(rises, key=lambda rise: -rise.share)[:MOST_DAYS]
        ],
        n_rises=len(rises),
        level=percent(LEVEL),
        closed=CLOSED,
        stale=STALE,
        found=found,
        n_cells=len(subject.cells),
        data=script_json(_data(subject, shown, found, now)),
        details=script_json(_details(subject, shown)),
        again=f"python -m hmm_exp.report --sweep {sweep_id}",
        started=iso(started),
        made=iso(datetime.now(UTC).replace(microsecond=0)),
        version=hmm_exp.__version__,
    )


def color_of(position: float) -> str:
    """Colour of a position on the scale from calm to turbulent; empty if unknown."""
    return _SCALE[round((len(_SCALE) - 1) * position)] if math.isfinite(position) else ""


def _groups(now: Mapping[str, RegimeNow]) -> list[dict[str, Any]]:
    """Symbols that are in the same place of the scale now, by number of their regimes and label."""
    found = []
    for key, title in GROUPS.items():
        members = {name: one for name, one in now.items() if one.group == key}
        place = {"turbulent": 1.0, "between": 0.5, "calm": 0.0}.get(key, math.nan)
        shared: dict[tuple[int, str], list[str]] = {}
        for name, one in members.items():
            shared.setdefault((one.n_states, one.label), []).append(name)
        parts = [
            {"label": label, "n_states": n, "names": names}
            for (n, label), names in sorted(shared.items(), key=lambda item: -len(item[1]))
        ]
        if members:
            color = color_of(place)
            about = {"key": key, "title": title, "color": color, "parts": parts}
            found.append(about | {"count": len(members)})
    return found


def _rows(subject: PanelSubject, now: Mapping[str, RegimeNow]) -> list[dict[str, Any]]:
    """Rows of the table by symbol."""
    gains = ("gain_val", "gain_test", "ewma_gain_test")
    sizes = subject.symbols[[*gains]].abs().to_numpy()
    sizes = sizes[np.isfinite(sizes)]
    scale = float(np.quantile(sizes, _SHADED)) if len(sizes) else 0.0
    rows = []
    for row in _records(subject.symbols):
        regime = now[row["symbol"]]
        p_values = [(name, row[name]) for name in ("p_value", "q_bh", "q_by")]
        rows.append(
            row
            | {
                "k": _number(row["K"], "{:.0f}"),
                "gains": [_gain(row[name], scale) for name in gains],
                "chances": [_number(value, "{:.4f}") for _, value in p_values],
                "group": regime.group,
                "color": color_of(regime.position),
                "place": regime.position if math.isfinite(regime.position) else "",
                "day": row["since"][:10],
                "sure": _chance(row["probability"]),
                "is_in": row["promoted"] in ("yes", "already"),
                "n_cells": _number(row["cells"], "{:.0f}"),
            }
        )
    return rows


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    names = [str(name) for name in table]
    return [dict(zip(names, row, strict=True)) for row in table.itertuples(index=False)]


def _number(value: float, form: str) -> TableCell:
    text = "<0.0001" if form == "{:.4f}" and 0 < value < 1e-4 else plain(value, form)
    return TableCell(text, sort=value if math.isfinite(value) else "")


def _chance(probability: float) -> TableCell:
    known = math.isfinite(probability)
    return TableCell(percent(probability) if known else "", sort=probability if known else "")


def _gain(value: float, scale: float) -> TableCell:
    if not math.isfinite(value):
        return TableCell("")
    weight = max(-1.0, min(1.0, value / scale)) if scale else 0.0
    return TableCell(signed(value), weight, sort=value)


def _years(found: RegimeMap) -> list[dict[str, Any]]:
    """The map in numbers: shares of the days of all symbols, by year."""
    years = found.days.astype("M8[Y]")
    rows = []
    for year in np.unique(years):
        inside = years == year
        scaled = int(found.scaled[inside].sum())
        shares = {
            name: percent(int(count[inside].sum()) / scaled) if scaled else ""
            for name, count in (("turbulent", found.turbulent), ("calm", found.calm))
        }
        n_symbols = int((found.regimes[:, inside] != NO_BAR).any(axis=1).sum())
        rows.append({"year": str(year), "symbols": n_symbols, **shares})
    return rows


def _data(
    subject: PanelSubject,
    shown: Mapping[str, SymbolDays],
    found: RegimeMap,
    now: Mapping[str, RegimeNow],
) -> dict[str, Any]:
    """What the page draws at once; rows of the map are those of its symbols."""
    rows = {name: row for row, name in enumerate(found.symbols)}
    symbols = [
        {
            "name": name,
            "row": rows.get(name, -1),
            "labels": [*shown[name].labels] if name in shown else [],
            "parts": _parts(shown[name], found.days) if name in shown else [],
            "gain": gain if math.isfinite(gain) else None,
            "place": now[name].position if math.isfinite(now[name].position) else None,
        }
        for name, gain in subject.symbols[["symbol", "gain_val"]].itertuples(index=False)
    ]
    return {
        "days": found.days.astype(int).tolist(),
        "ramp": regime_colors(8),
        "symbols": symbols,
        "similar": similar_order(found),
        "regimes": packed(found.regimes),
        "turbulent": found.turbulent.tolist(),
        "scaled": found.scaled.tolist(),
    }


def _parts(one: SymbolDays, days: np.ndarray) -> list[int]:
    """Column of the first day of each of `PARTS`; -1 if there is none."""
    first = [np.flatnonzero(one.split == part)[:1] for part in PARTS]
    return [int(np.searchsorted(days, one.day[at[0]])) if len(at) else -1 for at in first]


def packed(values: np.ndarray) -> str:
    """Bytes of an array, compressed by zlib, in base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 6)).decode()


def _details(subject: PanelSubject, shown: Mapping[str, SymbolDays]) -> list[dict[str, Any]]:
    """What the page of each symbol shows, in the order of the table."""
    boards = dict(iter(subject.cells.groupby("symbol", sort=False)))
    return [
        {
            "verdict": [*map(_sentence, subject.verdicts.get(row["symbol"], []))],
            "facts": [*_facts(row, subject.fdr)],
            "load": _load(row, boards.get(row["symbol"])),
            **_cells(boards.get(row["symbol"]), row["winner"]),
            "chart": closes(shown[row["symbol"]].close) if row["symbol"] in shown else None,
        }
        for row in _records(subject.symbols)
    ]


def _sentence(line: str) -> str:
    """A line of the terminal for the page; the name of a cell keeps its first letter."""
    return with_minus(line if "@" in line.split(" ")[0] else capitalize(line))


def _facts(row: Mapping[str, Any], fdr: float | None) -> list[tuple[str, str]]:
    """Facts about a symbol by name; empty ones are left out."""
    since = f", since {row['since']}" if row["since"] else ""
    sure = f", probability {percent(row['probability'])}" if row["probability"] >= 0 else ""
    limit = f", limit {fdr:g}" if fdr is not None else ""
    states = f", {row['K']:.0f} regimes" if row["K"] >= 1 else ""
    version = f", version {row['version']}" if row["version"] else ""
    gains = {
        "over static Student-t, validation": row["gain_val"],
        "over static Student-t, test": row["gain_test"],
        "over EWMA, test": row["ewma_gain_test"],
    }
    chances = {
        "p-value": (row["p_value"], ""),
        "q, Benjamini-Hochberg": (row["q_bh"], limit),
        "q, Benjamini-Yekutieli": (row["q_by"], ""),
    }
    facts = {
        "status": row["status"],
        "winner": f"{row['winner']}{states}" if row["winner"] else "",
        "regime now": f"{row['regime']}{since}{sure}" if row["regime"] else "",
        **{name: f"{signed(gain)} nats per bar" for name, gain in gains.items() if gain == gain},
        **{
            name: f"{_number(p, '{:.4f}').text}{more}"
            for name, (p, more) in chances.items()
            if p >= 0
        },
        "promoted": ": ".join(filter(None, [row["promoted"], row["reason"]])),
        "registered as": f"{row['model']}{version}" if row["version"] else "",
        "run": row["run"],
    }
    return [(name, text) for name, text in facts.items() if text]


def _load(row: Mapping[str, Any], board: pd.DataFrame | None) -> str:
    """The command that loads a symbol's model; empty without a winner."""
    if row["promoted"] in ("yes", "already") and row["model"]:
        return f'detector = hmm_exp.load_detector("models:/{row["model"]}/Production")'
    if board is None or not row["winner"]:
        return ""
    runs = board.loc[board["cell"] == row["winner"], "run"]
    return f'detector = hmm_exp.load_detector("runs:/{runs.iloc[0]}")' if len(runs) else ""


def _cells(board: pd.DataFrame | None, winner: str) -> dict[str, Any]:
    """Heads and texts of the leaderboard of a symbol; columns without any value are left out."""
    if board is None:
        return {"heads": [], "cells": [], "winner": ""}
    columns = {
        head: [_text(value, form) for value in board[name]]
        for name, (head, form) in _COLUMNS.items()
        if name in board and board[name].notna().any()
    }
    rows = [*zip(*columns.values(), strict=True)]
    return {"heads": [*columns], "cells": rows, "winner": winner}


def _text(value: Any, form: str) -> str:
    if value is None:
        return ""
    return plain(float(value), form) if form else str(value)


def closes(close: np.ndarray) -> dict[str, Any]:
    """Closes in `CODES` steps between the lowest and the highest, as differences from day to day.

    Steps are those of the logarithm if all closes are above zero.
    """
    known = np.isfinite(close)
    log = bool(known.any() and close[known].min() > 0)
    values = np.log(close, where=known & (close > 0), out=np.zeros(len(close))) if log else close
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0, 0)
    codes = np.full(len(close), CODES + 1)
    codes[known] = np.rint((values[known] - low) / ((high - low) or 1.0) * CODES)
    steps = np.diff(codes, prepend=0).astype("<u2")
    return {"low": low, "high": high, "log": log, "steps": packed(steps)}
