"""The decided regimes of a fit: the regime of every row by `config.decision`, and its metrics."""

from dataclasses import asdict

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


def decision_of(prepared: Prepared) -> Decision:
    """The configured decision rule."""
    return Decision(**asdict(prepared.config.decision))


def burn_in_rows(prepared: Prepared, posterior: Posterior) -> int:
    """Rows until the filter has forgotten its start, measured on train. Raises FitError."""
    rows = prepared.train
    steps = train_steps(prepared.table.steps, rows)
    return burn_in(posterior.params, posterior.density[rows], steps)


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

    The delay is that of all bars, as `detection_delay` of the most probable states.
    """
    rows = ((prepared.part == VAL) | (prepared.part == TEST)) & (regimes >= 0)
    time = prepared.table.available_at[rows]
    metrics = visit_metrics(regimes[rows], prepared.table.steps[rows], time)
    bars, row = prepared.source.bars, prepared.row_of_bar
    if bars is None or bars.states is None:
        return metrics
    at_close = np.where(row >= 0, regimes[row], -1)
    delay = detection_delay(bars.states, named_as_planted(bars.states, at_close))
    return metrics | {f"regime_{name}": value for name, value in delay.metrics().items()}
