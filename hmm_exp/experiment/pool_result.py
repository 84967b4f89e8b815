"""Judge a pooled model on every symbol, and compare it with the models of each.

    result = run_pool(pool, own_scores)
    print(result.comparison.sentence)
    result.detector.of("BTC").filter(bars)

Every symbol is judged as a single run is: the pooled model filters the symbol's own scaled
features, the densities of its next return are fitted on its own train, and gains are those on its
validation and test.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from hmm_exp.detector.detector import Detector
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.errors import FitError, HmmExpError
from hmm_exp.experiment.build import build_detector
from hmm_exp.experiment.candidate import measure
from hmm_exp.experiment.fits import Fits, Progress
from hmm_exp.experiment.pool import Pool, PoolFits, fit_pool
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.result import RunResult
from hmm_exp.experiment.run import judged, one_thread
from hmm_exp.judge.pool import AgainstOwn, PanelMean, PoolComparison, against_own
from hmm_exp.judge.return_forecasts import GAINS, SCORES
from hmm_exp.uncertainty.estimates import without_errors

OwnScores = Callable[[str], pd.DataFrame | None]
_PARTS = ("val", "test")
# Means over symbols by name, and the score that is taken off that of the model.
_SERIES = {"return_score": "", **dict(zip(GAINS, (f"{b}_score" for b in SCORES[1:]), strict=True))}
_NO_ERRORS = "symbols of a pool share time, so their rows are no independent evidence"


@dataclass(frozen=True, eq=False)
class PoolResult:
    """Result of a pool.

    Attributes
    ----------
    fits
        All numbers of states tried, and the one chosen.
    detector
        The detector that is promoted and served: of all symbols that could be judged.
    comparison
        The model against the models of each symbol, on validation.
    metrics
        By flat name, all finite. Gains, such as `return_gain_val` and its `_error, _bound, _low,
        _high`, are means over symbols, see `judge.pool`.
    scores
        Scores of validation and test in the mean over symbols, as those of a run: `available_at`
        (UTC without a zone), `split`, `model_score`, `static_score` and so on, nats. Differences of
        two columns are the gains of `metrics` by instant.
    """

    fits: PoolFits
    detector: PooledDetector
    comparison: PoolComparison
    metrics: dict[str, float]
    scores: pd.DataFrame

    @property
    def left_out(self) -> dict[str, str]:
        """Symbols that are not in the pool or were not judged, and why."""
        return self.fits.pool.left_out


def run_pool(
    pool: Pool,
    own_scores: OwnScores,
    visit: Callable[[str, RunResult], None] = lambda symbol, result: None,
    progress: Progress = lambda text: None,
) -> PoolResult:
    """Fit a pool, judge it on every symbol, and compare it with the models of each.

    Parameters
    ----------
    pool
        The train rows of all symbols.
    own_scores
        Scores of a symbol's own model, as `tracking.read.read_scores` gives them; None without one.
    visit
        Called with every symbol and its result, which is not kept.
    progress
        Called with a few words at the start of every stage.

    Raises
    ------
    FitError
        No number of states can be fitted, or no symbol can be judged.
    """
    with one_thread():
        judge = _Judge(fit_pool(pool, progress), own_scores, visit)
        comparison = PoolComparison.of(judge.each(progress))
    return judge.result(comparison)


def pooled_result(fits: PoolFits, symbol: str, prepared: Prepared) -> RunResult:
    """Result of the pooled model on a symbol, with the symbol's detector.

    Faults are those of the pool. Raises FitError as `run`.
    """
    chosen = measure(prepared, fits.chosen.fit, prepared.train)
    chosen = replace(chosen, criteria={}, faults=fits.chosen.faults)
    single = Fits(
        candidates=[chosen],
        chosen=chosen,
        fitted=prepared,
        refit=None,
        scaler=prepared.scaler,
        season=prepared.season,
        null={"bic": np.nan},
        selection=fits.selection,
        warnings=[],
    )
    detector = build_detector(single)
    meta = detector.meta | {"fingerprint": fits.pool.fingerprint}
    detector = replace(detector, name=symbol, labels=fits.labels, meta=meta)
    errors = without_errors(chosen.params, _NO_ERRORS)
    return judged(prepared, single, detector, (errors, errors))


class _Judge:
    """Judges the symbols one by one, and gathers what is kept of them."""

    def __init__(
        self, fits: PoolFits, own_scores: OwnScores, visit: Callable[[str, RunResult], None]
    ) -> None:
        self._fits, self._own_scores, self._visit = fits, own_scores, visit
        self._means = {pair: PanelMean() for pair in product(_PARTS, _SERIES)}
        self._detectors: dict[str, Detector] = {}

    def each(self, progress: Progress) -> Iterator[AgainstOwn]:
        """Judge every symbol; one that cannot be judged is left out by name."""
        pool = self._fits.pool
        for number, (symbol, prepared) in enumerate(pool.again(), 1):
            progress(f"judging {symbol}, {number:,} of {len(pool.symbols):,}")
            try:
                result = pooled_result(self._fits, symbol, prepared)
            except HmmExpError as error:
                pool.left_out[symbol] = str(error)
                continue
            self._detectors[symbol] = result.detector
            self._visit(symbol, result)
            if (scores := _by_time(result)) is not None:
                self._add_gains(scores)
                yield against_own(symbol, scores, self._own_scores(symbol))

    def _add_gains(self, scores: pd.DataFrame) -> None:
        for part, name in product(_PARTS, _SERIES):
            rows = scores[scores["split"] == part]
            gain = rows["model_score"] - (rows[_SERIES[name]] if _SERIES[name] else 0.0)
            self._means[part, name].add(gain)

    def result(self, comparison: PoolComparison) -> PoolResult:
        """The result of all symbols. Raises FitError without one."""
        fits = self._fits
        if not self._detectors:
            first = next(iter(fits.pool.left_out.items()))
            raise FitError(f"no symbol can be judged: {': '.join(first)}")
        metrics = fits.chosen.metrics(fits.pool.config.state_grid)
        metrics["log_lik_train"] = fits.chosen.log_lik["train"]
        metrics["n_symbols"] = len(self._detectors)
        for (part, name), mean in self._means.items():
            if estimate := mean.estimate():
                metrics |= estimate.metrics(f"{name}_{part}")
        return PoolResult(
            fits=fits,
            detector=PooledDetector(self._detectors),
            comparison=comparison,
            scores=pd.concat([self._scores(part) for part in _PARTS], ignore_index=True),
            metrics={name: float(value) for name, value in metrics.items() if np.isfinite(value)},
        )

    def _scores(self, part: str) -> pd.DataFrame:
        """Scores of a part in the mean over symbols."""
        model, *gains = (self._means[part, name].series() for name in _SERIES)
        columns = {column: model - gain for column, gain in zip(SCORES[1:], gains, strict=True)}
        named = {f"{column}_score": score for column, score in columns.items()}
        table = pd.DataFrame({"split": part, "model_score": model, **named})
        return table.rename_axis("available_at").reset_index()


def _by_time(result: RunResult) -> pd.DataFrame | None:
    """Scores of a symbol by `available_at` in UTC without a zone, as a store gives them."""
    scores = result.assessment.scores
    if scores is None:
        return None
    time = pd.DatetimeIndex(scores["available_at"]).tz_convert(None).as_unit("ns")
    return scores.set_index(time)
