"""Figures of a run and of a sweep: data in, a matplotlib `Figure` out.

    figure = price(bars.time, bars.frame["close"], states, ("calm", "turbulent"), subject="BTC 1H")
    save(figure, "plots/price.png")

Arguments that mean the same in all figures: `time` is `available_at` in nanoseconds since 1970 UTC,
increasing, shape (T,). `labels` name the K states, calm first. `splits` maps the parts of the data
("train", "val", "test") to their first instants in nanoseconds. `kind` says how the states were
found: filtered, smoothed or viterbi. `subject` names the data in the subtitle.

A regime has the same colour in all figures, from light blue (calm) to dark red (turbulent). The
colours darken, so their order is visible in grey print and to the colour-blind. Everything else is
grey or black. Titles are computed from the data. Figures do not use pyplot or lasting rcParams, so
any thread may make them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hmm_exp.figures.behaviour import dwell_times, next_bar_return
    from hmm_exp.figures.model import state_means, transition_matrix
    from hmm_exp.figures.palette import regime_colors
    from hmm_exp.figures.refits import drift
    from hmm_exp.figures.search import bic_by_space, convergence, criteria
    from hmm_exp.figures.style import save
    from hmm_exp.figures.timeline import price, probabilities, recovered, regimes

__all__ = [
    "bic_by_space",
    "convergence",
    "criteria",
    "drift",
    "dwell_times",
    "next_bar_return",
    "price",
    "probabilities",
    "recovered",
    "regime_colors",
    "regimes",
    "save",
    "state_means",
    "transition_matrix",
]

# Fetched on first use, so that a page takes colours and scales without matplotlib.
_HOMES = {
    "bic_by_space": "search",
    "convergence": "search",
    "criteria": "search",
    "drift": "refits",
    "dwell_times": "behaviour",
    "next_bar_return": "behaviour",
    "price": "timeline",
    "probabilities": "timeline",
    "recovered": "timeline",
    "regime_colors": "palette",
    "regimes": "timeline",
    "save": "style",
    "state_means": "model",
    "transition_matrix": "model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"hmm_exp.figures.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
