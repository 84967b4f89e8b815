"""Figures of a run and of a sweep: plain data in, a matplotlib `Figure` out.

    figure = price(bars.time, bars.frame["close"], states, ("calm", "turbulent"), subject="BTC 1H")
    save(figure, "plots/price.png")

One visual language runs through all of them. A regime has one colour everywhere, light blue when
calm to dark red when turbulent, and gets darker on the way, so that grey print and colour-blind
eyes keep the order. Grey and ink are for everything that is not a regime. Titles are computed from
the data. No pyplot and no lasting rcParams: figures may be made in any thread.
"""

from hmm_exp.figures.behaviour import dwell_times, next_bar_return
from hmm_exp.figures.drift import drift
from hmm_exp.figures.model import state_means, transition_matrix
from hmm_exp.figures.search import bic_by_space, convergence, criteria
from hmm_exp.figures.style import regime_colors, save
from hmm_exp.figures.timeline import price, probabilities, recovered

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
    "save",
    "state_means",
    "transition_matrix",
]
