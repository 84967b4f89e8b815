"""The decided regimes of a fit: the regime of every row by `config.decision`, and its metrics."""

from dataclasses import asdict
from weakref import WeakKeyDictionary

import numpy as np

from hmm_exp.detector.decision import Decision
from hmm_exp.errors import FitError
from hmm_exp.experiment.candidate import train_steps
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.hmm.burnin import burn_in
from hmm_exp.hmm.posterior import Posterior
from hmm_exp.judge.next_bar import detection_delay, named_as_planted
from hmm_exp.judge.split import TEST, VAL
from hmm_exp.judge.states import visit_metrics

_BURN_IN: WeakKeyDictionary[Posterior, int] = WeakKeyDictionary()  # rows, of one train part each


def decision_of(prepared: Prepared) -> Decision:
    """The configured decision rule."""
    return Decision(**asdict(prepared.config.decision))


def burn_in_rows(prepared: Prepared, posterior: Posterior) -> int:
    """Rows until the filter has forgotten its start, measured on train. Raises FitError."""
    if posterior not in _BURN_IN:
        rows = prepared.train
        steps = train_steps(prepared.table.steps, rows)
        _BURN_IN[posterior] = burn_in(posterior.params, posterior.density[rows], steps)
    return _BURN_IN[posterior]


def decided_regimes(prepared: Prepared, posterior: Posterior) -> np.ndarray:
    """Regime of every row from the rows up to it, shape (T,); -1 while it is not decided."""
    try:
        rows = burn_in_rows(prepared, posterior)
    except FitError:  # a fit of a walk that never forgets still decides after its train rows
        rows = max(1, int(prepared.train.sum()))
    decider = decision_of(prepared).decider(posterior.params.n_states, rows)
    return decider.advance(posterior.filtered.probs)


def regime_metrics(prepared: Prepared, regimes: np.ndarray) -> dict[str, float]:
    """Metrics of decided regimes (T,) out of sample, and their delay on a planted market.

    The delay is that of all bars, as `planted_delay` of the most probable states.
    """
    rows = ((prepared.part == VAL) | (prepared.part == TEST)) & (regimes >= 0)
    time = prepared.table.available_at[rows]
    delay = planted_delay(prepared, at_close(prepared, regimes))
    return visit_metrics(regimes[rows], prepared.table.steps[rows], time) | {
        f"regime_{name}": value for name, value in delay.items()
    }


def planted_delay(prepared: Prepared, states: np.ndarray) -> dict[str, float]:
    """Bars from a planted switch to the state at a close (N,) that follows it; else empty."""
    bars = prepared.source.bars
    if bars is None or bars.states is None:
        return {}
    return detection_delay(bars.states, named_as_planted(bars.states, states)).metrics()


def at_close(prepared: Prepared, states: np.ndarray) -> np.ndarray:
    """State known at every base bar's close, shape (N,), from those of the rows; -1 if unknown."""
    return np.where(prepared.row_of_bar >= 0, states[prepared.row_of_bar], -1)
