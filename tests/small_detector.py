"""A detector of two plain states, made by hand, what its run shows, and a store to register it."""

import tempfile
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from hmm_exp.config import TrackingConfig
from hmm_exp.detector.detector import Detector
from hmm_exp.features.build import build_features
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.market.clean import bars_from_frame
from hmm_exp.market.options import ReadOptions
from hmm_exp.serving.mlflow_model import log_detector
from hmm_exp.store.store import Store, open_store
from hmm_exp.tracking import tags

with warnings.catch_warnings():  # of MLflow about itself, when it is first imported
    warnings.simplefilter("ignore")
    import mlflow.pyfunc.scoring_server
    import mlflow.store.tracking.sqlalchemy_store

MIN_HISTORY = 60


def small_detector(name: str = "synthetic", seed: int = 0) -> Detector:
    """Two states over the v1 features of hourly bars."""
    recipe = Recipe.of_set("v1", ["1H"])
    random = np.random.default_rng(seed)
    params = GaussianParams(
        startprob=np.array([0.5, 0.5]),
        transmat=np.array([[0.95, 0.05], [0.1, 0.9]]),
        means=np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]) + 0.1 * random.random((2, 3)),
        covars=np.array([[0.5, 1.0, 0.3], [2.0, 1.0, 0.8]]),
    )
    return Detector(
        recipe=recipe,
        scaler_mean=np.array([0.0, 0.0, 0.004]),
        scaler_scale=np.array([0.005, 0.5, 0.001]),
        params=params,
        labels=("calm", "turbulent"),
        step=pd.Timedelta(hours=1),
        reading=ReadOptions("open"),
        name=name,
        min_history=MIN_HISTORY,
        meta={"fingerprint": f"fp-{name}-{seed}", "train_end": "2021-01-13T12:00:00+00:00"},
    )


def ready_features(bars: pd.DataFrame) -> pd.DataFrame:
    """Ready feature rows of bars, for the small detector."""
    table = build_features(bars_from_frame(bars, ReadOptions("open")), small_detector().recipe)
    return table.frame.assign(timestamp=table.timestamp).reset_index(drop=True)


def store_in(folder: Path) -> Store:
    """A new SQLite store in a folder."""
    return open_store(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))


def shown_scores(gain: float = 0.05, over_ewma: float = 0.02, n_test: int = 600) -> pd.DataFrame:
    """Scores of a run: 300 train bars, 100 of validation, then test; gains in nats per bar."""
    n_bars = 400 + n_test
    model = np.random.default_rng(0).normal(3.0, 0.5, n_bars)
    wobble = np.random.default_rng(1).normal(0.0, 0.1, (2, n_bars))
    wobble -= wobble[:, 400:].mean(axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "available_at": pd.date_range("2021-01-01", periods=n_bars, freq="h"),
            "split": ["train"] * 300 + ["val"] * 100 + ["test"] * n_test,
            "model_score": model,
            "static_score": model - gain + wobble[0],
            "ewma_score": model - over_ewma + wobble[1],
        }
    )


def shown_regimes(states: np.ndarray | int | None = None, n_test: int = 600) -> pd.DataFrame:
    """Regimes of a run on the bars of `shown_scores`: visits of 40 rows by turns, unless given."""
    scores = shown_scores(n_test=n_test)
    by_turns = np.arange(len(scores)) // 40 % 2
    return scores[["available_at", "split"]].assign(state=by_turns if states is None else states)


def candidate(
    store: Store,
    detector: Detector,
    kind: str = "bars",
    *,
    scores: pd.DataFrame | None = None,
    regimes: pd.DataFrame | None = None,
    **more_tags: str,
) -> str:
    """A finished run that holds a detector and passes the gate unless told; gives its id."""
    identity = {
        tags.INSTRUMENT: detector.name,
        tags.DATA_KIND: kind,
        tags.FINGERPRINT: detector.meta["fingerprint"],
        tags.SWEEP_ID: "sweep-1",
        tags.CELL: "v1@1H diag K=2",
    }
    run_id = store.client.create_run(store.experiment_id, tags=identity | more_tags).info.run_id
    with tempfile.TemporaryDirectory() as folder:
        shown = shown_scores() if scores is None else scores
        shown.to_parquet(Path(folder) / "scores.parquet")
        rows = shown_regimes() if regimes is None else regimes
        rows.to_csv(Path(folder) / "regimes.csv", index=False)
        store.client.log_artifacts(run_id, folder)
    log_detector(store.experiment_id, run_id, detector)
    store.client.log_metric(run_id, "bic", 1234.5)
    store.client.set_terminated(run_id)
    return run_id


def forget_store() -> None:
    """Let MLflow look at its default store again."""
    mlflow.set_tracking_uri(None)
