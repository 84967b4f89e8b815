"""What a run shows on its test part, for the gate. Validation chose the run and is not shown."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.detector import Detector
from hmm_exp.experiment.persistence import find_visits, observed_dwell, occupancy
from hmm_exp.market.gaps import chain_steps
from hmm_exp.tracking.stored import read_regimes, read_scores


@dataclass(frozen=True, eq=False)
class Evidence:
    """A candidate as the gate sees it.

    Attributes
    ----------
    run
        Its record.
    detector
        What would be promoted.
    scores
        Test bars: index `available_at`; `model_score, static_score, ewma_score`, nats. Empty
        without base returns.
    trained_until
        Close of the last train bar; None where the run keeps no scores.
    states, steps
        Filtered state of every test row and chain steps from the row before, shape (T,).
    """

    run: Run
    detector: Detector
    scores: pd.DataFrame
    trained_until: pd.Timestamp | None
    states: np.ndarray
    steps: np.ndarray

    def gain(self, baseline: str) -> np.ndarray:
        """Gain over `static` or `ewma` on every test bar, nats, NaN where not scored."""
        if self.scores.empty:
            return np.empty(0)
        return (self.scores["model_score"] - self.scores[f"{baseline}_score"]).to_numpy()

    def occupancy(self) -> np.ndarray:
        """Share of the test rows in every state, shape (K,)."""
        return occupancy(self.states, self.detector.n_states)

    def dwell(self) -> np.ndarray:
        """Mean visit of every state on test, rows, shape (K,); NaN for one never visited."""
        return observed_dwell(find_visits(self.states, self.steps), self.detector.n_states)


def read_evidence(client: MlflowClient, run: Run, detector: Detector) -> Evidence:
    """Read what a run has stored, and keep its test part."""
    scores = read_scores(client, run.info.run_id)
    regimes = read_regimes(client, run.info.run_id)
    test = None if regimes is None else regimes[regimes["split"] == "test"].dropna()
    return Evidence(
        run=run,
        detector=detector,
        scores=pd.DataFrame() if scores is None else scores[scores["split"] == "test"],
        trained_until=None if scores is None else _trained_until(scores),
        states=np.empty(0, np.int64) if test is None else test["state"].to_numpy(np.int64),
        steps=np.empty(0, np.int64) if test is None else _steps(test, detector),
    )


def _trained_until(scores: pd.DataFrame) -> pd.Timestamp | None:
    train = scores.index[scores["split"] == "train"]
    return train[-1] if len(train) else None


def _steps(rows: pd.DataFrame, detector: Detector) -> np.ndarray:
    time = rows.index.to_numpy().view("int64")
    return chain_steps(time, detector.row_step.value, detector.gaps)
