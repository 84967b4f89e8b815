"""A pool through MLflow and back: same answers by symbol, no pickle, clear refusals."""

import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

import hmm_exp
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.errors import ModelError
from hmm_exp.serving.answering import RegimeModel
from hmm_exp.serving.load import find_detector
from hmm_exp.serving.mlflow_model import log_detector, sample_bars, smoke_test
from hmm_exp.serving.rest import CSV, JSON
from tests.small_detector import small_detector


@pytest.fixture(scope="module")
def pool() -> PooledDetector:
    return PooledDetector({name: small_detector(name) for name in ("BTC", "ETH", "600519")})


@pytest.fixture(scope="module")
def table(pool) -> pd.DataFrame:
    bars = [sample_bars(pool.of(name)).assign(symbol=name) for name in pool.symbols]
    return pd.concat(bars, ignore_index=True)


@pytest.fixture(scope="module")
def logged(store, pool):
    run_id = store.client.create_run(store.experiment_id).info.run_id
    model = log_detector(store.experiment_id, run_id, pool)
    store.client.set_terminated(run_id)
    return model


def test_mlflow_predicts_a_long_table_as_the_pool_does(logged, pool, table):
    model = mlflow.pyfunc.load_model(logged.model_uri)
    pd.testing.assert_frame_equal(model.predict(table), pool.filter(table))
    names = [column["name"] for column in model.metadata.signature.outputs.to_dict()]
    assert tuple(names) == pool.columns
    assert model.metadata.metadata["input"].startswith("symbol and timestamp with open, high")


def test_a_stored_pool_is_json_and_python(logged):
    folder = Path(logged.artifact_location.removeprefix("file://"))
    kinds = {path.suffix for path in (folder / "code").rglob("*") if path.is_file()}
    assert kinds == {".py"}
    assert [path.name for path in (folder / "data").iterdir()] == ["detector.json"]


def test_it_passes_its_smoke_test(logged, pool):
    assert smoke_test(logged.model_uri).symbols == pool.symbols


def test_it_is_loaded_from_the_registry_by_its_alias_and_its_stage(store, logged, pool):
    store.client.create_registered_model("hmm_regime.pool")
    version = store.client.create_model_version(
        "hmm_regime.pool", logged.model_uri, model_id=logged.model_id
    )
    store.client.set_registered_model_alias("hmm_regime.pool", "production", version.version)
    found = hmm_exp.load_detector("models:/hmm_regime.pool@production")
    assert isinstance(found, PooledDetector)
    assert found.to_dict() == pool.to_dict()
    with pytest.raises(ModelError, match="is one model of 3 symbols, and one detector is needed"):
        find_detector("models:/hmm_regime.pool@production")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CSV, lambda t: t.to_csv(index=False).encode()),
        (JSON, lambda t: json.dumps({"dataframe_records": plain(t)}).encode()),
        (JSON, lambda t: json.dumps({"inputs": plain(t, "list")}).encode()),
        (JSON, lambda t: json.dumps({"dataframe_split": t_split(t)}).encode()),
    ],
    ids=["csv", "records", "inputs", "split"],
)
def test_a_request_holds_a_column_of_symbols(pool, table, kind, body):
    answer = json.loads(RegimeModel(pool).answer(body(table), kind))["predictions"]
    expected = pool.filter(table)
    assert [row["symbol"] for row in answer] == expected["symbol"].tolist()
    assert [row["p_state_0"] for row in answer] == expected["p_state_0"].tolist()
    assert list(answer[0])[:3] == ["symbol", "timestamp", "available_at"]


def plain(table, form="records"):
    return table.assign(timestamp=table["timestamp"].astype(str)).to_dict(form)


def t_split(table):
    split = table.assign(timestamp=table["timestamp"].astype(str)).to_dict("split")
    return {name: split[name] for name in ("columns", "data")}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.drop(columns="symbol"), "0 columns named symbol"),
        (lambda t: t.assign(symbol="BTV"), "'BTV' is not in the pool of 3 trained symbols (did"),
        (lambda t: t.drop(columns="close"), "BTC: no column named close"),
        (lambda t: t.groupby("symbol").head(20), "BTC: 20 bars"),
        (lambda t: t.assign(high=t["low"] / 2), "BTC: 61 rows with high below low"),
        (lambda t: t.iloc[:0], "no symbol and no bars"),
    ],
)
def test_a_bad_request_is_one_line_with_what_to_send(pool, table, spoil, words):
    with pytest.raises(MlflowException) as caught:
        RegimeModel(pool).predict(spoil(table))
    text = caught.value.message
    assert words in text
    assert "send" in text
    assert "\n" not in text
    assert "data." not in text
    assert caught.value.get_http_status_code() == 400
