"""Taking Production, in steps that may be cut off anywhere, and putting right what was cut off.

A version is registered with `promotion=started` among its tags, moved into the stage, put under the
alias, asked to answer, written down on its run, and marked `done`. At every step Production
resolves, if it did before. Whatever changes the registry calls `repair` first: a version that was
started and is not in the stage never served and is removed; one that is in the stage is completed,
or undone when it does not answer.
"""

from contextlib import suppress
from dataclasses import dataclass

from mlflow.entities import Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hmm_exp.errors import TrackingError
from hmm_exp.registry.versions import LONGEST_TAG, STAGE, Versions
from hmm_exp.serving.mlflow_model import complaint
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
    "return_gain_test",
    "return_gain_test_bound",
    "ewma_gain_test",
    "ewma_gain_test_bound",
)


@dataclass(frozen=True)
class Repair:
    """What a command that was cut off had left, and what became of it.

    Attributes
    ----------
    lines
        For the terminal.
    undid
        The last change was taken back, or a rollback was brought to its end: who asked for a
        rollback has it.
    """

    lines: list[str]
    undid: bool = False


def install(
    versions: Versions, run: Run, model_id: str, about: dict[str, str], replaces: str | None
) -> str:
    """Put a run's model into Production and prove that it answers there; gives the version.

    Parameters
    ----------
    about
        Tags of the version besides those copied from the run: the gate's findings, the labels.
    replaces
        The version in Production now.

    Raises
    ------
    TrackingError
        When it does not answer there; the champion before it is back.
    """
    told = _copied(run) | about | {tags.PROMOTION: tags.STARTED}
    told |= {tags.REPLACES: replaces} if replaces else {}
    page = version_page(run, told, _metrics(run))
    version = versions.create(model_id, run.info.run_id, told, page)
    number = str(version.version)
    versions.settle(number)
    if silent := complaint(versions.uri):
        undo(versions, number, replaces)
        write_decision(versions.client, run.info.run_id, UNDONE, {tags.GATE_REASONS: silent})
        raise TrackingError(f"not promoted: {silent}")
    complete(versions, version)
    return number


def complete(versions: Versions, version: ModelVersion) -> None:
    """Write down that a version has taken Production, on its run and on itself."""
    if version.run_id:
        told = (tags.GATE, tags.GATE_REASONS, tags.GATE_NOTES, tags.LABELS)
        found = {name: version.tags[name] for name in told if name in version.tags}
        write_decision(versions.client, version.run_id, PROMOTED, found)
    versions.tag(str(version.version), tags.PROMOTION, tags.DONE)


def undo(versions: Versions, number: str, replaces: str | None) -> None:
    """Bring the version before back into Production, if there was one, and remove this one."""
    if replaces is not None:
        versions.settle(replaces)
    versions.remove(number)


def repair(versions: Versions) -> Repair:
    """Complete or undo what a command that was cut off has left, and let the alias follow."""
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
            lines.append(f"completed what was cut off: version {champion.version} in {STAGE}")
    return Repair(lines, undid)


def write_decision(client: MlflowClient, run_id: str, word: str, found: dict[str, str]) -> None:
    """Write what became of a candidate on its run, and the gate's findings."""
    told = {tags.GATE_DECISION: word} | found
    client.log_batch(run_id, tags=[RunTag(name, text[:LONGEST_TAG]) for name, text in told.items()])


def _resolve(versions: Versions, version: ModelVersion) -> tuple[str, bool]:
    """End a promotion that was cut off; gives a line about it and whether it was undone."""
    number = str(version.version)
    served = version.current_stage == STAGE
    if served and not complaint(versions.uri):
        complete(versions, version)
        return f"completed a promotion that was cut off: version {number}", False
    undo(versions, number, version.tags.get(tags.REPLACES) if served else None)
    if version.run_id:
        with suppress(MlflowException):  # the run is deleted
            write_decision(versions.client, version.run_id, UNDONE, {})
    return f"undone a promotion that was cut off: version {number}", True


def _copied(run: Run) -> dict[str, str]:
    """What a version says about its run."""
    copied = {name: run.data.tags[name] for name in _COPIED_TAGS if name in run.data.tags}
    return copied | _metrics(run)


def _metrics(run: Run) -> dict[str, str]:
    """Metrics of a run that its version carries."""
    known = {name: run.data.metrics[name] for name in _COPIED_METRICS if name in run.data.metrics}
    return {name: f"{value:.6g}" for name, value in known.items()}
