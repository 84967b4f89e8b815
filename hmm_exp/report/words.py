"""The verdict in words: the regimes, the model, its gain, and whether the gain is credible."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hmm_exp.figures.style import percent
from hmm_exp.judge.gains import MIN_BARS
from hmm_exp.judge.unscored import FORECASTS, OTHERS, why_no_gain
from hmm_exp.report.collect import RecordedRun, Subject
from hmm_exp.sweep.luck import why_unchecked
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import unscored_of

_COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")
_LUCKY = 0.05  # p-value above which the best of many cells may be luck
_AGREE = 0.2  # smallest share of starts at the best optimum that supports it
_BASELINES = {"return": "static", "ewma": "ewma", **{name: name for name in OTHERS}}  # of metrics


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
    checks = [*_checks(subject, model)]
    n_states = len(model.labels)
    count = _COUNTS[n_states] if n_states < len(_COUNTS) else str(n_states)
    regimes = f"{count} regime{'s' if n_states > 1 else ''}"
    found_by = "best model" if subject.is_sweep else "model"
    return Summary(
        headline=f"{regimes}, {found_by} {model.name}",
        model=model.name,
        model_detail=_why(subject),
        margin=_margin(model),
        margin_detail=[*_margins(subject, model)],
        belief=_belief(model, checks),
        checks=checks,
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


def _belief(model: RecordedRun, checks: list[Check]) -> str:
    """Conclusion, based on test data only."""
    passed = {check.text: check.passed for check in checks}
    static, ewma = (passed.get(_beats(name)) for name in ("return", "ewma"))
    better = [FORECASTS[name] for name in OTHERS if passed.get(_beats(name)) is False]
    luck = [check.passed for check in checks if check.text.startswith(_LUCK)]
    if len(model.labels) == 1:
        return "No: a model with one state has no regimes"
    if passed[_NO_FAULT] is False:
        return "No: the fit has a hard fault"
    if static is None:
        return f"Cannot say: {_unmeasured(model, 'return')}"
    if not static or False in luck:
        return "No: on test its regimes do not reliably forecast the next bar"
    if ewma is None:
        return f"In part: its regimes forecast the next bar; {_unmeasured(model, 'ewma')}"
    if ewma and better:
        return f"In part: on test it beats an EWMA volatility, but not {_listed(better)}"
    if ewma:
        return "Yes: on test it beats every baseline, static and volatility"
    return "In part: its regimes forecast the next bar, but an EWMA volatility does as well"


_LUCK = "The best of"
_NO_FAULT = "The fit is sound"


def _beats(baseline: str) -> str:
    return f"On test it beats {FORECASTS[_BASELINES[baseline]]}"


def _listed(names: list[str]) -> str:
    """Names in a sentence."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _unmeasured(model: RecordedRun, baseline: str) -> str:
    """Why a gain on test is unknown."""
    why = why_no_gain(unscored_of(model.run), _BASELINES[baseline])
    return why or f"fewer than {MIN_BARS} test bars are scored"


def _checks(subject: Subject, model: RecordedRun) -> Iterator[Check]:
    yield from _luck(subject)
    known = {*unscored_of(model.run), *model.metrics}
    for baseline in _BASELINES:
        if baseline not in OTHERS or known & {baseline, f"{baseline}_gain_test"}:
            yield _test_gain(model, baseline)
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
    text = f"{_LUCK} {n_cells} cells{more} is not luck"
    if p is None:
        yield Check(None, text, f"not tested: {why_unchecked(subject.cells)}")
        return
    spa = metrics.get("reality_check_p_spa")
    also = "" if spa is None else f", Hansen's p = {spa:.3f}"
    yield Check(p < _LUCKY, text, f"reality check over all scored cells: White's p = {p:.3f}{also}")


def _test_gain(model: RecordedRun, baseline: str) -> Check:
    name = f"{baseline}_gain_test"
    metrics = model.metrics
    if f"{name}_bound" not in metrics:
        return Check(None, _beats(baseline), _unmeasured(model, baseline))
    bound = metrics[f"{name}_bound"]
    text = f"{signed(metrics[name])} nats per bar, lower bound {signed(bound)}"
    return Check(bound > 0, _beats(baseline), text)


def _fit(model: RecordedRun) -> Check:
    faults = model.run.data.tags.get(tags.FAULTS)
    if faults:
        return Check(False, _NO_FAULT, faults)
    share = model.metrics.get("restart_agreement")
    n_starts = model.metrics.get("n_polished", 0)
    detail = "converged, no hard fault"
    if share is not None:
        detail += f"; {percent(share)} of {n_starts:.0f} polished starts agree"
    return Check(True if share is None or share >= _AGREE else None, _NO_FAULT, detail)


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


def signed(value: float) -> str:
    """A gain with its sign and four decimals."""
    return f"{value:+.4f}".replace("-", "−")
