"""A model registered by an earlier version of the package still loads, filters and predicts.

`registered_before/` is such a model without its copy of the package, so that MLflow looks in
today's package for the loader that the model names. `expected.csv` holds every twentieth row of the
prediction that was made when the model was registered.
"""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from hmm_exp import load_detector
from hmm_exp.market.synthetic import make_market

MODEL = Path(__file__).parent / "registered_before"
NAME = "hmm_regime"


@pytest.fixture
def registered(workdir):
    """URI of the model in a store of its own."""
    uri = f"sqlite:///{workdir}/mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    client.create_registered_model(NAME)
    version = client.create_model_version(NAME, source=str(MODEL))
    yield f"models:/{NAME}/{version.version}"
    mlflow.set_tracking_uri(before)


def test_it_predicts_what_it_predicted_when_it_was_registered(registered):
    bars = make_market(n_bars=4000, n_regimes=3, seed=11).frame
    expected = pd.read_csv(MODEL / "expected.csv", parse_dates=["timestamp", "available_at"])
    predicted = mlflow.pyfunc.load_model(registered).predict(bars.reset_index(drop=True))
    filtered = load_detector(registered).filter(bars)
    for regimes in (predicted, filtered):
        rows = regimes.set_index("available_at").loc[expected["available_at"]]
        assert list(rows["state"]) == list(expected["state"])
        assert list(rows["label"]) == list(expected["label"])
        probs = ["p_state_0", "p_state_1"]
        np.testing.assert_allclose(rows[probs], expected[probs], rtol=1e-9)
