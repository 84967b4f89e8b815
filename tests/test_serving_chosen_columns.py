"""A model that was trained on chosen columns reads those columns wherever it serves."""

import contextlib
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from hmm_exp.detector.detector import Detector
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.synthetic import make_market
from hmm_exp.serving.answering import RegimeModel
from hmm_exp.serving.mlflow_model import sample_bars
from tests.small_detector import ready_features, small_detector

HOUR = pd.Timedelta(hours=1)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return sample_bars(small_detector())


@pytest.fixture(scope="module")
def features(bars) -> pd.DataFrame:
    return ready_features(bars)


def chosen_columns() -> Detector:
    """A model that was trained on a chosen column of times and one of volume."""
    reading = ReadOptions("open", timestamp_column="begin", volume_column="tradecount")
    return replace(small_detector(), reading=reading)


def test_chosen_columns_are_those_that_a_caller_sends():
    detector = chosen_columns()
    names = ("begin", "open", "high", "low", "close", "tradecount")
    assert tuple(sample_bars(detector)) == names
    assert detector.input_hint.startswith("begin with open, high, low, close, tradecount, or begin")
    assert len(RegimeModel(detector).predict(sample_bars(detector))) > 0


def test_a_chosen_column_is_never_replaced_by_the_usual_one(bars):
    model, own = RegimeModel(chosen_columns()), sample_bars(chosen_columns())
    decoys = own.assign(timestamp=own["begin"] + 5 * HOUR, volume=1.0, unix=0)
    pd.testing.assert_frame_equal(model.predict(decoys), model.predict(own))
    assert list(model.predict(own)["timestamp"])[-1] == own["begin"].iloc[-1]
    for name, usual in (("begin", "timestamp"), ("tradecount", "volume")):
        line = f"^{usual}_column={name}: no column of that name; .*; send .* tradecount"
        with pytest.raises(MlflowException, match=line):
            model.predict(own.rename(columns={name: usual}))


def test_ready_features_have_the_chosen_column_of_times(features):
    model = RegimeModel(chosen_columns())
    own = features.rename(columns={"timestamp": "begin"})
    expected = RegimeModel(small_detector()).predict(features)
    pd.testing.assert_frame_equal(model.predict(own), expected)
    with pytest.raises(
        MlflowException,
        match=r"^timestamp_column=begin: no column of that name",
    ):
        model.predict(features)


@pytest.mark.slow
def test_a_run_on_chosen_columns_serves_its_own_file(train_cli, workdir):
    bars = make_market(n_bars=1500).frame.reset_index(drop=True)
    counts = np.random.default_rng(0).poisson(np.where(bars.index // 150 % 2, 50, 5000))
    file = bars.assign(begin=bars["timestamp"], tradecount=counts + 1)
    file["timestamp"] += 7 * HOUR  # a decoy
    file.to_csv(workdir / "file.csv", index=False)
    words = "data=bars data.path=file.csv data.bar_stamp=open model.n_states=2 model.n_init=1"
    columns = "data.timestamp_column=begin data.volume_column=tradecount"
    done = train_cli(workdir, *words.split(), *columns.split(), "gate=off", "promote=true")
    assert done.returncode == 0, done.stderr

    with tracked_in(workdir):
        model = mlflow.pyfunc.load_model("models:/hmm_regime/Production")
    (record,) = workdir.glob("mlruns/*/artifacts/regimes.csv")
    ours, run = model.predict(file), pd.read_csv(record)
    assert list(ours["label"]) == list(run["label"])
    np.testing.assert_allclose(ours[["p_state_0"]], run[["p_state_0"]], rtol=0, atol=1e-6)
    assert list(ours["timestamp"]) == list(pd.to_datetime(run["timestamp"], utc=True))

    other = model.predict(file.assign(tradecount=file["volume"]))
    assert (ours["p_state_0"] - other["p_state_0"]).abs().max() > 0.1
    with pytest.raises(MlflowException, match=r"^volume_column=tradecount: no column"):
        model.predict(file.drop(columns="tradecount"))


@contextlib.contextmanager
def tracked_in(folder: Path):
    """MLflow looks at the store of a folder, then at the one before."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
