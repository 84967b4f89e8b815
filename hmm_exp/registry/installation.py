"""Move a version into Production in steps that may be interrupted, and repair interrupted ones.

The steps: register the version with the tag `promotion=started`, move it into the stage, set the
alias, run the smoke test, record the decision on its run, tag the version `done`. Production
resolves after every step, if it did before. Every change of the registry starts with `repair`: a
started version outside the stage never served and is removed; one in the stage is completed, or
undone if it fails the smoke test.
"""

from contextlib import suppress
from dataclasses import dataclass

from mlflow.entities import Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hmm_exp.errors import TrackingError
from hmm_exp.judge.return_forecasts import GAINS
from hmm_exp.registry.versions import STAGE, Versions
from hmm_exp.serving.mlflow_model import smoke_test_failure
from hmm_exp.tracking import tags
from hmm_exp.tracking.ui import version_page

PROMOTED, REFUSED, UNCHANGED, UNDONE = "promoted", "refused", "unchanged", "undone"

_COPIED_TAGS = (
    tags.SWEEP_ID,
    tags.CELL,
    tags.FINGERPRINT,
    tags.INSTRUMENT,
    tags.DATA_KIND,
    tags.DATA_DIGEST,
)
_COPIED_METRICS = (
    "n_states",
    "bic",
    "return_gain_val",
    *(f"{gain}_test{end}" for gain in GAINS for end in ("", "_bound")),
)


@dataclass(frozen=True)
class Repair:
    """Repairs after an interrupted command."""

    lines: list[str]  # for the terminal
    # Whether the repair undid a promotion or completed a rollback: a requested rollback is then
    # already done.
    undid: bool = False


def install(
    versions: Versions, run: Run, model_id: str, about: dict[str, str], replaces: str | None
) -> str:
    """Put a run's model into Production, smoke-test it there, and return the version.

    `about` are tags of the version, the gate's findings and the labels; others are copied from the
    run. `replaces` is the version in Production now. Raises TrackingError if the smoke test fails;
    the previous champion is back.
    """
    recorded = _copied(run) | about | {tags.PROMOTION: tags.STARTED}
    recorded |= {tags.REPLACES: replaces} if replaces else {}
    page = version_page(run, recorded, _metrics(run))
    version = versions.create(model_id, run.info.run_id, recorded, page)
    number = str(version.version)
    versions.settle(number)
    if failure := smoke_test_failure(versions.uri):
        undo(versions, number, replaces)
        write_decision(versions.client, run.info.run_id, UNDONE, {tags.GATE_REASONS: failure})
        raise TrackingError(f"not promoted: {failure}")
    complete(versions, version)
    return number


def complete(versions: Versions, version: ModelVersion) -> None:
    """Record on its run and on the version that it is in Production."""
    if version.run_id:
        names = (tags.GATE, tags.GATE_REASONS, tags.GATE_NOTES, tags.LABELS)
        found = {name: version.tags[name] for name in names if name in version.tags}
        write_decision(versions.client, version.run_id, PROMOTED, found)
    versions.tag(str(version.version), tags.PROMOTION, tags.DONE)


def undo(versions: Versions, number: str, replaces: str | None) -> None:
    """Restore the previous version to Production, if any, and remove this one."""
    if replaces is not None:
        versions.settle(replaces)
    versions.remove(number)


def repair(versions: Versions) -> Repair:
    """Complete or undo interrupted promotions, and align the alias with the stage."""
    lines, undid = [], False
    for version in versions.all():
        if version.tags.get(tags.PROMOTION) == tags.STARTED:
            line, removed = _resolve(versions, version)
            lines.append(line)
            undid |= removed
    champion = versions.champion()
    if champion is not None and versions.alias() != champion.version:
        versions.settle(champion.version)
        if not lines:
            undid = True
            lines.append(f"completed an interrupted change: version {champion.version} in {STAGE}")
    return Repair(lines, undid)


def write_decision(client: MlflowClient, run_id: str, word: str, found: dict[str, str]) -> None:
    """Record the decision and the gate's findings on the candidate's run."""
    about = {tags.GATE_DECISION: word} | found
    client.log_batch(
        run_id, tags=[RunTag(name, text[: tags.LONGEST]) for name, text in about.items()]
    )


def _resolve(versions: Versions, version: ModelVersion) -> tuple[str, bool]:
    """Complete or undo an interrupted promotion; return a line and whether it was undone."""
    number = str(version.version)
    served = version.current_stage == STAGE
    if served and not smoke_test_failure(versions.uri):
        complete(versions, version)
        return f"completed an interrupted promotion: version {number}", False
    undo(versions, number, version.tags.get(tags.REPLACES) if served else None)
    if version.run_id:
        with suppress(MlflowException):  # the run is deleted
            write_decision(versions.client, version.run_id, UNDONE, {})
    return f"undid an interrupted promotion: version {number}", True


def _copied(run: Run) -> dict[str, str]:
    """Tags that a version copies from its run."""
    copied = {name: run.data.tags[name] for name in _COPIED_TAGS if name in run.data.tags}
    return copied | _metrics(run)


def _metrics(run: Run) -> dict[str, str]:
    """Metrics that a version copies from its run."""
    known = {name: run.data.metrics[name] for name in _COPIED_METRICS if name in run.data.metrics}
    return {name: f"{value:.6g}" for name, value in known.items()}
