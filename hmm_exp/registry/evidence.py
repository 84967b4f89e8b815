"""Evidence for the gate: the candidate's results on test, and the champion.

Validation selected the candidate, so its gains there are biased and not used.
"""

from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.detector.detector import Detector
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.errors import ModelError
from hmm_exp.judge.states import find_visits, observed_dwell, occupancy
from hmm_exp.judge.unscored import why_no_gain
from hmm_exp.market.gaps import chain_steps
from hmm_exp.registry.versions import Champion
from hmm_exp.serving.load import load_single
from hmm_exp.serving.mlflow_model import smoke_test
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import read_regimes, read_scores, unscored_of


class NotJudged(Exception):  # noqa: N818  a result, not an error
    """The run cannot be judged; the message is the reason."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A candidate's results on test."""

    run: Run  # its MLflow run
    detector: Detector | PooledDetector  # the model to promote
    labels: tuple[str, ...]  # its own labels, before any were kept from a champion
    # Test bars: index `available_at`; `model_score, static_score, ewma_score` and those of other
    # baselines, nats. Empty without base returns.
    scores: pd.DataFrame
    trained_until: pd.Timestamp | None  # close of the last train bar; None if the run has no scores
    # `states`, `steps`: filtered state of every test row and chain steps since the previous row,
    # shape (T,); empty of a pool, whose rows are not recorded.
    states: np.ndarray
    steps: np.ndarray

    def gain(self, baseline: str) -> np.ndarray:
        """Gain over a baseline, such as `static`, on every test bar, nats, NaN if not scored."""
        if f"{baseline}_score" not in self.scores:  # the run is of an earlier version
            return np.empty(0)
        return (self.scores["model_score"] - self.scores[f"{baseline}_score"]).to_numpy()

    def why_no_gain(self, baseline: str) -> str | None:
        """Why the gain over a baseline is unknown; None if it is known."""
        return why_no_gain(unscored_of(self.run), baseline)

    def lacks(self, baseline: str) -> bool:
        """Whether the run's data allow no such baseline on any test bar."""
        scored = np.isfinite(self.gain(baseline)).any()
        return baseline in unscored_of(self.run) and not scored

    def occupancy(self) -> np.ndarray:
        """Share of test rows in every state, shape (K,)."""
        return occupancy(self.states, self.detector.n_states)

    def dwell(self) -> np.ndarray:
        """Mean dwell time of every state on test, rows, shape (K,); NaN if never visited."""
        return observed_dwell(find_visits(self.states, self.steps), self.detector.n_states)


@dataclass(frozen=True, eq=False)
class Incumbent:
    """The champion that a candidate would replace."""

    champion: Champion  # its version
    # The model in Production; None if it fails its smoke test.
    detector: Detector | PooledDetector | None


def read_evidence(client: MlflowClient, run: Run) -> Evidence:
    """Read the test results of a run.

    Raises NotJudged if the run is not finished, or has no model that passes its smoke test.
    """
    detector = _working_detector(run)
    scores = read_scores(client, run)
    train = None if scores is None else scores.index[scores["split"] == "train"]
    regimes = read_regimes(client, run)
    test = None
    if regimes is not None and isinstance(detector, Detector):
        test = regimes[regimes["split"] == "test"].dropna()
    return Evidence(
        run=run,
        detector=detector,
        labels=_own_labels(run, detector),
        scores=pd.DataFrame() if scores is None else scores[scores["split"] == "test"],
        trained_until=None if train is None or train.empty else train[-1],
        states=np.empty(0, np.int64) if test is None else test["state"].to_numpy(np.int64),
        steps=_steps(test, detector),
    )


def read_incumbent(champion: Champion) -> Incumbent:
    """Load the champion's model."""
    try:
        return Incumbent(champion, smoke_test(champion.uri))
    except ModelError:
        return Incumbent(champion, None)


def model_id(run: Run) -> str | None:
    """Id of the last model logged by a run, None without one."""
    models = _models(run)
    return models[-1] if models else None


def _models(run: Run) -> list[str]:
    """Ids of the models of a run by time. All but the first have kept labels: see `labels.py`."""
    models = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
    if len(models) < 2:
        return models
    return sorted(models, key=lambda model: mlflow.get_logged_model(model).creation_timestamp)


def _own_labels(run: Run, detector: Detector | PooledDetector) -> tuple[str, ...]:
    models = _models(run)
    return detector.labels if len(models) < 2 else load_single(f"models:/{models[0]}").labels


def _working_detector(run: Run) -> Detector | PooledDetector:
    """Detector of a finished run, after a smoke test. Raises NotJudged."""
    if run.info.lifecycle_stage != "active":
        raise NotJudged("the run is deleted")
    if run.info.status != "FINISHED":
        why = run.data.tags.get(tags.STATUS_REASON)
        raise NotJudged(f"the run is {run.info.status}" + (f": {why}" if why else ""))
    if not model_id(run):
        raise NotJudged("the run holds no model")
    try:
        return smoke_test(f"models:/{model_id(run)}")
    except ModelError as error:
        raise NotJudged(str(error)) from None


def _steps(rows: pd.DataFrame | None, detector: Detector | PooledDetector) -> np.ndarray:
    if rows is None or isinstance(detector, PooledDetector):
        return np.empty(0, np.int64)
    time = rows.index.to_numpy().view("int64")
    return chain_steps(time, detector.row_step.value, detector.gaps)
