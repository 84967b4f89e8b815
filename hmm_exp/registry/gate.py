"""The gate: rules that a candidate must pass before it is promoted to Production.

The gate reads the candidate's results on test and the champion's on the same bars. It never reads
validation, which selected the candidate, and it changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from omegaconf import OmegaConf

from hmm_exp.config import RULES, GateConfig, conf_dir, nearest
from hmm_exp.config.overrides import shell_word
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.errors import ConfigError
from hmm_exp.judge.gains import MIN_BARS, estimate_gain
from hmm_exp.judge.unscored import FORECASTS, OTHERS
from hmm_exp.judge.wording import WordedGain, signed
from hmm_exp.registry.comparison import NotCompared, compare
from hmm_exp.registry.evidence import Evidence, Incumbent
from hmm_exp.registry.versions import STAGE, Champion
from hmm_exp.tracking import tags

_UNNAMED = "an unnamed instrument"
_ANOTHER_NAME = "register it under another name (registry.name, hmm-promote --registry)"


@dataclass(frozen=True)
class Finding:
    """One result of the gate.

    Weights: `final` and `refuse` block the candidate, `refuse` unless forced; `warn` and `note`
    are only reported.
    """

    weight: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """All findings, in the order of the rules."""

    findings: list[Finding]

    def of(self, *weights: str) -> list[str]:
        """Texts of the findings with these weights."""
        return [finding.text for finding in self.findings if finding.weight in weights]


@dataclass(frozen=True)
class PanelTest:
    """Significance of a symbol's gains among those of all symbols of a panel."""

    p_value: float  # the largest of the gains that the gate asks for
    q_bh: float  # adjusted by Benjamini & Hochberg, which decides
    q_by: float  # and by Benjamini & Yekutieli
    fdr: float
    n_symbols: int

    @property
    def finding(self) -> "Finding":
        """What the gate finds."""
        passes = self.q_bh <= self.fdr
        rest = "at most" if passes else "more than"
        return Finding(
            "note" if passes else "refuse",
            f"gains among {self.n_symbols:,} symbols: p = {self.p_value:.2g}, adjusted q = "
            f"{self.q_bh:.2g} (Benjamini-Hochberg), {rest} gate.fdr={self.fdr:g}; by "
            f"Benjamini-Yekutieli {self.q_by:.2g}",
        )


def recorded_test(client: MlflowClient, cell: Run, gate: GateConfig) -> PanelTest | None:
    """Test of a panel's symbol as it is on record, for one of its cells; None without one."""
    symbol = client.get_run(cell.data.tags[tags.PARENT_RUN])
    found = symbol.data.metrics
    if "p_value" not in found or symbol.data.tags.get(tags.WINNER) != cell.info.run_id:
        return None
    panel = client.get_run(symbol.data.tags[tags.PARENT_RUN])
    n_symbols = int(panel.data.tags.get(tags.N_SYMBOLS, "0"))
    return PanelTest(found["p_value"], found["q_bh"], found["q_by"], gate.fdr, n_symbols)


def asked_gains(gate: GateConfig) -> list[str]:
    """Baselines over which the gate asks for a gain."""
    asked = {"static": gate.static_gain, "ewma": gate.ewma_gain}
    asked |= dict.fromkeys(OTHERS, gate.other_gains)
    return [baseline for baseline, weight in asked.items() if weight == "refuse"]


def named_gate(name: str) -> GateConfig:
    """Load the gate of `conf/gate/<name>.yaml`. Raises ConfigError if unknown or invalid."""
    folder = conf_dir() / "gate"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"unknown gate {name!r}{nearest(name, known)}: one of {', '.join(known)}")
    stored = OmegaConf.load(folder / f"{name}.yaml")
    gate = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(GateConfig), stored))
    assert isinstance(gate, GateConfig)
    for dotted, rule in RULES.items():
        group, _, setting = dotted.partition(".")
        if group == "gate" and (value := getattr(gate, setting)) not in rule:
            raise ConfigError(f"{dotted}={value}: must be {rule}")
    return gate


def judge(
    client: MlflowClient,
    evidence: Evidence,
    incumbent: Incumbent | None,
    gate: GateConfig,
    panel: PanelTest | None = None,
) -> Verdict:
    """Apply the gate's rules to a candidate, and compare it with the champion.

    In a panel its test decides on the gains that the gate asks for, in place of `gate.level`.
    """
    static, ewma, others = gate.static_gain, gate.ewma_gain, gate.other_gains
    if panel is not None:
        static, ewma, others = (
            "note" if weight == "refuse" else weight for weight in (static, ewma, others)
        )
    return Verdict(
        [
            *_instrument(evidence.run, incumbent.champion if incumbent else None, gate),
            *_lost_symbols(evidence, incumbent),
            *_hard_faults(evidence.run, gate),
            *_use(evidence, gate),
            *([panel.finding] if panel else []),
            *_gain(evidence, "static", static, gate.level),
            *_gain(evidence, "ewma", ewma, gate.level),
            *_other_gains(evidence, others, gate.level),
            *_comparison(client, evidence, incumbent, gate),
        ]
    )


def _instrument(run: Run, champion: Champion | None, gate: GateConfig) -> Iterator[Finding]:
    """Any instrument may replace a synthetic champion, but only the same one a real champion."""
    if champion is None:
        return
    mine, theirs = (of.get(tags.INSTRUMENT, _UNNAMED) for of in (run.data.tags, champion.tags))
    current = f"version {champion.version} in {STAGE} is of {theirs}"
    if mine != theirs and tags.POOL in (mine, theirs):
        text = "a pool and the model of one market never replace each other"
        yield Finding("final", f"{text}: the run is of {mine} but {current}; {_ANOTHER_NAME}")
        return
    if _is_synthetic(champion.tags):
        return
    if _is_synthetic(run.data.tags):
        text = "a synthetic market never replaces a real one"
        yield Finding("final", f"{text}: {current}; {_ANOTHER_NAME}")
    elif gate.instrument and mine != theirs:
        others = f"{_ANOTHER_NAME}, or replace that one (hmm-promote --force)"
        yield Finding("refuse", f"the run is of {mine} but {current}: {_rename(theirs)}{others}")


def _lost_symbols(evidence: Evidence, incumbent: Incumbent | None) -> Iterator[Finding]:
    """Whether a pool would leave symbols without a model that the champion serves."""
    mine, theirs = evidence.detector, incumbent.detector if incumbent else None
    if isinstance(mine, PooledDetector) and isinstance(theirs, PooledDetector):
        lost = sorted(set(theirs.symbols) - set(mine.symbols))
        if lost and incumbent is not None:
            more = f" and {len(lost) - 5:,} more" if len(lost) > 5 else ""
            yield Finding(
                "refuse",
                f"version {incumbent.champion.version} in {STAGE} also serves "
                f"{', '.join(lost[:5])}{more}, which this pool does not know; {_ANOTHER_NAME}, or "
                "replace that one (hmm-promote --force)",
            )


def _rename(instrument: str) -> str:
    """The cure for two files of one market, which have two names by default."""
    if instrument == _UNNAMED:
        return ""
    word = shell_word("data.name", instrument)
    return f"if both are one market, repeat the command with {word}, else "


def _is_synthetic(of: dict[str, str]) -> bool:
    return of.get(tags.DATA_KIND) == "synthetic"


def _hard_faults(run: Run, gate: GateConfig) -> Iterator[Finding]:
    for fault in run.data.tags.get(tags.FAULTS, "").split("; "):
        if fault and gate.hard_faults:
            yield Finding("refuse", f"hard fault: {fault}")


def _use(evidence: Evidence, gate: GateConfig) -> Iterator[Finding]:
    """Whether more than one regime occurs on test, and whether visits last.

    A state that does not occur is only a warning: test may be a calm period, and a state missing
    on train is a hard fault already.
    """
    if isinstance(evidence.detector, PooledDetector):  # the rows of its symbols are not recorded
        return
    least, n_rows = gate.min_occupancy, len(evidence.states)
    if n_rows == 0:
        if least > 0 or gate.min_dwell > 0:
            yield Finding("refuse", "no test row has a regime")
        return
    share, dwell = evidence.occupancy(), evidence.dwell()
    if len(share) > 1 and 1.0 - share.max() < least:
        text = f"one state holds {share.max():.1%} of {n_rows:,} test rows"
        yield Finding("refuse", f"{text}: the other states need at least {least:.1%}")
    for state in np.flatnonzero(share < least):
        yield Finding("warn", f"state {state} holds {share[state]:.1%} of {n_rows:,} test rows")
    for state in np.flatnonzero((share >= least) & (dwell < gate.min_dwell)):
        text = f"state {state} lasts {dwell[state]:.2f} rows per visit on test"
        yield Finding("refuse", f"{text}: at least {gate.min_dwell:g} are needed")


def _gain(evidence: Evidence, baseline: str, weight: str, level: float) -> Iterator[Finding]:
    """Whether the lower confidence bound of a gain is above zero."""
    if weight == "ignore":
        return
    gain, over = evidence.gain(baseline), f"gain over {FORECASTS[baseline]}"
    estimate = estimate_gain(gain, level=level)
    if estimate is None:
        count = f"{np.isfinite(gain).sum()} test bars are scored, {MIN_BARS} are needed"
        why = evidence.why_no_gain(baseline) or count
        yield Finding(weight, f"no {over} is shown: {why}")
        return
    word = WordedGain.of(FORECASTS[baseline], estimate).word
    shown = f"{over} on {estimate.n_bars:,} test bars {signed(estimate.mean)} nats per bar ({word})"
    bound = f"lower bound {signed(estimate.bound)}"
    if estimate.bound > 0.0:
        yield Finding("note", f"{shown}, {bound}")
    else:
        yield Finding(weight, f"{shown}: its {bound} is not above zero")


def _other_gains(evidence: Evidence, others: str, level: float) -> Iterator[Finding]:
    """The gains over the other volatility forecasts; one that the data do not allow is a note."""
    for baseline in OTHERS:
        weight = "note" if others != "ignore" and evidence.lacks(baseline) else others
        yield from _gain(evidence, baseline, weight, level)


def _comparison(
    client: MlflowClient, evidence: Evidence, incumbent: Incumbent | None, gate: GateConfig
) -> Iterator[Finding]:
    """Whether the candidate is shown to be at most `gate.margin` worse than the champion."""
    if incumbent is None or gate.champion_bars == 0:
        return
    name = f"version {incumbent.champion.version}"
    try:
        found = compare(client, evidence, incumbent, gate.champion_bars, gate.level)
    except NotCompared as why:
        yield Finding("note", f"not compared with {name}: {why}")
        return
    shown = (
        f"gain over {name} on {found.n_bars:,} test bars after the training of both "
        f"{signed(found.gain)} nats per bar, lower bound {signed(found.low)}"
    )
    if found.low > 0.0:
        yield Finding("note", f"{shown}: better")
    elif found.low > -gate.margin:
        yield Finding("note", f"{shown}: at most {gate.margin:g} worse (gate.margin)")
    elif found.high < -gate.margin:
        yield Finding("refuse", f"{shown}: more than {gate.margin:g} worse (gate.margin)")
    else:
        text = f"it cannot be shown to be at most {gate.margin:g} worse"
        cure = "wait for more test bars, or allow more (gate.margin)"
        yield Finding("refuse", f"{shown}: {text}, {cure}")
