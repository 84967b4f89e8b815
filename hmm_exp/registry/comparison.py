"""Compare a candidate with the champion on bars that neither was fitted on.

These are the candidate's test bars after the champion's training. The champion is scored again
there: it filters the candidate's data, and its next-return densities are fitted on the candidate's
train bars, like the candidate's. Without the data, the scores stored by the champion's run are
used, on shared timestamps.

The comparison is a test of non-inferiority (Piaggio, Elbourne, Pocock, Evans & Altman 2012, JAMA
308): a retrain need not be better than the champion, but it must be shown to be at most a margin
worse. The candidate passes if the lower confidence bound of its gain is above minus the margin.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient

from hmm_exp.detector.detector import Detector
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.errors import HmmExpError, one_line
from hmm_exp.experiment.source import Source
from hmm_exp.judge.gains import LEVEL, MIN_BARS, bound_multiplier, hac_error
from hmm_exp.judge.return_forecasts import fit_return_densities, known_at_close
from hmm_exp.market.bars import step_in_words
from hmm_exp.registry.evidence import Evidence, Incumbent
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import read_data, read_scores


class NotCompared(Exception):  # noqa: N818  a result, not an error
    """A fair comparison is impossible; the message is the reason."""


@dataclass(frozen=True)
class Comparison:
    """Mean gain of the candidate over the champion, nats per bar, and its HAC standard error."""

    n_bars: int
    gain: float
    error: float
    level: float = LEVEL  # one-sided, of `low` and of `high`

    @property
    def low(self) -> float:
        """Lower confidence bound of the gain."""
        return self.gain - bound_multiplier(self.n_bars, self.level) * self.error

    @property
    def high(self) -> float:
        """Upper confidence bound of the gain."""
        return self.gain + bound_multiplier(self.n_bars, self.level) * self.error


def compare(
    client: MlflowClient,
    evidence: Evidence,
    incumbent: Incumbent,
    fewest: int,
    level: float = LEVEL,
) -> Comparison:
    """Compare the candidate's test scores with the champion's.

    Raises NotCompared for another market, without scores, or with fewer than `fewest` common bars.
    """
    rival = _rival(evidence, incumbent)
    needed, most, failed = max(fewest, MIN_BARS), 0, ""
    for score in (
        lambda: _new_scores(client, evidence, rival),
        lambda: _stored_scores(client, incumbent.champion.run_id),
    ):
        try:
            rival_scores = score()
        except HmmExpError as error:  # it reads other columns, needs more history, or has no fit
            failed = one_line(error)
            continue
        gain = _gain(evidence.scores["model_score"], rival_scores)
        if len(gain) >= needed:
            return Comparison(len(gain), float(gain.mean()), hac_error(gain), level)
        most = max(most, len(gain))
    if failed and not most:
        raise NotCompared(f"it cannot be scored on the candidate's data: {failed}")
    raise NotCompared(
        f"{most:,} test bars lie after the training of both and are scored by both, at least "
        f"{needed:,} are needed"
    )


def _rival(evidence: Evidence, incumbent: Incumbent) -> Detector:
    """The champion's detector, if it is comparable with the candidate. Raises NotCompared."""
    rival = incumbent.detector
    if rival is None:
        raise NotCompared("it fails its smoke test")
    if isinstance(rival, PooledDetector) or isinstance(evidence.detector, PooledDetector):
        raise NotCompared("pools are compared with the models of each symbol on validation")
    if not same_market(evidence.run.data.tags, incumbent.champion.tags):
        raise NotCompared("it is of another market")
    if evidence.scores.empty or evidence.scores["model_score"].isna().all():
        raise NotCompared(evidence.why_no_gain("model") or "the run has no scores on test")
    if rival.step != evidence.detector.step:
        theirs, ours = step_in_words(rival.step), step_in_words(evidence.detector.step)
        raise NotCompared(f"it forecasts bars of {theirs}, not of {ours}")
    return rival


def same_market(mine: dict[str, str], theirs: dict[str, str]) -> bool:
    """Whether two tag sets name the same instrument and, if synthetic, the same data."""
    if tags.INSTRUMENT not in mine or mine[tags.INSTRUMENT] != theirs.get(tags.INSTRUMENT):
        return False
    made_up = "synthetic" in (mine.get(tags.DATA_KIND), theirs.get(tags.DATA_KIND))
    return not made_up or mine.get(tags.DATA_DIGEST) == theirs.get(tags.DATA_DIGEST)


def _gain(mine: pd.Series, theirs: pd.Series) -> np.ndarray:
    return (mine - theirs.reindex(mine.index)).dropna().to_numpy()


def _new_scores(client: MlflowClient, evidence: Evidence, rival: Detector) -> pd.Series:
    """Scores of the champion on the candidate's data, after its own training.

    Raises HmmExpError if the champion cannot be scored there.
    """
    source = read_data(client, evidence.run.info.run_id)
    end = rival.meta.get("train_end")
    if source is None or source.next_return is None or end is None or not evidence.trained_until:
        return _no_scores()
    time = source.time.tz_convert(None).as_unit("ns")
    probs = _known_states(rival, source)
    on_train = np.where(time <= evidence.trained_until, source.next_return, np.nan)
    scores = fit_return_densities(probs, on_train).log_score(probs, source.next_return)
    return pd.Series(scores, index=time)[time >= pd.Timestamp(end).tz_convert(None)]


def _known_states(rival: Detector, source: Source) -> np.ndarray:
    """Filtered probabilities known at every base close, NaN before the first, shape (N, K)."""
    data = source.frame if source.bars is None else source.bars
    assert data is not None
    regimes = rival.filter(data)
    row_time = pd.DatetimeIndex(regimes["available_at"]).as_unit("ns").asi8
    probs = regimes.filter(like="p_state_").to_numpy()
    return known_at_close(source.time.as_unit("ns").asi8, row_time, probs)


def _stored_scores(client: MlflowClient, run_id: str | None) -> pd.Series:
    """Out-of-sample scores stored by the champion's run."""
    scores = read_scores(client, run_id) if run_id else None
    if scores is None:
        return _no_scores()
    return scores.loc[scores["split"].isin(("val", "test")), "model_score"]


def _no_scores() -> pd.Series:
    return pd.Series(index=pd.DatetimeIndex([]), dtype=np.float64)
