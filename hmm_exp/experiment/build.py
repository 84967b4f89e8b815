"""The detector of a run: build it from the chosen fit, add its baseline, tabulate its regimes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from hmm_exp.detector.detector import Detector
from hmm_exp.experiment.assess import ModelOutput, baselines_of
from hmm_exp.experiment.decided import burn_in_rows, decision_of
from hmm_exp.experiment.fits import Fits
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.source import read_options
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.posterior import Posterior
from hmm_exp.hmm.rows import largest_column
from hmm_exp.hmm.states import posterior_spread
from hmm_exp.judge.naming import Traits, state_names, state_traits
from hmm_exp.judge.split import part_names
from hmm_exp.judge.states import raw_means
from hmm_exp.market.bars import OHLCV
from hmm_exp.market.iso import iso
from hmm_exp.monitor.expectations import Observations, Observed, make_expectations, with_gaps


def build_detector(fits: Fits) -> Detector:
    """Detector of the served model, without a monitoring baseline."""
    prepared, served = fits.fitted, fits.served
    refitted = fits.refit is not None
    # Columns of the file that were read as times, prices and volume; of features the times.
    read = prepared.source.report.get("columns", {})
    train_end = prepared.split.val_end if refitted else prepared.split.train_end
    detector = Detector(
        recipe=prepared.recipe,
        scaler_mean=np.array(fits.scaler.mean_),
        scaler_scale=np.array(fits.scaler.scale_),
        params=served.params,
        labels=state_labels(fits),
        step=prepared.base_step,
        reading=read_options(prepared.config.data),
        name=prepared.source.name,
        min_history=0,
        season=fits.season,
        decision=decision_of(prepared),
        train_end=train_end,
        meta={
            "fingerprint": prepared.fingerprint,
            "train_end": iso(train_end),
            "refit": refitted,
            "columns": {role: read[role] for role in ("timestamp", *OHLCV) if role in read},
        },
    )
    assert served.posterior is not None
    return replace(detector, min_history=_min_history(prepared, detector, served.posterior))


def state_labels(fits: Fits) -> tuple[str, ...]:
    """Labels of a run's states: one set for all refits of a walk, or for fit and refit.

    They depend on train rows alone.
    """
    if fits.walk:
        models = [(refit.candidate.params, refit.scaler) for refit in fits.walk.refits]
    else:
        models = [(fits.chosen.params, fits.fitted.scaler), (fits.served.params, fits.scaler)]
    ordered_by = _ordered_by(fits)
    titles = fits.fitted.recipe.titles
    traits = [traits_of(params, scaler, titles, ordered_by) for params, scaler in models]
    return state_names(*traits, n_states=fits.served.n_states)


def _ordered_by(fits: Fits) -> int | np.ndarray | None:
    """Column of the volatility, or the spread of returns by state on train, or nothing."""
    prepared, posterior = fits.fitted, fits.served.posterior
    if prepared.volatility is not None or prepared.row_return is None or posterior is None:
        return prepared.volatility
    train = prepared.train
    return posterior_spread(posterior.filtered.probs[train], prepared.row_return[train])


def traits_of(
    params: GaussianParams,
    scaler: StandardScaler,
    titles: Sequence[str],
    ordered_by: int | np.ndarray | None,
) -> Traits:
    """Words for states of about equal volatility, by features in the units of a scaler."""
    spread = np.sqrt(np.diagonal(params.covariances(), axis1=1, axis2=2)) * scaler.scale_
    means = raw_means(params.means, scaler.mean_, scaler.scale_)
    return state_traits(means, spread, titles, ordered_by)


def with_expectations(detector: Detector, fits: Fits, output: ModelOutput) -> Detector:
    """Add the monitoring baseline; it is empty where there is too little data.

    The densities of the next return come from `output`, that of the chosen fit or walk; the last
    model of a walk and a refit have their own fitted.
    """
    prepared, posterior = fits.fitted, fits.served.posterior
    assert posterior is not None
    densities = observed = None
    if fits.walk is None and fits.refit is None and output.densities is not None:
        baselines = baselines_of(prepared)
        assert baselines is not None
        assert output.bars is not None
        densities = (output.densities, baselines)
        observed = Observed(
            log_lik=with_gaps(output.log_lik, prepared.table.less(prepared.season)),
            expected=output.predicted,
            probs=output.probs,
            score=output.bars["model"].to_numpy(),
            known=output.bar_probs,
        )
    expectations = make_expectations(
        detector.params,
        Observations(
            prepared.table.less(detector.season),
            posterior.filtered,
            prepared.source.time,
            prepared.series,
        ),
        (prepared.split.train_start, pd.Timestamp(detector.meta["train_end"])),
        densities,
        observed,
    )
    return replace(detector, expectations=expectations.to_dict() if expectations else {})


def regime_table(prepared: Prepared, detector: Detector, fits: Fits) -> pd.DataFrame:
    """Rows of `regimes.csv`: filtered regimes first, then smoothed and Viterbi states.

    Rows of a walk are out of sample, so not in training, filtered only, with the number of their
    fit; those of the last block are the detector's own answers otherwise.
    """
    posterior, walk = fits.served.posterior, fits.walk
    assert posterior is not None
    probs = walk.output.probs if walk else posterior.filtered.probs
    decided = walk.output.regimes if walk else detector.decider().advance(probs)
    regimes = detector.regimes(prepared.table, probs, decided=decided)
    regimes.insert(2, "split", part_names(prepared.part))
    if walk:
        regimes["in_training"] = False
        regimes["refit"] = walk.refit_of_row
        return regimes[walk.output.has_probs].reset_index(drop=True)
    regimes["state_smoothed"] = largest_column(posterior.smoothed.probs)
    regimes["state_viterbi"] = posterior.decoded.states
    return regimes


def _min_history(prepared: Prepared, detector: Detector, posterior: Posterior) -> int:
    """Base bars an answer needs: feature warm-up, and burn-in counted in bars of the row grid."""
    burn = burn_in_rows(prepared, posterior)
    bars_per_row = max(1, round(detector.row_step / detector.step))
    return detector.recipe.warmup(detector.step) + burn * bars_per_row
