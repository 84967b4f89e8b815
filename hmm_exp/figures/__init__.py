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

from hmm_exp.figures.behaviour import dwell_times, next_bar_return
from hmm_exp.figures.drift import drift
from hmm_exp.figures.model import state_means, transition_matrix
from hmm_exp.figures.search import bic_by_space, convergence, criteria
from hmm_exp.figures.style import regime_colors, save
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
