"""Find the runs of sweeps in the store, and check that their records are complete.

A record may be incomplete after a full disk or a deletion. Such a run keeps its line in every
table, and takes no part in the choice of a winner.
"""

import gc
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from hmm_exp import owner
from hmm_exp.errors import TrackingError
from hmm_exp.store.run_ids import SHORTEST, the_one
from hmm_exp.tracking import tags

MARGIN = 60.0  # seconds by which clocks may differ
_AT_A_TIME = 100  # runs asked for by their ids: what a filter may hold

_TAGS = (tags.CELL, tags.OBSERVATION_SPACE, tags.DATA_DIGEST)
_RULE = ("within", "rule", "near_tie", "elbow", "across")
_PARAMS = ("split.kind", *(f"selection.{name}" for name in _RULE))


def called(run: Run) -> str:
    """Name of a cell; without this tag, the name that the store gave the run."""
    return run.data.tags.get(tags.CELL) or run.info.run_name or run.info.run_id


def lacks(run: Run) -> str:
    """What a finished run lacks to take part in the choice, in words; empty if complete."""
    if run.info.status != "FINISHED":
        return ""
    data = run.data
    missing = [f"param {name}" for name in _PARAMS if name not in data.params]
    missing += [f"tag {name}" for name in _TAGS if name not in data.tags]
    missing += [f"metric {name}" for name in _metrics(run) if name not in data.metrics]
    if not missing:
        return ""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"incomplete record: no {missing[0]}{more}"


def tried(run: Run) -> list[dict[str, Any]]:
    """Criteria of every number of states tried in a run; none where the tag is lost or cut off."""
    try:
        return json.loads(run.data.tags.get(tags.CRITERIA_BY_STATES, "[]"))
    except ValueError:
        return []


def _metrics(run: Run) -> list[str]:
    """Metrics that rank a run; the score that ranks a walk may be missing."""
    if run.data.params.get("split.kind") == "walk_forward":
        return ["n_states"]
    return ["n_states", "n_params", run.data.params.get("selection.within", "bic")]


def experiment_ids(client: MlflowClient) -> list[str]:
    """All experiments of a store, so that a sweep is found by its id alone."""
    return [experiment.experiment_id for experiment in client.search_experiments()]


def latest_sweep_id(client: MlflowClient, now: float | None = None) -> str:
    """Id of the sweep that was started last. Raises TrackingError when there is none.

    A sweep that starts in the future, by a clock that was wrong, is the latest only where no other
    is: else it would be that until its time comes. `now` is in Unix seconds.
    """
    until = 1000 * ((time.time() if now is None else now) + MARGIN)
    is_sweep = f"tags.{tags.KIND} = 'sweep'"
    for kind in (f"{is_sweep} and attributes.start_time <= {until:.0f}", is_sweep):
        found = client.search_runs(
            experiment_ids(client),
            filter_string=kind,
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        if found:
            return found[0].data.tags[tags.SWEEP_ID]
    raise TrackingError("this store holds no sweep yet")


def sweep_named(client: MlflowClient, name: str) -> str:
    """Id of a sweep, given whole, by its beginning, or as `latest`.

    Raises TrackingError when there is no such sweep, or several ids begin so.
    """
    if name == "latest":
        return latest_sweep_id(client)
    found = all_runs(client, f"tags.{tags.SWEEP_ID} LIKE '{name}%' and tags.{tags.KIND} = 'sweep'")
    ids = {run.data.tags[tags.SWEEP_ID] for run in found}
    ids = {sweep_id for sweep_id in ids if sweep_id.startswith(name)}  # % and _ are no wildcards
    if name in ids or len(name) < SHORTEST or not ids:
        return sweep_parent(client, name).data.tags[tags.SWEEP_ID]
    return the_one("sweep", name, {sweep_id: sweep_id for sweep_id in ids})


def sweep_parent(client: MlflowClient, sweep_id: str) -> Run:
    """Parent run of a sweep. Raises TrackingError when there is none."""
    runs = all_runs(client, _of_sweep(sweep_id, "sweep"))
    if not runs:
        raise TrackingError(f"no sweep {sweep_id} in this store ({client.tracking_uri})")
    return runs[0]


def is_panel(run: Run) -> bool:
    """Whether the parent run of a sweep is that of a panel."""
    return tags.N_SYMBOLS in run.data.tags


def sweep_cells(client: MlflowClient, sweep_id: str) -> list[Run]:
    """All cells of a sweep, in the order they were started."""
    runs = all_runs(client, _of_sweep(sweep_id, "cell"))
    return sorted(runs, key=lambda run: run.info.start_time)


def sweep_members(client: MlflowClient, sweep_id: str, status: str | None = None) -> list[Run]:
    """Cells of a sweep and, in a panel, runs of its symbols, in the order they were started.

    With a status those alone: a thousand whole runs take the store seconds.
    """
    among = f"tags.{tags.SWEEP_ID} = '{sweep_id}' and tags.{tags.KIND} != 'sweep'"
    runs = all_runs(client, among + (f" and attributes.status = '{status}'" if status else ""))
    return sorted(runs, key=lambda run: run.info.start_time)


def symbol_runs(client: MlflowClient, sweep_id: str) -> list[Run]:
    """Runs of the symbols of a panel."""
    return all_runs(client, _of_sweep(sweep_id, "symbol"))


def runs_by_id(client: MlflowClient, run_ids: Sequence[str]) -> dict[str, Run]:
    """Runs by their ids; those that are deleted or unknown are left out."""
    found: dict[str, Run] = {}
    for place in range(0, len(run_ids), _AT_A_TIME):
        ids = ", ".join(f"'{run_id}'" for run_id in run_ids[place : place + _AT_A_TIME])
        runs = all_runs(client, f"attributes.run_id IN ({ids})")
        found |= {run.info.run_id: run for run in runs}
    return found


def runs_of_symbol(client: MlflowClient, sweep_id: str, symbol: str) -> list[Run]:
    """Runs of a symbol in a panel, its own and its cells, in the order they were started."""
    quote = "'" if "'" not in symbol else '"'
    among = f"tags.{tags.SWEEP_ID} = '{sweep_id}'"
    if quote not in symbol:  # MLflow's filters know no escapes
        among += f" and tags.{tags.SYMBOL} = {quote}{symbol}{quote}"
    found = [run for run in all_runs(client, among) if run.data.tags.get(tags.SYMBOL) == symbol]
    return sorted(found, key=lambda run: run.info.start_time)


def all_runs(client: MlflowClient, filter_string: str) -> list[Run]:
    """Runs of all experiments that match a filter, in no particular order."""
    places = experiment_ids(client)
    found: list[Run] = []
    token = None
    with _no_garbage_collection():
        while True:
            page = client.search_runs(
                places,
                filter_string=filter_string,
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                return found


def status_of(run: Run) -> str:
    """Status of a run: KILLED for a RUNNING one whose process is gone."""
    status = run.info.status
    return (
        "KILLED" if status == "RUNNING" and owner.is_dead(run.data.tags.get(tags.OWNER)) else status
    )


def current_cells(cells: list[Run], attempt: str) -> list[Run]:
    """Cells that count: finished ones, and of the last start those that no finished one repeats."""
    done = {run.data.tags.get(tags.FINGERPRINT) for run in cells if run.info.status == "FINISHED"}
    return [
        run
        for run in cells
        if run.info.status == "FINISHED"
        or (
            run.data.tags.get(tags.ATTEMPT) == attempt
            and run.data.tags.get(tags.FINGERPRINT, run.info.run_id) not in done
        )
    ]


def _of_sweep(sweep_id: str, kind: str) -> str:
    return f"tags.{tags.SWEEP_ID} = '{sweep_id}' and tags.{tags.KIND} = '{kind}'"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """MLflow makes some 200 objects a run and drops them; searching them for cycles takes longer.

    A thousand runs are read in a third of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
