r"""Promotion through the gate and rollback, one at a time.

    decision = promote(client, run_id, registry_name="hmm_regime", gate=GateConfig())
    print(*decision.lines("hmm_regime"), sep="\n")

`models:/hmm_regime/Production` resolves after every step, even if the process dies there.
"""

import getpass
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hmm_exp.config import GateConfig
from hmm_exp.errors import TrackingError, one_line
from hmm_exp.market.iso import iso
from hmm_exp.registry.evidence import NotJudged, model_id, read_evidence, read_incumbent
from hmm_exp.registry.gate import PanelTest, judge
from hmm_exp.registry.installation import REFUSED, UNCHANGED, install, repair, write_decision
from hmm_exp.registry.labels import LabelMatch, name_states
from hmm_exp.registry.lease import lease
from hmm_exp.registry.versions import ALIAS, STAGE, Champion, Versions, champion_of
from hmm_exp.serving.load import load_single
from hmm_exp.serving.mlflow_model import log_detector, smoke_test_failure
from hmm_exp.store.address import sqlite_path
from hmm_exp.tracking import tags

__all__ = ["ALIAS", "STAGE", "Champion", "Decision", "Rollback", "champion", "promote", "rollback"]

_OTHERS_DONE_WITHIN = 120  # seconds


@dataclass(frozen=True)
class Decision:
    """The outcome of a promotion."""

    promoted: bool = False  # whether the candidate is in Production now
    version: str | None = None  # the version now in Production, None if there is none
    reasons: list[str] = field(default_factory=list)  # reasons of a refusal, else empty
    # Reasons overridden by `force`, and the gate's warnings.
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # measurements of the gate
    naming: LabelMatch | None = None  # labels of its states; None if it is not promoted
    repaired: list[str] = field(default_factory=list)  # repairs after an interrupted command
    noop: bool = False  # whether the champion already is this model
    dry_run: bool = False  # whether nothing was changed

    @property
    def refused(self) -> bool:
        """Whether the gate refused the candidate."""
        return bool(self.reasons)

    def lines(self, registry_name: str) -> list[str]:
        """Lines for the terminal: the outcome, then reasons, warnings and notes."""
        uri = f"models:/{registry_name}/{STAGE}"
        if self.noop:
            outcome = f"{uri} already is this model (version {self.version})"
        elif self.refused:
            outcome = "would be refused:" if self.dry_run else "not promoted:"
        elif self.dry_run:
            outcome = f"would be promoted to {uri}"
        else:
            outcome = f"promoted: {uri} is version {self.version}"
        warnings, notes = list(self.warnings), list(self.notes)
        if self.naming:
            (warnings if self.naming.flagged else notes).append(f"labels {self.naming.story}")
        details = [*self.reasons, *(f"warning: {warning}" for warning in warnings), *notes]
        return [*self.repaired, outcome, *(f"  {line}" for line in details)]


@dataclass(frozen=True)
class Rollback:
    """The outcome of a rollback."""

    champion: Champion  # the version in Production now
    left: str | None  # the version that it replaced; None if nothing had to change
    repaired: list[str]  # repairs after an interrupted command

    def lines(self) -> list[str]:
        """Lines for the terminal."""
        served = f"models:/{self.champion.name}/{STAGE} is version {self.champion.version}"
        moved = f"rolled back from version {self.left}" if self.left else "nothing was rolled back"
        return [*self.repaired, f"{moved}: {served} (run {self.champion.run_id})"]


def champion(client: MlflowClient, registry_name: str) -> Champion | None:
    """The version that `models:/<registry_name>/Production` serves, None without one."""
    return Versions(client, registry_name).champion()


def promote(
    client: MlflowClient,
    run_id: str,
    *,
    registry_name: str,
    gate: GateConfig,
    force: bool = False,
    dry_run: bool = False,
    panel: PanelTest | None = None,
) -> Decision:
    """Put a run's model into Production if it passes the gate, and smoke-test it there.

    The decision and its reasons are recorded on the run. A refusal does not change Production.

    Parameters
    ----------
    client
        Client of MLflow's current store.
    run_id
        A finished run with a model.
    registry_name
        The registered model.
    gate
        Rules for the candidate.
    force
        Turn the gate's reasons into warnings. A synthetic market never replaces a real one.
    dry_run
        Decide, but change nothing.
    panel
        How significant the gains are among those of all symbols of a panel.

    Raises
    ------
    TrackingError
        The run does not exist, the store fails, or the model fails its smoke test.
    """
    with (
        _store_errors(f"promotion of run {run_id}"),
        _one_at_a_time(client, None if dry_run else registry_name) as check,
    ):
        run = client.get_run(run_id)
        versions = Versions(client, registry_name)
        repaired = [] if dry_run else repair(versions).lines
        decision, labels = _decide(client, run, versions.champion(), gate, force, panel)
        if dry_run:
            return replace(decision, dry_run=True)
        if decision.naming is None:
            _write_refusal(versions, run, decision, gate)
        else:
            model = _named_model(run, decision.naming, labels)
            check()
            about = _findings(decision, gate) | {tags.LABELS: decision.naming.story}
            version = install(versions, run, model, about, decision.version)
            decision = replace(decision, promoted=True, version=version)
        return replace(decision, repaired=repaired)


def rollback(client: MlflowClient, registry_name: str, to: str | None = None) -> Rollback:
    """Bring an earlier version back into Production; the present one is archived.

    If a promotion or a rollback was interrupted, the repair alone is the rollback.

    `to` is the version to bring back, by default the one that the champion replaced. Raises
    TrackingError if there is no champion, no version before it, or that version fails its smoke
    test.
    """
    with (
        _store_errors(f"rollback of {registry_name}"),
        _one_at_a_time(client, registry_name) as check,
    ):
        versions = Versions(client, registry_name)
        found = repair(versions)
        current = versions.champion()
        if current is None:
            raise TrackingError(f"{versions.uri} does not exist: promote first")
        target = to or (current.version if found.undid else current.replaces)
        if target is None:
            raise TrackingError(
                f"version {current.version} of {registry_name} replaced no other version: there "
                "is nothing to roll back to"
            )
        back = champion_of(versions.get(target))
        if back.version == current.version:
            return Rollback(current, None, found.lines)
        if failure := smoke_test_failure(back.uri):
            raise TrackingError(f"not rolled back: {failure}")
        check()
        versions.settle(back.version)
        moment = iso(datetime.now(UTC).replace(microsecond=0))
        versions.tag(current.version, tags.ROLLED_BACK, f"{moment} to version {back.version}")
        return Rollback(back, current.version, found.lines)


def _decide(
    client: MlflowClient,
    run: Run,
    current: Champion | None,
    gate: GateConfig,
    force: bool,
    panel: PanelTest | None,
) -> tuple[Decision, tuple[str, ...]]:
    """Apply the gate and label the states of an accepted model; also return its present labels."""
    version = current.version if current else None
    if current is not None and _same_model(run, current):
        return Decision(version=version, noop=True), ()
    if panel is not None and panel.finding.weight == "refuse" and not force:
        return Decision(version=version, reasons=[panel.finding.text]), ()  # spares the evidence
    try:
        evidence = read_evidence(client, run)
    except NotJudged as why:
        return Decision(version=version, reasons=[str(why)]), ()
    incumbent = read_incumbent(current) if current else None
    verdict = judge(client, evidence, incumbent, gate, panel)
    reasons = verdict.of("final") if force else verdict.of("final", "refuse")
    forced = [f"forced: {reason}" for reason in verdict.of("refuse")] if force else []
    decision = Decision(
        version=version,
        reasons=reasons,
        warnings=[*forced, *verdict.of("warn")],
        notes=verdict.of("note"),
        naming=None if reasons else name_states(client, evidence, incumbent),
    )
    return decision, evidence.detector.labels


def _same_model(run: Run, current: Champion) -> bool:
    fingerprint = run.data.tags.get(tags.FINGERPRINT)
    same = fingerprint is not None and fingerprint == current.tags.get(tags.FINGERPRINT)
    return run.info.run_id == current.run_id or (same and run.info.status == "FINISHED")


def _write_refusal(versions: Versions, run: Run, decision: Decision, gate: GateConfig) -> None:
    """Record why a run is not promoted; the champion's run keeps the record of its promotion."""
    current = versions.champion()
    is_champion = current is not None and current.run_id == run.info.run_id
    if run.info.lifecycle_stage == "active" and not is_champion:
        word = UNCHANGED if decision.noop else REFUSED
        write_decision(versions.client, run.info.run_id, word, _findings(decision, gate))


def _named_model(run: Run, naming: LabelMatch, labels: tuple[str, ...]) -> str:
    """Id of the run's model with the matched labels; it is logged again if they differ."""
    model = model_id(run)
    assert model is not None
    if naming.labels == labels:
        return model
    detector = load_single(f"models:/{model}")
    named = replace(detector, labels=naming.labels)
    return log_detector(run.info.experiment_id, run.info.run_id, named).model_id


def _findings(decision: Decision, gate: GateConfig) -> dict[str, str]:
    """Tags of a decision, for the run and the version."""
    return {
        tags.GATE: gate.name,
        tags.GATE_REASONS: "; ".join([*decision.reasons, *decision.warnings]),
        tags.GATE_NOTES: "; ".join(decision.notes),
    }


@contextmanager
def _one_at_a_time(client: MlflowClient, leased: str | None) -> Iterator[Callable[[], None]]:
    """Serialise promotions by a file lock on this machine and, on a server, also by a lease.

    `leased` names the registered model to change, None if nothing changes. Yields a check that the
    lease is still valid.
    """
    uri = client.tracking_uri
    lock = FileLock(_lock_file(uri))
    try:
        with lock.acquire(timeout=_OTHERS_DONE_WITHIN):
            if leased is None or sqlite_path(uri) is not None:
                yield lambda: None  # a file lock is valid as long as its process lives
                return
            with lease(client, leased, patience=_OTHERS_DONE_WITHIN) as held:
                yield held.check
    except Timeout:
        raise TrackingError(f"another promotion holds {lock.lock_file}") from None


def _lock_file(uri: str) -> Path:
    database = sqlite_path(uri)
    if database is not None:
        return Path(f"{database}-promotion.lock")
    store = hashlib.sha256(f"{getpass.getuser()} {uri}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"hmm_exp-{store}-promotion.lock"


@contextmanager
def _store_errors(doing: str) -> Iterator[None]:
    """Turn errors of the store into one line."""
    try:
        yield
    except MlflowException as error:
        raise TrackingError(f"{doing}: {one_line(error)}") from error
