"""Cost of a panel's page: seconds to make, bytes, seconds to read it, and time until it is seen.

    python -m benchmarks.panel_page
    python -m benchmarks.panel_page --store        # and the time to read it from a SQLite store
    python -m benchmarks.panel_page --symbols 30 --output panel.html

500 synthetic symbols of 1,200 days and four cells each, two to five regimes; symbols share days of
turbulence. `make` is the page of a panel that is read; paint and `drawn` (the map) are Chromium's,
opening the file: the median of five tabs; left out where there is no browser. With `--store`, the
runs and files of such a panel, without those of its cells, are written to a new store first.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from mlflow.entities import Run, RunData, RunInfo, RunTag
from mlflow.tracking import MlflowClient

from benchmarks.report import opened
from hmm_exp.experiment.days import DAYS_FILE, LABELS
from hmm_exp.panel.table import SYMBOLS_FILE
from hmm_exp.report.panel import LEADERBOARD_FILE, PanelSubject, read_panel
from hmm_exp.report.panel_map import SymbolDays
from hmm_exp.report.panel_page import panel_page
from hmm_exp.tracking import tags

SWEEP = "20260411-093000-1a2b"
GRID = (2, 3, 4, 5)


def main() -> None:
    """Make a panel, its page, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--days", type=int, default=1200)
    parser.add_argument("--store", action="store_true", help="read the panel from a store")
    parser.add_argument("--output", type=Path, help="keep the page")
    args = parser.parse_args()
    subject = synthetic_panel(args.symbols, args.days)
    with tempfile.TemporaryDirectory() as folder:
        path = args.output or Path(folder) / "report.html"
        started = time.perf_counter()
        path.write_text(panel_page(subject), encoding="utf-8")
        made = time.perf_counter() - started
        print(
            f"{args.symbols} symbols x {args.days} days, {len(subject.cells)} cells: "
            f"make {made:.1f} s, {path.stat().st_size / 1e6:.1f} MB{opened(path)}",
            flush=True,
        )
        if args.store:
            client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
            store_panel(client, subject, Path(folder))
            started = time.perf_counter()
            found = read_panel(client, "latest")
            print(f"read {time.perf_counter() - started:.1f} s, {len(found.days)} symbols' days")


def synthetic_panel(n_symbols: int, n_days: int, seed: int = 0) -> PanelSubject:
    """A panel whose symbols share days of turbulence; every seventh has fewer days."""
    random = np.random.default_rng(seed)
    stress = random.random(n_days) < 0.02
    days = {f"SYM{i:03d}": _days(random, stress, i) for i in range(n_symbols)}
    p = np.where(random.random(n_symbols) < 0.3, 0.001, 1.0) * random.random(n_symbols)
    rows = [_row(random, i, name, days[name], p[i]) for i, name in enumerate(days)]
    symbols = pd.DataFrame(rows)
    cells = pd.DataFrame([cell for name in days for cell in _cells(random, name)])
    info = RunInfo("f" * 32, "1", "user", "FINISHED", 1_775_900_000_000, None, "active")
    known = {tags.SWEEP_ID: SWEEP, tags.KIND: "sweep", tags.N_SYMBOLS: str(n_symbols)}
    main = Run(info, RunData(tags=[RunTag(*pair) for pair in known.items()]))
    verdict = "Three regimes, best model v1@1H diag K=3: at most five tried"
    return PanelSubject(
        main=main,
        symbols=symbols,
        days=days,
        verdicts={name: [verdict, "believe it? Yes: on test it forecasts better"] for name in days},
        cells=cells,
        fdr=0.05,
        command="python -m hmm_exp.train -m data=panel data.path='lake/*.parquet'",
    )


def _days(random: np.random.Generator, stress: np.ndarray, number: int) -> SymbolDays:
    n_states, n_days = GRID[number % len(GRID)], len(stress)
    path = np.zeros(n_days, dtype=np.int8)
    jumps, moved = random.random(n_days), random.integers(n_states, size=n_days)
    for t in range(1, n_days):
        jumped = moved[t] if jumps[t] < 0.04 else path[t - 1]
        path[t] = n_states - 1 if stress[t] and jumps[t] < 0.6 else jumped
    path[:20] = -1
    start = n_days // 3 if number % 7 == 6 else 0
    calendar = np.arange(n_days) + np.datetime64("2022-01-01")
    returns = 0.01 * (1 + path) * random.normal(size=n_days)
    close = (50 * (1 + number) * np.exp(np.cumsum(returns))).astype(np.float32)
    part = np.array(["train", "val", "test"])[np.digitize(np.arange(n_days) / n_days, [0.6, 0.8])]
    labels = [f"vol-{k}" for k in range(n_states)]
    return SymbolDays(labels, calendar[start:], close[start:], path[start:], part[start:])


def _row(random: np.random.Generator, i: int, name: str, days: SymbolDays, p: float) -> dict:
    gain = random.normal(0.015, 0.02)
    won = p < 0.001
    changes = np.flatnonzero(np.diff(days.regime))
    return {
        "symbol": name,
        "status": "finished",
        "winner": f"v1@1H diag K={len(days.labels)}",
        "promoted": "yes" if won else "no",
        "reason": "" if won else f"q = {min(1.0, 4 * p):.3f} is above gate.fdr=0.05",
        "model": f"hmm_regime.{name}",
        "version": "1" if won else "",
        "regime": days.labels[days.regime[-1]],
        "since": f"{days.day[changes[-1] + 1]}T05:00:00Z",
        "run": f"{i:032x}",
        "K": float(len(days.labels)),
        "gain_val": gain,
        "gain_test": gain + random.normal(0, 0.005),
        "ewma_gain_test": gain - 0.01,
        "p_value": p,
        "q_bh": min(1.0, 4 * p),
        "q_by": min(1.0, 25 * p),
        "probability": random.uniform(0.5, 1.0),
        "cells": float(len(GRID)),
    }


def _cells(random: np.random.Generator, name: str) -> list[dict]:
    return [
        {
            "cell": f"v1@1H diag K={k}",
            "K": float(k),
            "bic": random.normal(-150_000, 900),
            "val_ll/bar": random.normal(9, 0.1),
            "gain_t": random.normal(0.02, 0.01),
            "gain_ewma": random.normal(0.01, 0.01),
            "eligible": "yes",
            "s": 0.4,
            "run": f"{random.integers(2**62):032x}",
            "symbol": name,
        }
        for k in GRID
    ]


def store_panel(client: MlflowClient, subject: PanelSubject, folder: Path) -> None:
    """Write what the page of a panel reads into a store, as its sweep does."""
    place = client.create_experiment("regimes", artifact_location=f"file://{folder}/mlruns")
    main = client.create_run(place, tags=dict(subject.main.data.tags)).info.run_id
    client.set_tag(main, tags.FDR, str(subject.fdr))
    ids = {}
    for name in subject.symbols["symbol"]:
        known = {tags.KIND: "symbol", tags.SWEEP_ID: SWEEP, tags.SYMBOL: name}
        known |= {tags.PARENT_RUN: main, tags.VERDICT: "\n".join(subject.verdicts[name])}
        ids[name] = client.create_run(place, tags=known).info.run_id
        if name in subject.days:
            write_days(subject.days[name], folder / DAYS_FILE)
            client.log_artifact(ids[name], str(folder / DAYS_FILE))
    table = subject.symbols.assign(run=subject.symbols["symbol"].map(ids))
    table.to_csv(folder / SYMBOLS_FILE, index=False)
    client.log_artifact(main, str(folder / SYMBOLS_FILE))
    subject.cells.to_csv(folder / LEADERBOARD_FILE, index=False)
    client.log_artifact(main, str(folder / LEADERBOARD_FILE))


def write_days(days: SymbolDays, path: Path) -> None:
    """Write the regimes of a symbol by day as its run does."""
    columns = {"day": days.day, "close": days.close, "regime": days.regime, "split": days.split}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    labels = {LABELS: json.dumps([*days.labels]).encode()}
    pa.parquet.write_table(table.replace_schema_metadata(labels), path)


if __name__ == "__main__":
    main()
