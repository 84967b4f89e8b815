"""The verdict in words: which regimes, which model, by how much, and whether to believe it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hmm_exp.figures.style import percent
from hmm_exp.judge.gains import MIN_BARS
from hmm_exp.judge.unscored import FORECASTS, why_no_gain
from hmm_exp.report.collect import RecordedRun, Subject
from hmm_exp.sweep.luck import why_unchecked
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import unscored_of

_COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")
_LUCKY = 0.05  # p beyond which the best of many may be luck
_AGREE = 0.2  # share of starts at the optimum under which it may not be the best
_BASELINES = {"return": "static", "ewma": "ewma"}  # by the stem of their metrics


@dataclass(frozen=True)
class Check:
    """One reason to believe a model, or not; `passed` is None where nothing can be said."""

    passed: bool | None
    text: str
    detail: str = ""

    @property
    def sign(self) -> str:
        """A mark that needs no colour."""
        return {True: "✓", False: "✗", None: "–"}[self.passed]


@dataclass(frozen=True)
class Summary:
    """What a reader should know after ten seconds.

    Attributes
    ----------
    headline
        One sentence.
    model, model_detail
        Which model, and why it was taken.
    margin, margin_detail
        By how much, and how sure that is.
    belief
        Yes, in part, or no, with what for.
    checks
        What the belief rests on.
    """

    headline: str
    model: str
    model_detail: list[str]
    margin: str
    margin_detail: list[str]
    belief: str
    checks: list[Check]


def verdict(subject: Subject) -> Summary:
    """Put a sweep or a run into words."""
    model = subject.model
    if model is None:
        return _no_winner(subject)
    checks = [*_checks(subject, model)]
    n_states = len(model.labels)
    count = _COUNTS[n_states] if n_states < len(_COUNTS) else str(n_states)
    regimes = f"{count} regime{'s' if n_states > 1 else ''}"
    told = "told best by" if subject.is_sweep else "as told by"
    return Summary(
        headline=f"{regimes}, {told} {model.name}",
        model=model.name,
        model_detail=_why(subject),
        margin=_margin(model),
        margin_detail=[*_margins(subject, model)],
        belief=_belief(model, checks),
        checks=checks,
    )


def _no_winner(subject: Subject) -> Summary:
    finished = len(subject.cells) - len(subject.unfinished)
    return Summary(
        headline="No model won",
        model="none",
        model_detail=_why(subject) or ["The sweep has not been judged."],
        margin="nothing to measure",
        margin_detail=[f"{finished} of {_n_cells(subject)} cells finished."],
        belief="No: there is nothing to believe yet",
        checks=[],
    )


def _why(subject: Subject) -> list[str]:
    """Reasons of the choice, as the sweep has told them; the one that decided first."""
    if not subject.is_sweep:
        return []
    told = subject.main.data.tags
    reasons = told.get(tags.VERDICT, told.get(tags.NOTE, "")).splitlines()
    name = subject.model.name if subject.model else ""
    return [reason for reason in reversed(reasons) if reason.startswith(name)]


def _margin(model: RecordedRun) -> str:
    gain = model.metrics.get("return_gain_val")
    if gain is None:
        why = why_no_gain(unscored_of(model.run), "static") or "no validation bar is scored"
        return f"not measured: {why}"
    return f"{signed(gain)} nats per bar"


def _margins(subject: Subject, model: RecordedRun) -> Iterator[str]:
    """What the margin is over, how sure it is, and how far the next cell is behind."""
    metrics = model.metrics
    if "return_gain_val" in metrics:
        times = math.exp(metrics["return_gain_val"])
        yield (
            f"over one static Student-t on validation{_interval(metrics, 'return_gain_val')}: on "
            f"average the next return is {times:.2f} times as likely under its forecast."
        )
    if "ewma_gain_val" in metrics:
        yield (
            f"Over an EWMA volatility forecast {signed(metrics['ewma_gain_val'])}"
            f"{_interval(metrics, 'ewma_gain_val')}."
        )
    if subject.rival is not None:
        behind = subject.rival.behind
        yield (
            f"Against the best other cell, {subject.rival.name}, {signed(behind.mean)} "
            f"(95 % interval {signed(behind.low)} to {signed(behind.high)}) on "
            f"{behind.n_bars:,} validation bars that both score."
        )


def _belief(model: RecordedRun, checks: list[Check]) -> str:
    """Yes or no, and for what; only test and what is not about choosing count."""
    passed = {check.text: check.passed for check in checks}
    static, ewma = (passed.get(_beats(name)) for name in _BASELINES)
    luck = [check.passed for check in checks if check.text.startswith(_LUCK)]
    if len(model.labels) == 1:
        return "No: one state tells nothing apart"
    if passed[_NO_FAULT] is False:
        return "No: the fit has a hard fault"
    if static is None:
        return f"Cannot say: {_unmeasured(model, 'return')}"
    if not static or False in luck:
        return "No: on test its regimes are not shown to forecast the next bar"
    if ewma is None:
        return f"In part: regimes are real, and {_unmeasured(model, 'ewma')}"
    if ewma:
        return "Yes: it adds to a plain volatility forecast, too"
    return "In part: regimes are real, but a one-line volatility forecast does as well"


_LUCK = "The best of"
_NO_FAULT = "The fit is sound"


def _beats(baseline: str) -> str:
    return f"On test it beats {FORECASTS[_BASELINES[baseline]]}"


def _unmeasured(model: RecordedRun, baseline: str) -> str:
    """Reason why a gain on test is unknown."""
    why = why_no_gain(unscored_of(model.run), _BASELINES[baseline])
    return why or f"fewer than {MIN_BARS} test bars are scored"


def _checks(subject: Subject, model: RecordedRun) -> Iterator[Check]:
    yield from _luck(subject)
    for baseline in _BASELINES:
        yield _test_gain(model, baseline)
    yield _fit(model)
    yield from _residuals(model)
    yield from _gate(model)


def _luck(subject: Subject) -> Iterator[Check]:
    metrics = subject.main.data.metrics
    if not subject.is_sweep or "n_cells_tried" not in metrics:
        return
    tried = f"{metrics['n_cells_tried']:.0f}"
    models = metrics.get("n_models_tried", 0)
    more = f" ({models:.0f} models)" if models > metrics["n_cells_tried"] else ""
    p = metrics.get("reality_check_p_white")
    text = f"{_LUCK} {tried} cells{more} is not luck"
    if p is None:
        yield Check(None, text, f"no gain can be weighed: {why_unchecked(subject.cells)}")
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
        detail = "an effect is beyond its limit, see Residuals" if reject else "all within limits"
        yield Check(not reject, "Residuals of the next return look right", detail)


def _gate(model: RecordedRun) -> Iterator[Check]:
    told = model.run.data.tags
    word = told.get(tags.GATE_DECISION)
    if word is None:
        yield Check(None, "The gate was not asked")
        return
    passed = {"promoted": True, "refused": False}.get(word)
    said = "; ".join(filter(None, (told.get(tags.GATE_REASONS), told.get(tags.GATE_NOTES))))
    yield Check(passed, f"Gate {told.get(tags.GATE, '')}: {word}", said)


def _interval(metrics: dict[str, float], name: str) -> str:
    if f"{name}_low" not in metrics:
        return ""
    low, high = (signed(metrics[f"{name}_{end}"]) for end in ("low", "high"))
    return f" (95 % interval {low} to {high})"


def _n_cells(subject: Subject) -> str:
    return subject.main.data.tags.get(tags.N_CELLS, str(len(subject.cells)))


def signed(value: float) -> str:
    """A gain with its sign, four digits behind the point."""
    return f"{value:+.4f}".replace("-", "−")
