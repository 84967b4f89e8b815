"""A detector of two plain states, made by hand, and a store to register it in."""

import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from hmm_exp.config import TrackingConfig
from hmm_exp.detector import Detector
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.tracking import tags
from hmm_exp.tracking.serving import log_detector
from hmm_exp.tracking.store import Store, open_store

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
        stamp="open",
        gaps="split",
        name=name,
        min_history=MIN_HISTORY,
        meta={"fingerprint": f"fp-{name}-{seed}"},
    )


def store_in(folder: Path) -> Store:
    """A new SQLite store in a folder."""
    return open_store(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))


def candidate(store: Store, detector: Detector, kind: str = "bars", **more_tags: str) -> str:
    """A finished run that holds a detector; gives its id."""
    identity = {
        tags.INSTRUMENT: detector.name,
        tags.DATA_KIND: kind,
        tags.FINGERPRINT: detector.meta["fingerprint"],
        tags.SWEEP_ID: "sweep-1",
        tags.CELL: "v1@1H diag K=2",
    }
    run_id = store.client.create_run(store.experiment_id, tags=identity | more_tags).info.run_id
    log_detector(run_id, detector)
    store.client.log_metric(run_id, "bic", 1234.5)
    store.client.set_terminated(run_id)
    return run_id


def forget_store() -> None:
    """Let MLflow look at its default store again."""
    mlflow.set_tracking_uri(None)
