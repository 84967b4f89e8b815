"""The gate: what a candidate must pass before it may take Production.

It reads what the candidate's run and the champion's version say about themselves; it changes
nothing.
"""

from dataclasses import dataclass, field

from mlflow.entities import Run

from hmm_exp.config import GateConfig
from hmm_exp.tracking import tags

STAGE = "Production"
_UNNAMED = "an unnamed instrument"


@dataclass(frozen=True)
class Champion:
    """The version in Production.

    Attributes
    ----------
    version, run_id
        Of the registered model, and of the run that made it.
    tags
        Of the version: fingerprint, instrument, data kind, sweep, metrics, and which version it
        took over from (`replaces`).
    """

    version: str
    run_id: str | None
    tags: dict[str, str]


@dataclass(frozen=True)
class Verdict:
    """What stands against a candidate: `final` always, `forcible` unless promotion is forced."""

    final: list[str] = field(default_factory=list)
    forcible: list[str] = field(default_factory=list)


def judge(run: Run, champion: Champion | None, gate: GateConfig) -> Verdict:
    """Hold a run against the gate and the champion.

    Never forced: a run that holds nothing to load, and the synthetic market over a real one.
    """
    if unfit := _unfit(run):
        return Verdict(final=[unfit])
    faults = _hard_faults(run) if gate.hard_faults else []
    if not gate.instrument or champion is None or _is_synthetic(champion.tags):
        return Verdict(forcible=faults)
    if _is_synthetic(run.data.tags):
        return Verdict(final=[_synthetic_over_market(champion)], forcible=faults)
    return Verdict(forcible=faults + _other_instrument(run, champion))


def model_id(run: Run) -> str | None:
    """Id of the model that a run logged last, None without one."""
    models = run.outputs.model_outputs if run.outputs else []
    return models[-1].model_id if models else None


def _unfit(run: Run) -> str | None:
    if run.info.lifecycle_stage != "active":
        return "the run is deleted"
    if run.info.status != "FINISHED":
        why = run.data.tags.get(tags.STATUS_REASON)
        return f"the run is {run.info.status}" + (f": {why}" if why else "")
    return None if model_id(run) else "the run holds no model"


def _hard_faults(run: Run) -> list[str]:
    faults = run.data.tags.get(tags.FAULTS, "").split("; ")
    return [f"hard fault: {fault}" for fault in faults if fault]


def _is_synthetic(of: dict[str, str]) -> bool:
    return of.get(tags.DATA_KIND) == "synthetic"


def _synthetic_over_market(champion: Champion) -> str:
    instrument = champion.tags.get(tags.INSTRUMENT, _UNNAMED)
    return (
        f"the synthetic market never replaces a real one: version {champion.version} in {STAGE} "
        f"is of {instrument}; register it under another registry.name"
    )


def _other_instrument(run: Run, champion: Champion) -> list[str]:
    mine, theirs = (of.get(tags.INSTRUMENT, _UNNAMED) for of in (run.data.tags, champion.tags))
    if mine == theirs:
        return []
    return [
        f"the run is of {mine} but version {champion.version} in {STAGE} is of {theirs}; register "
        "it under another registry.name, or replace that with --force"
    ]
