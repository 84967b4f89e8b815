"""Who is in Production: the gate, promotion and rollback, safe against crashes and each other.

    decision = promote(client, run_id, registry_name="hmm_regime", gate=GateConfig())

`models:/hmm_regime/Production` is the contract. A stage URI serves the highest version in the
stage, so the stage holds exactly one; the alias `production` names the same version. Every step
leaves a Production that resolves.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hmm_exp.config import GateConfig
from hmm_exp.errors import TrackingError
from hmm_exp.tracking import tags
from hmm_exp.tracking.gate import STAGE, Champion, Verdict, judge, model_id
from hmm_exp.tracking.serving import sample_bars

ALIAS = "production"

_SQLITE = "sqlite:///"
_OTHERS_DONE_WITHIN = 120  # seconds
_SUM_TOLERANCE = 1e-6
_COPIED_TAGS = (
    tags.SWEEP_ID,
    tags.CELL,
    tags.FINGERPRINT,
    tags.INSTRUMENT,
    tags.DATA_KIND,
    tags.DATA_DIGEST,
)
_COPIED_METRICS = ("n_states", "bic", "return_gain_val", "return_gain_test", "ewma_gain_test")


@dataclass(frozen=True)
class Decision:
    """What became of a candidate.

    Attributes
    ----------
    promoted
        It is in Production now.
    version
        The version now in Production, None when there is none.
    reasons
        Why it is refused; empty when it is not.
    warnings
        What would have refused it, were it not forced.
    noop
        The champion is this very model: nothing to do.
    dry_run
        Nothing was changed, only said.
    """

    promoted: bool = False
    version: str | None = None
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    noop: bool = False
    dry_run: bool = False

    @property
    def refused(self) -> bool:
        """The gate said no."""
        return bool(self.reasons)

    def lines(self, registry_name: str) -> list[str]:
        """What a terminal shows: the outcome, then each reason and warning on its line."""
        uri = f"models:/{registry_name}/{STAGE}"
        if self.noop:
            outcome = f"{uri} is this model already (version {self.version})"
        elif self.refused:
            outcome = "would be refused:" if self.dry_run else "not promoted:"
        elif self.dry_run:
            outcome = f"would be promoted to {uri}"
        else:
            outcome = f"promoted: {uri} is version {self.version}"
        warned = [f"warning: {warning}" for warning in self.warnings]
        return [outcome, *(f"  {line}" for line in [*self.reasons, *warned])]


def champion(client: MlflowClient, registry_name: str) -> Champion | None:
    """The version that `models:/<registry_name>/Production` serves, None without one."""
    version = max(_in_stage(client, registry_name), key=_number, default=None)
    return None if version is None else _champion(version)


def promote(
    client: MlflowClient,
    run_id: str,
    *,
    registry_name: str,
    gate: GateConfig,
    force: bool = False,
    dry_run: bool = False,
) -> Decision:
    """Put a run's model into Production if the gate lets it, and prove that it answers there.

    The decision and its reasons are written on the run. A refusal leaves Production as it was.

    Parameters
    ----------
    client
        Of the store that MLflow is set to.
    run_id
        A finished run with a model.
    registry_name
        The registered model.
    gate
        What is asked of the candidate.
    force
        Turn the gate's reasons into warnings; not that synthetic data never replace a market.
    dry_run
        Only say what would be done.

    Raises
    ------
    TrackingError
        When there is no such run, or the store fails, or the model does not answer.
    """
    with _one_at_a_time(client), _store_errors(f"promotion of run {run_id}"):
        run = client.get_run(run_id)
        current = champion(client, registry_name)
        if current is not None and _same_model(run, current):
            if not dry_run:
                _settle(client, registry_name, current.version)  # a crash may have left a half
            return Decision(version=current.version, noop=True, dry_run=dry_run)
        decision = _decided(run, current, judge(run, current, gate), force)
        if dry_run:
            return replace(decision, dry_run=True)
        if not decision.refused:
            version = _install(client, run, registry_name, current)
            decision = replace(decision, promoted=True, version=version)
        _write_decision(client, run_id, decision)
        return decision


def rollback(client: MlflowClient, registry_name: str) -> Champion:
    """Bring back the version that the champion took Production from; the champion is archived.

    Raises
    ------
    TrackingError
        When there is no champion, none before it, or the one before does not answer any more.
    """
    with _one_at_a_time(client), _store_errors(f"rollback of {registry_name}"):
        current = champion(client, registry_name)
        if current is None:
            raise TrackingError(f"models:/{registry_name}/{STAGE} does not exist: promote first")
        previous = current.tags.get(tags.REPLACES)
        if previous is None:
            raise TrackingError(
                f"version {current.version} of {registry_name} took over from no other: there is "
                "nothing to roll back to"
            )
        if complaint := _complaint(f"models:/{registry_name}/{previous}"):
            raise TrackingError(f"not rolled back: {complaint}")
        _settle(client, registry_name, previous)
        return _champion(client.get_model_version(registry_name, previous))


def _same_model(run: Run, current: Champion) -> bool:
    fingerprint = run.data.tags.get(tags.FINGERPRINT)
    same = fingerprint is not None and fingerprint == current.tags.get(tags.FINGERPRINT)
    return run.info.run_id == current.run_id or (same and run.info.status == "FINISHED")


def _decided(run: Run, current: Champion | None, verdict: Verdict, force: bool) -> Decision:
    """Turn the gate's verdict into a decision; a model that does not answer is refused too."""
    reasons = verdict.final + ([] if force else verdict.forcible)
    forced = [f"forced: {reason}" for reason in verdict.forcible] if force else []
    if not reasons and (complaint := _complaint(f"models:/{model_id(run)}")):
        reasons = [complaint]
    return Decision(version=current.version if current else None, reasons=reasons, warnings=forced)


def _install(client: MlflowClient, run: Run, name: str, current: Champion | None) -> str:
    """Register, put into Production, prove that it answers there, else bring back the champion."""
    version = _registered(client, run, name)
    if current is not None:
        client.set_model_version_tag(name, version, tags.REPLACES, current.version)
    _settle(client, name, version)
    if complaint := _complaint(f"models:/{name}/{STAGE}"):
        _undo(client, name, version, current)
        raise TrackingError(f"not promoted: {complaint}")
    return version


def _undo(client: MlflowClient, name: str, version: str, current: Champion | None) -> None:
    if current is not None:
        _settle(client, name, current.version)
    else:
        _move(client, name, version, "Archived")
        client.delete_registered_model_alias(name, ALIAS)


def _registered(client: MlflowClient, run: Run, name: str) -> str:
    """Version of the run's model; one that an interrupted promotion left is taken up again."""
    for version in _versions(client, name):
        if version.run_id == run.info.run_id and version.current_stage == "None":
            for key, value in _version_tags(run).items():
                client.set_model_version_tag(name, version.version, key, value)
            return str(version.version)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = model_id(run)
    created = client.create_model_version(
        name,
        source=f"models:/{source}",
        run_id=run.info.run_id,
        tags=_version_tags(run),
        description=_description(run),
        model_id=source,
    )
    return str(created.version)


def _settle(client: MlflowClient, name: str, version: str) -> None:
    """Make `version` the one in Production and the one under the alias; nothing if it is."""
    if [str(v.version) for v in _in_stage(client, name)] != [version]:
        _move(client, name, version, STAGE)  # archives the others in the same transaction
    aliases = client.get_registered_model(name).aliases
    if str(aliases.get(ALIAS)) != version:
        client.set_registered_model_alias(name, ALIAS, version)


def _move(client: MlflowClient, name: str, version: str, stage: str) -> None:
    """Move a version into a stage. MLflow deprecates stages for aliases, but keeps them served."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client.transition_model_version_stage(
            name, version, stage, archive_existing_versions=stage == STAGE
        )


def _complaint(uri: str) -> str | None:
    """Load a model by its URI and let it predict; gives what is wrong with it, None if nothing."""
    path = list(sys.path)
    try:
        model = mlflow.pyfunc.load_model(uri, suppress_warnings=True)
        regimes = model.predict(sample_bars(model.get_raw_model()))
        total = regimes.filter(like="p_state_").sum(axis=1)
    except Exception as error:  # whatever a stored model may raise
        return f"{uri} does not answer: {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        sys.path[:] = path  # MLflow leaves the model's own code in front
    if regimes.empty or not (abs(total - 1) < _SUM_TOLERANCE).all():
        return f"{uri} gives no probabilities that sum to one"
    return None


def _write_decision(client: MlflowClient, run_id: str, decision: Decision) -> None:
    word = "promoted" if decision.promoted else "refused"
    client.set_tag(run_id, tags.GATE_DECISION, word)
    client.set_tag(run_id, tags.GATE_REASONS, "; ".join([*decision.reasons, *decision.warnings]))


def _version_tags(run: Run) -> dict[str, str]:
    copied = {name: run.data.tags[name] for name in _COPIED_TAGS if name in run.data.tags}
    metrics = {name: run.data.metrics[name] for name in _COPIED_METRICS if name in run.data.metrics}
    return copied | {name: f"{value:.6g}" for name, value in metrics.items()}


def _description(run: Run) -> str:
    about = _version_tags(run)
    cell = about.get(tags.CELL, "model")
    source = f"run {run.info.run_id}"
    if sweep := about.get(tags.SWEEP_ID):
        source += f" of sweep {sweep}"
    figures = ", ".join(f"{name} {about[name]}" for name in _COPIED_METRICS if name in about)
    instrument = about.get(tags.INSTRUMENT, "an unnamed instrument")
    return f"{cell} on {instrument}, {source}" + (f": {figures}" if figures else "")


def _champion(version: ModelVersion) -> Champion:
    return Champion(str(version.version), version.run_id, dict(version.tags))


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'"))


def _in_stage(client: MlflowClient, name: str) -> list[ModelVersion]:
    return [version for version in _versions(client, name) if version.current_stage == STAGE]


def _number(version: ModelVersion) -> int:
    return int(version.version)


@contextmanager
def _one_at_a_time(client: MlflowClient) -> Iterator[None]:
    """Serialise promotions on a SQLite store; a server's are a few requests apart."""
    uri = client.tracking_uri
    if not uri.startswith(_SQLITE):
        yield
        return
    lock = FileLock(f"{Path(uri.removeprefix(_SQLITE))}-promotion.lock")
    try:
        with lock.acquire(timeout=_OTHERS_DONE_WITHIN):
            yield
    except Timeout:
        raise TrackingError(f"another promotion holds {lock.lock_file}") from None


@contextmanager
def _store_errors(doing: str) -> Iterator[None]:
    """Give what the store complains about as one line."""
    try:
        yield
    except MlflowException as error:
        raise TrackingError(f"{doing}: {' '.join(str(error).split())}") from error
