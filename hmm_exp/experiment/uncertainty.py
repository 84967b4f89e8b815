"""Standard errors of a run's fits.

Where no two rows share a bar, their scores count as independent. Otherwise the sandwich counts
them as dependent within 3 sqrt(n) of the n rows, as `judge.gains` does, and at least within the
longest window of a column.
"""

import numpy as np

from hmm_exp.experiment.candidate import Candidate, train_steps
from hmm_exp.experiment.fits import Fits
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.features.recipe import Recipe
from hmm_exp.judge import gains
from hmm_exp.judge.split import VAL
from hmm_exp.market.bars import timeframe_step
from hmm_exp.uncertainty.estimates import StandardErrors, without_errors
from hmm_exp.uncertainty.standard_errors import standard_errors


def fit_errors(fits: Fits) -> tuple[StandardErrors, StandardErrors]:
    """Errors of the chosen fit and of the served one, each in units of its own scaled features."""
    train = fits.fitted.train
    chosen = _errors(fits.fitted, fits.chosen, train)
    if fits.refit is None:
        return chosen, chosen
    refitted = fits.fitted.scaled_by(fits.scaler, fits.season)
    return chosen, _errors(refitted, fits.refit, train | (fits.fitted.part == VAL))


def dependent_rows(recipe: Recipe, n_rows: int) -> int:
    """Rows over which the scores of `n_rows` rows count as dependent; 1 for none."""
    if not recipe.overlaps:
        return 1
    longest = recipe.warmup(timeframe_step(recipe.grid)) + 1
    return min(max(gains.window(n_rows), longest), n_rows)


def _errors(prepared: Prepared, candidate: Candidate, rows: np.ndarray) -> StandardErrors:
    if candidate.faults:
        reason = f"the fit is degenerate: {'; '.join(candidate.faults)}"
        return without_errors(candidate.params, reason)
    steps = train_steps(prepared.table.steps, rows)
    window = dependent_rows(prepared.recipe, int(rows.sum()))
    threads = prepared.config.compute.threads
    X = np.compress(rows, prepared.X, axis=0)
    return standard_errors(candidate.params, X, steps, window, threads=threads)
