"""List the sweeps of a store and remove runs that nobody needs."""

import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

from hmm_exp import owner
from hmm_exp.errors import TrackingError
from hmm_exp.experiment.cache import FOLDER as CACHE
from hmm_exp.market.iso import iso
from hmm_exp.store.address import sqlite_path
from hmm_exp.store.relocation import relocate
from hmm_exp.sweep import terminal
from hmm_exp.sweep.leaderboard import leaderboard
from hmm_exp.tracking import tags, ui
from hmm_exp.tracking.read import SYMBOLS_FILE, read_table
from hmm_exp.tracking.runs import (
    all_runs,
    called,
    lacks,
    status_of,
    sweep_cells,
    sweep_members,
    sweep_parent,
    symbol_runs,
)

_SERVED = "mlflow-artifacts:"
_SYMBOL_COLUMNS = ["symbol", "status", "winner", "gain_test", "q_bh", "promoted", "regime"]


def sweeps_table(client: MlflowClient) -> str:
    """Table of all sweeps, newest first, with the number of cells by status."""
    counts: dict[str, Counter] = {}
    for run in _runs(client, "cell"):
        counts.setdefault(run.data.tags.get(tags.SWEEP_ID, ""), Counter())[status_of(run)] += 1
    chosen = Counter(
        run.data.tags[tags.SWEEP_ID] for run in _runs(client, "symbol") if _winner(run)
    )
    rows = [_row(parent, counts, chosen) for parent in reversed(_runs(client, "sweep"))]
    return ui.plain_table(pd.DataFrame(rows)) if rows else "this store holds no sweep yet"


def sweep_text(client: MlflowClient, sweep_id: str) -> str:
    """Leaderboard of one sweep, and the reason of every unfinished cell, as text."""
    parent, cells = sweep_parent(client, sweep_id), sweep_cells(client, sweep_id)
    lines = [f"sweep {sweep_id}: {status_of(parent)}, {parent.data.tags.get(tags.N_CELLS)} cells"]
    if tags.N_SYMBOLS in parent.data.tags:
        table = read_table(client, parent.info.run_id, SYMBOLS_FILE)
        table = _symbols_so_far(client, sweep_id) if table is None else table[_SYMBOL_COLUMNS]
        lines += [] if table.empty else ["", ui.plain_table(table), ""]
    elif cells:
        lines += ["", terminal.leaderboard_table(leaderboard(cells)), ""]
    lines += [in_words(run) for run in cells if status_of(run) != "FINISHED" or lacks(run)]
    lines += [parent.data.tags.get(tags.VERDICT) or parent.data.tags.get(tags.NOTE, "")]
    return "\n".join(lines).rstrip()


def _symbols_so_far(client: MlflowClient, sweep_id: str) -> pd.DataFrame:
    """Symbols that a panel has begun, before its end has a table of all."""
    rows = [
        {
            "symbol": run.data.tags[tags.SYMBOL],
            "status": status_of(run),
            "winner": _winner(run),
            "regime": run.data.tags.get(f"{tags.NOW}.regime", ""),
        }
        for run in symbol_runs(client, sweep_id)
    ]
    table = pd.DataFrame(rows, columns=["symbol", "status", "winner", "regime"])
    return table.sort_values("symbol")


def removable(client: MlflowClient, sweep_id: str | None = None) -> tuple[list[Run], list[Run]]:
    """Cells that ended without finishing, and finished ones with a later twin in their sweep.

    Winners and runs behind a registered model are left out. Given in two parts: those that can go,
    and those of sweeps that still run, which count their cells at the end.
    """
    cells = sweep_cells(client, sweep_id) if sweep_id else _runs(client, "cell")
    sweeps = _runs(client, "sweep")
    running = {run.data.tags[tags.SWEEP_ID] for run in sweeps if status_of(run) == "RUNNING"}
    parents = [*sweeps, *_runs(client, "symbol")]
    kept = {parent.data.tags.get(tags.WINNER) for parent in parents}
    kept |= {version.run_id for version in client.search_model_versions()}
    latest = {_twins(run): run.info.run_id for run in cells if status_of(run) == "FINISHED"}
    ended = [
        run
        for run in cells
        if run.info.run_id not in kept
        and tags.SWEEP_ID in run.data.tags
        and status_of(run) != "RUNNING"
        and latest.get(_twins(run)) != run.info.run_id
    ]
    can_go = [run for run in ended if run.data.tags[tags.SWEEP_ID] not in running]
    return can_go, [run for run in ended if run.data.tags[tags.SWEEP_ID] in running]


def remove(client: MlflowClient, runs: list[Run]) -> None:
    """Delete runs, and their artifacts where these are files of this machine or of the server."""
    for run in runs:
        client.delete_run(run.info.run_id)
        if (run.info.artifact_uri or "").startswith(_SERVED):
            get_artifact_repository(run.info.artifact_uri).delete_artifacts()
        elif (run.info.artifact_uri or "").startswith("file:"):
            folder = Path(local_file_uri_to_path(run.info.artifact_uri)).parent
            if folder.name != run.info.run_id:
                raise TrackingError(f"{folder} is not the folder of run {run.info.run_id}")
            shutil.rmtree(folder, ignore_errors=True)


def leftover_caches(client: MlflowClient, sweep_id: str | None = None) -> list[Path]:
    """Caches of killed sweeps; a sweep that ends removes its own."""
    ended = [parent for parent in _runs(client, "sweep") if status_of(parent) != "RUNNING"]
    places = []
    for parent in ended:
        name = parent.data.tags[tags.SWEEP_ID]
        if sweep_id in (None, name) and (parent.info.artifact_uri or "").startswith("file:"):
            root = Path(local_file_uri_to_path(parent.info.artifact_uri)).parents[1]
            places.append(root / "sweeps" / name / CACHE)
    return [place for place in places if place.is_dir()]


def close_elsewhere(client: MlflowClient, sweep_id: str) -> list[Run]:
    """Close as KILLED what a sweep left RUNNING, also on machines that cannot be asked.

    For a user who knows that nothing works on it any more; gives the runs as they were. Raises
    TrackingError when a process of this machine works on it.
    """
    runs = [sweep_parent(client, sweep_id), *sweep_members(client, sweep_id)]
    running = [run for run in runs if run.info.status == "RUNNING"]
    for name in (run.data.tags.get(tags.OWNER, "") for run in running):
        if owner.is_alive(name):
            raise TrackingError(f"sweep {sweep_id} still runs: {owner.in_words(name)}")
    for run in running:
        client.set_terminated(run.info.run_id, "KILLED")
    return running


def relocate_store(client: MlflowClient) -> list[str]:
    """Let a SQLite store that was moved use the artifacts in its folder; see `relocate`."""
    database = sqlite_path(client.tracking_uri)
    if database is None:
        raise TrackingError("only a SQLite store can be moved: a server keeps its own artifacts")
    return relocate(database)


def in_words(run: Run) -> str:
    """One line about a run: status, cell, id, reason."""
    reason = run.data.tags.get(tags.STATUS_REASON) or lacks(run)
    names = (run.data.tags.get(tags.SWEEP_ID), run.data.tags.get(tags.SYMBOL), called(run))
    name = " ".join(filter(None, names))
    return f"{status_of(run)}: {name} (run {run.info.run_id}){f': {reason}' if reason else ''}"


def _row(parent: Run, counts: dict[str, Counter], chosen: Counter) -> dict[str, object]:
    sweep_id = parent.data.tags[tags.SWEEP_ID]
    begun = datetime.fromtimestamp(parent.info.start_time // 1000, UTC)
    n_symbols = parent.data.tags.get(tags.N_SYMBOLS)
    statuses = ("FINISHED", "FAILED", "KILLED", "RUNNING")
    return {
        "sweep": sweep_id,
        "started (UTC)": iso(begun),
        "status": status_of(parent),
        "cells": parent.data.tags.get(tags.N_CELLS, ""),
        **{status.lower(): counts.get(sweep_id, Counter())[status] for status in statuses},
        "winner": f"{chosen[sweep_id]} of {n_symbols} symbols" if n_symbols else _winner(parent),
    }


def _winner(parent: Run) -> str:
    """The beginning of the winner's id; empty without one."""
    return parent.data.tags.get(tags.WINNER, "")[:8]


def _twins(run: Run) -> tuple[str, str]:
    """Key that runs of the same work share."""
    known = run.data.tags
    return known.get(tags.SWEEP_ID, ""), known.get(tags.FINGERPRINT, run.info.run_id)


def _runs(client: MlflowClient, kind: str) -> list[Run]:
    """All runs of a kind in a store, oldest first."""
    runs = all_runs(client, f"tags.{tags.KIND} = '{kind}'")
    return sorted(runs, key=lambda run: run.info.start_time)
