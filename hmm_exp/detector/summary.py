"""A detector's parameters as a text table: estimates, standard errors, intervals."""

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from hmm_exp.market.iso import iso
from hmm_exp.uncertainty.estimates import StandardErrors, without_errors

if TYPE_CHECKING:
    from hmm_exp.detector.detector import Detector

_OLDER = "the detector is from a version of hmm_exp that kept none"


def summary_text(detector: "Detector") -> str:
    """The table of `Detector.summary`."""
    stored = detector.errors or without_errors(detector.params, _OLDER)
    errors = stored.in_units(detector.scaler_mean, detector.scaler_scale)
    tail = (1 - errors.level) / 2
    heads = ("estimate", "std err", "robust", f"[{tail:.3f}", f"{1 - tail:.3f}]")
    rows = [*_rows(detector, errors)]
    first = max(len(name) for name, _ in rows)
    head, *lines = (
        f"{name:<{first}}{''.join(f'{text:>12}' for text in texts)}".rstrip()
        for name, texts in [("", heads), *rows]
    )
    double, single = "=" * len(head), "-" * len(head)
    return "\n".join([*_title(detector), double, head, single, *lines, double, *_notes(errors)])


def _title(detector: "Detector") -> Iterator[str]:
    kind, end = detector.params.covariance_type, detector.train_end
    states = f"{detector.n_states} state{'s' if detector.n_states > 1 else ''}"
    density = "Gaussian" if detector.params.df is None else "Student-t"
    yield f"{density} hidden Markov model of {detector.name}: {states}, {kind} covariance"
    yield f"Rows of {detector.recipe.grid}" + (f", fitted up to {iso(end)}" if end else "")


def _rows(detector: "Detector", errors: StandardErrors) -> Iterator[tuple[str, list[str]]]:
    """Name and numbers of every parameter, under a heading for each kind."""
    labels, columns = detector.labels, detector.recipe.titles
    kinds = {
        "transition probabilities": [f"-> {label}" for label in labels],
        "means": columns,
        "standard deviations": columns,
        "scales": columns,
        "degrees of freedom": [""],
    }
    for (kind, names), part in zip(kinds.items(), errors.parts, strict=False):
        yield kind, []
        numbers = (part.value, part.error, part.robust, part.lower, part.upper)
        cells = np.stack(numbers).reshape(len(numbers), len(labels), len(names))
        for (k, label), (d, name) in product(enumerate(labels), enumerate(names)):
            yield f"  {label} {name}".rstrip(), [_text(number) for number in cells[:, k, d]]


def _text(number: float) -> str:
    return f"{number:.4g}" if np.isfinite(number) else ""


def _notes(errors: StandardErrors) -> Iterator[str]:
    if all(np.isnan(part.robust).all() for part in errors.parts):
        yield errors.reason
        return
    level = f"{100 * errors.level:g} %"
    if errors.window == 1:
        yield f"std err: observed information; robust: sandwich; {level} intervals from std err"
    else:
        yield (
            f"robust: sandwich with Newey-West weights over {errors.window} rows, which share "
            f"bars; {level} intervals from robust"
        )
    if errors.reason:
        yield errors.reason
