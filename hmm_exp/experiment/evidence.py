"""How sure the figures of a model are, and what speaks against it.

Gains on the yardstick and of the variance forecast with their errors, forecast pseudo-residuals by
effect size, and on a planted market the delay of detection. Nothing here changes what is chosen
inside a run.
"""

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.experiment.delay import detection_delay, named_as_planted
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.residuals import rejections, residual_effects
from hmm_exp.experiment.significance import gain_metrics
from hmm_exp.experiment.split import TEST, TRAIN, VAL
from hmm_exp.experiment.track import SCORES, VARIANCES, Track, most_probable
from hmm_exp.experiment.variance import next_parkinson, variance_gains, variance_losses
from hmm_exp.experiment.yardstick import per_bar

RETURN = "next_return"


def evidence(prepared: Prepared, track: Track) -> dict[str, float]:
    """Metrics by flat names; what does not exist is left out."""
    return {
        **_gains(prepared, track),
        **_variance(prepared, track),
        **_residuals(prepared, track),
        **_delay(prepared, track),
    }


def residual_series(prepared: Prepared, track: Track) -> dict[str, np.ndarray]:
    """Pseudo-residuals out of sample by name: features of rows, then the next return of bars."""
    later = (prepared.part == VAL) | (prepared.part == TEST)
    columns = zip(prepared.recipe.columns, track.residuals[later].T, strict=True)
    series = dict(columns)
    if track.bars is not None:
        bars = (prepared.target_part == VAL) | (prepared.target_part == TEST)
        series[RETURN] = track.bars["return_residual"].to_numpy()[bars]
    return {name: z for name, z in series.items() if np.isfinite(z).any()}


def residual_objections(prepared: Prepared, track: Track) -> list[str]:
    """Give what the residuals of the next return reject, in words.

    Those of rolling features remember their window whatever the model, so they only inform.
    """
    z = residual_series(prepared, track).get(RETURN)
    effects = None if z is None else residual_effects(z)
    return [] if effects is None else rejections(RETURN, effects)


def _gains(prepared: Prepared, track: Track) -> dict[str, float]:
    if track.bars is None:
        return {}
    values = per_bar(track.bars)
    gains = {name: values[name] for name in ("return_gain", "ewma_gain")}
    return gain_metrics(gains, prepared.target_part)


def _variance(prepared: Prepared, track: Track) -> dict[str, float]:
    """QLIKE gains against the squared return and, with bars, against the Parkinson range.

    A forecast's level is fitted on train bars; a walk, which has said nothing there, has none.
    """
    returns, source = prepared.source.next_return, prepared.source
    if track.bars is None or returns is None:
        return {}
    proxies = {"": returns**2}
    if source.bars is not None:
        frame = source.bars.frame
        high, low = frame["high"].to_numpy(), frame["low"].to_numpy()
        proxies["parkinson_"] = next_parkinson(high, low, returns)
    shapes = track.bars[VARIANCES].set_axis(SCORES, axis=1)
    train = prepared.target_part == TRAIN
    metrics: dict[str, float] = {}
    for proxy, values in proxies.items():
        try:
            losses = variance_losses(shapes, values, train)
        except FitError:
            continue
        gains = {f"{proxy}{name}": gain for name, gain in variance_gains(losses).items()}
        metrics |= gain_metrics(gains, prepared.target_part)
    return metrics


def _residuals(prepared: Prepared, track: Track) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, z in residual_series(prepared, track).items():
        effects = residual_effects(z)
        if effects is not None:
            metrics |= effects.metrics(name)
    if RETURN in residual_series(prepared, track):
        metrics["residuals_reject"] = float(bool(residual_objections(prepared, track)))
    return metrics


def _delay(prepared: Prepared, track: Track) -> dict[str, float]:
    """Bars from a planted switch to the label that follows it."""
    bars = prepared.source.bars
    if bars is None or bars.states is None:
        return {}
    found = most_probable(track.bar_probs)
    delay = detection_delay(bars.states, named_as_planted(bars.states, found))
    return delay.metrics()
