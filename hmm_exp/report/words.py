"""The verdict in words: the regimes, the model, its gain, and whether the gain is credible."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hmm_exp.judge.unscored import FORECASTS, OTHERS, why_no_gain
from hmm_exp.judge.wording import BETTER, WordedGain, percent
from hmm_exp.judge.wording import signed as with_sign
from hmm_exp.report.collect import RecordedRun, Subject
from hmm_exp.sweep.luck import why_unchecked
from hmm_exp.sweep.search import caveat
from hmm_exp.sweep.verdict import BASELINES, LUCKY, belief, gains_on_test, headline, unmeasured
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import unscored_of

_AGREE = 0.2  # smallest share of starts at the best optimum that supports it


@dataclass(frozen=True)
class Check:
    """A test of whether to believe a model; `passed` is None if it is open.

    It is open if it could not be run, or passed with a warning.
    """

    passed: bool | None
    text: str
    detail: str = ""

    @property
    def sign(self) -> str:
        """A mark readable without colour."""
        return {True: "✓", False: "✗", None: "–"}[self.passed]


@dataclass(frozen=True)
class Summary:
    """The answers at the top of the page."""

    headline: str  # one sentence
    model: str  # the model, and why it was chosen
    model_detail: list[str]  # the model, and why it was chosen
    # `margin`, `margin_detail`: its gain, and the uncertainty of the gain.
    margin: str
    margin_detail: list[str]
    belief: str  # yes, in part, or no, with the reason
    checks: list[Check]  # the tests behind it


def verdict(subject: Subject) -> Summary:
    """Summarise a sweep or a run."""
    model = subject.model
    if model is None:
        return _no_winner(subject)
    assert subject.states is not None
    found_by = "best model" if subject.is_sweep else "model"
    return Summary(
        headline=headline(subject.states, f"{found_by} {model.name}"),
        model=model.name,
        model_detail=_why(subject),
        margin=_margin(model),
        margin_detail=[*_margins(subject, model)],
        belief=belief(model.run, subject.main.data.metrics if subject.is_sweep else {}),
        checks=[*_checks(subject, model)],
    )


def _no_winner(subject: Subject) -> Summary:
    finished = len(subject.cells) - len(subject.unfinished)
    n_cells = subject.main.data.tags.get(tags.N_CELLS, str(len(subject.cells)))
    return Summary(
        headline="No model won",
        model="none",
        model_detail=_why(subject) or ["The sweep has no verdict yet."],
        margin="none",
        margin_detail=[f"{finished} of {n_cells} cells finished."],
        belief="No: there is no model to judge",
        checks=[],
    )


def _why(subject: Subject) -> list[str]:
    """Recorded reasons of the choice, the decisive one first."""
    if not subject.is_sweep:
        return []
    recorded = subject.main.data.tags
    reasons = recorded.get(tags.VERDICT, recorded.get(tags.NOTE, "")).splitlines()
    name = subject.model.name if subject.model else ""
    return [reason for reason in reversed(reasons) if reason.startswith(name)]


def _margin(model: RecordedRun) -> str:
    gain = model.metrics.get("return_gain_val")
    if gain is None:
        why = why_no_gain(unscored_of(model.run), "static") or "no validation bar is scored"
        return f"not measured: {why}"
    return f"{signed(gain)} nats per bar"


def _margins(subject: Subject, model: RecordedRun) -> Iterator[str]:
    """The gains over each baseline and over the best other cell, with intervals."""
    metrics = model.metrics
    if "return_gain_val" in metrics:
        times = math.exp(metrics["return_gain_val"])
        yield (
            f"Gain over one static Student-t on validation{_interval(metrics, 'return_gain_val')}: "
            f"on average, its forecast makes the next return {times:.2f} times as likely."
        )
    if "ewma_gain_val" in metrics:
        yield (
            f"Gain over an EWMA volatility forecast: {signed(metrics['ewma_gain_val'])}"
            f"{_interval(metrics, 'ewma_gain_val')}."
        )
    if subject.rival is not None:
        behind = subject.rival.behind
        yield (
            f"Gain over the best other cell, {subject.rival.name}: {signed(behind.mean)} "
            f"(95 % interval {signed(behind.low)} to {signed(behind.high)}) on "
            f"{behind.n_bars:,} validation bars scored by both."
        )


def _checks(subject: Subject, model: RecordedRun) -> Iterator[Check]:
    yield from _luck(subject)
    known = {*unscored_of(model.run), *model.metrics}
    gains = gains_on_test(model.run)
    for name in BASELINES:
        if name not in OTHERS or known & {name, f"{name}_gain_test"}:
            yield _test_gain(model, name, gains.get(name))
    yield _fit(model)
    yield from _residuals(model)
    yield from _gate(model)


def _luck(subject: Subject) -> Iterator[Check]:
    metrics = subject.main.data.metrics
    if not subject.is_sweep or "n_cells_tried" not in metrics:
        return
    n_cells = f"{metrics['n_cells_tried']:.0f}"
    models = metrics.get("n_models_tried", 0)
    more = f" ({models:.0f} models)" if models > metrics["n_cells_tried"] else ""
    p = metrics.get("reality_check_p_white")
    text = f"The best of {n_cells} cells{more} is not luck"
    if p is None:
        yield Check(None, text, f"not tested: {why_unchecked(subject.cells)}")
        return
    spa = metrics.get("reality_check_p_spa")
    also = "" if spa is None else f", Hansen's p = {spa:.3f}"
    doubt = caveat(subject.main.data.tags, int(metrics["n_cells_tried"]))
    detail = f"reality check over all scored cells: White's p = {p:.3f}{also}"
    passed = None if doubt and p < LUCKY else p < LUCKY
    yield Check(passed, text, "; ".join(filter(None, [detail, doubt])))


def _test_gain(model: RecordedRun, name: str, gain: WordedGain | None) -> Check:
    over = FORECASTS[BASELINES[name]]
    if gain is None:
        return Check(None, f"On test it is not compared with {over}", unmeasured(model.run, name))
    text = f"{signed(gain.mean)} nats per bar, {signed(gain.low)} to {signed(gain.high)}"
    return Check(gain.word == BETTER, f"On test it forecasts {gain.against}", text)


def _fit(model: RecordedRun) -> Check:
    faults = model.run.data.tags.get(tags.FAULTS)
    if faults:
        return Check(False, "The fit is sound", faults)
    share = model.metrics.get("restart_agreement")
    n_starts = model.metrics.get("n_polished", 0)
    detail = "converged, no hard fault"
    if share is not None:
        detail += f"; {percent(share)} of {n_starts:.0f} polished starts agree"
    return Check(True if share is None or share >= _AGREE else None, "The fit is sound", detail)


def _residuals(model: RecordedRun) -> Iterator[Check]:
    reject = model.metrics.get("residuals_reject")
    if reject is not None:
        detail = "an effect exceeds its limit, see Residuals" if reject else "all within limits"
        yield Check(not reject, "Residuals of the next return fit the model", detail)


def _gate(model: RecordedRun) -> Iterator[Check]:
    recorded = model.run.data.tags
    word = recorded.get(tags.GATE_DECISION)
    if word is None:
        yield Check(None, "The promotion gate was not run")
        return
    promoted = None if recorded.get(tags.GATE_REASONS) else True  # reasons here are warnings
    passed = {"promoted": promoted, "refused": False}.get(word)
    detail = "; ".join(filter(None, map(recorded.get, (tags.GATE_REASONS, tags.GATE_NOTES))))
    yield Check(passed, f"Gate {recorded.get(tags.GATE, '')}: {word}", detail)


def _interval(metrics: dict[str, float], name: str) -> str:
    if f"{name}_low" not in metrics:
        return ""
    low, high = (signed(metrics[f"{name}_{end}"]) for end in ("low", "high"))
    return f" (95 % interval {low} to {high})"


def signed(value: float, digits: int = 4) -> str:
    """A gain with its sign, typeset."""
    return with_sign(value, digits).replace("-", "−")
