"""A detector through MLflow and back: same answers, no pickle, no checkout, clear complaints."""

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

import hmm_exp
from hmm_exp.errors import ModelError
from hmm_exp.serving.answering import _refusals
from hmm_exp.serving.mlflow_model import MODEL_NAME, RegimeModel, _source, log_detector, sample_bars
from hmm_exp.store.store import Store
from tests.small_detector import (
    MIN_HISTORY,
    candidate,
    ready_features,
    small_detector,
)

HOUR = pd.Timedelta(hours=1)

# Loads and predicts where `hmm_exp` cannot be imported but from the stored model.
STRANGER = """
import json, sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path[:] = [p for p in sys.path if p not in ("", {root!r})]
import importlib.util
spec = importlib.util.find_spec("hmm_exp")
if spec is not None and spec.origin is not None:  # an editable install leaves a folder with conf/
    sys.exit("the checkout can be imported")
import mlflow, pandas
mlflow.set_tracking_uri({store!r})
model = mlflow.pyfunc.load_model({uri!r})
regimes = model.predict(pandas.read_parquet({bars!r}))
import hmm_exp
print(json.dumps({{
    "p": regimes["p_state_0"].tolist(),
    "from": hmm_exp.__file__,
    "hydra": any(name.split(".")[0] == "hydra" for name in sys.modules),
    "min_history": hmm_exp.load_detector({uri!r}).min_history,
}}))
"""


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return sample_bars(small_detector())


@pytest.fixture(scope="module")
def served(store):
    """The detector as `mlflow.pyfunc.load_model` gives it."""
    run_id = candidate(store, small_detector())
    return mlflow.pyfunc.load_model(f"runs:/{run_id}/{MODEL_NAME}")


@pytest.fixture(scope="module")
def features(bars) -> pd.DataFrame:
    return ready_features(bars)


def test_the_loaded_model_answers_as_the_detector_does(served, bars):
    expected = small_detector().filter(bars)
    pd.testing.assert_frame_equal(served.predict(bars), expected)


def test_the_loaded_model_takes_names_in_any_case_and_times_as_index(served, bars):
    expected = small_detector().filter(bars)
    upper = bars.rename(columns=str.upper)
    pd.testing.assert_frame_equal(served.predict(upper), expected)
    pd.testing.assert_frame_equal(served.predict(upper.to_dict("list")), expected)
    pd.testing.assert_frame_equal(served.predict(upper.to_dict("records")), expected)
    indexed = served.predict(upper.set_index("TIMESTAMP"))
    assert list(indexed.index) == list(expected["timestamp"])
    pd.testing.assert_frame_equal(indexed.reset_index(drop=True), expected)


def test_feature_rows_give_what_their_bars_give(served, bars, features):
    expected = small_detector().filter(bars)
    got = served.predict(features)
    assert list(got["timestamp"]) == list(expected["timestamp"])
    np.testing.assert_allclose(got["p_state_0"], expected["p_state_0"], atol=1e-12)


@pytest.mark.parametrize(
    "as_sent",
    [
        pytest.param(lambda t: t.dt.strftime("%Y-%m-%dT%H:%M:%SZ"), id="text with a zone"),
        pytest.param(lambda t: t.dt.strftime("%Y-%m-%d %H:%M"), id="text without"),
        pytest.param(lambda t: t.dt.tz_localize(None), id="naive datetimes"),
        pytest.param(lambda t: t.dt.tz_convert("Asia/Tokyo"), id="another zone"),
        pytest.param(lambda t: t.astype("int64") // 10**9, id="epoch seconds"),
        pytest.param(lambda t: t.astype("int64") // 10**6, id="epoch milliseconds"),
    ],
)
def test_timestamps_may_have_any_usual_form(served, bars, as_sent):
    stamps = bars["timestamp"].dt.as_unit("ns")
    got = served.predict(bars.assign(timestamp=as_sent(stamps)))
    pd.testing.assert_frame_equal(got, served.predict(bars))


def test_whole_numbers_and_numbers_written_as_text_are_numbers(served, bars):
    whole = bars.assign(volume=np.arange(1, len(bars) + 1))
    text = whole.assign(volume=whole["volume"].astype(str))
    pd.testing.assert_frame_equal(served.predict(text), served.predict(whole))


def test_the_answer_can_be_sent_as_json(served, bars):
    text = io.StringIO()
    mlflow.pyfunc.scoring_server.predictions_to_json(served.predict(bars), text)
    first = json.loads(text.getvalue())["predictions"][0]
    names = ("timestamp", "available_at", "state", "label", "regime", "in_training")
    assert list(first) == [*names, "p_state_0", "p_state_1"]
    assert first["label"] in ("calm", "turbulent")
    assert first["in_training"] is True
    assert pd.Timestamp(first["available_at"]) - pd.Timestamp(first["timestamp"]) == HOUR


BAD_REQUESTS = [
    pytest.param(lambda f: f.drop(columns="close"), "no column named close", id="no close"),
    pytest.param(lambda f: f.drop(columns="timestamp"), "no column of times", id="no timestamp"),
    pytest.param(
        lambda f: f.assign(close=[None, *f["close"][1:]]),
        "1 row with a missing or infinite number, first close=",
        id="null",
    ),
    pytest.param(
        lambda f: f.assign(close=[np.nan, *f["close"][1:]]),
        "1 row with a missing or infinite number, first close=nan at 2021-01-01T00:00:00Z",
        id="NaN",
    ),
    pytest.param(
        lambda f: f.assign(close=["dear", *f["close"][1:]]),
        "1 row with text instead of a number, first close=dear at 2021-01-01T00:00:00Z",
        id="text",
    ),
    pytest.param(
        lambda f: f.assign(timestamp=[None, *f["timestamp"][1:]]),
        "1 unreadable timestamp",
        id="null timestamp",
    ),
    pytest.param(lambda f: f.assign(high=f["low"] / 2), "high below low", id="high below low"),
    pytest.param(lambda f: f.iloc[:0], "no rows", id="empty"),
    pytest.param(lambda f: pd.DataFrame({"price": [1.0]}), "no column named high", id="others"),
    pytest.param(lambda f: f.iloc[:20], "are too few: send at least 60", id="too short"),
    pytest.param(lambda f: f.iloc[::4], "bars come every 4H", id="other bars"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD_REQUESTS)
def test_a_bad_request_is_one_line_with_what_to_send(served, bars, spoil, words):
    with pytest.raises(MlflowException) as caught:
        served.predict(spoil(bars))
    text = caught.value.message
    assert words in text
    assert "send" in text
    assert "\n" not in text
    assert "data." not in text
    assert caught.value.get_http_status_code() == 400


def with_cell(frame: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """The frame with another value in the fourth row of a column, whatever its type."""
    cells = [*frame[column][:3], value, *frame[column][4:]]
    return frame.assign(**{column: pd.Series(cells, dtype=object)})


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("close", {"last": 5}, "column close holds a value of type dict in data row 4"),
        ("volume", [1, 2], "column volume holds a value of type list"),
        ("high", True, "column high holds a value of type bool"),
        ("low", 10**400, "column low holds a number beyond 1e300"),
        ("low", pd.Timestamp("2021-01-01"), "column low holds a value of type Timestamp"),
        ("timestamp", object(), "column timestamp holds a value of type object"),
        ("timestamp", "2300-01-01", "send at least 60 rows"),
        ("timestamp", 10**30, "send at least 60 rows"),
        ("high", "\x1b[31m" + "x" * 2_000_000, r"first high=\x1b[31mxxx"),
    ],
)
def test_a_cell_of_no_use_is_refused_in_a_short_line(served, bars, column, value, words):
    with pytest.raises(MlflowException) as caught:
        served.predict(with_cell(bars, column, value))
    assert words in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) <= 300
    assert caught.value.get_http_status_code() == 400


@pytest.mark.parametrize("kind", ["bool", "datetime64[ns]"])
def test_a_column_of_another_kind_is_refused(served, bars, kind):
    with pytest.raises(MlflowException, match="column volume holds values of type"):
        served.predict(bars.assign(volume=bars["volume"].astype("int64").astype(kind)))


@pytest.mark.parametrize("value", [None, np.nan, "dear", np.inf])
def test_a_feature_that_is_no_number_is_refused(served, features, value):
    column = small_detector().recipe.columns[1]
    spoilt = features.astype({column: object})
    spoilt.loc[3, column] = value
    with pytest.raises(MlflowException, match=f"first {column}=.*leave them out: send"):
        served.predict(spoilt)


def test_a_missing_feature_column_is_named(served, features):
    with pytest.raises(MlflowException, match="no column close_parkinson_20_1H: send timestamp"):
        served.predict(features.drop(columns="close_parkinson_20_1H"))


def test_the_server_cannot_lengthen_an_error(bars):
    with pytest.raises(MlflowException) as caught:
        RegimeModel(small_detector()).predict(bars.drop(columns="close"))
    caught.value.message = f"Failed to predict data '{bars}'"
    assert "\n" not in json.loads(caught.value.serialize_as_json())["message"]


def test_a_failure_of_the_machine_shows_no_path_and_is_not_the_callers():
    with pytest.raises(MlflowException) as caught, _refusals(small_detector()):
        Path("/no/such/folder").touch()
    assert caught.value.message == "the model failed: FileNotFoundError"
    assert caught.value.get_http_status_code() == 500
    assert "/no/such" not in caught.value.serialize_as_json()


def test_a_stored_model_is_json_and_python_and_lies_with_its_run(store: Store):
    run_id = store.client.create_run(store.experiment_id).info.run_id
    model = log_detector(store.experiment_id, run_id, small_detector())
    assert model.experiment_id == store.experiment_id
    assert model.status == "READY"
    assert store.client.get_run(run_id).outputs.model_outputs[0].model_id == model.model_id
    folder = Path(model.artifact_location.removeprefix("file://"))
    kinds = {path.suffix for path in (folder / "code").rglob("*") if path.is_file()}
    assert kinds == {".py"}
    assert [path.name for path in (folder / "data").iterdir()] == ["detector.json"]


def _is_typing(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _may_fail(block: ast.Try) -> bool:
    return any(isinstance(h.type, ast.Name) and h.type.id == "ImportError" for h in block.handlers)


def test_the_stored_source_imports_nothing_of_the_package_that_is_not_stored():
    stored = {name.removeprefix("code/hmm_exp/"): text for name, text in _source().items()}
    for name, content in stored.items():
        tree = ast.parse(content)
        typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and _is_typing(n.test)]
        typing += [n for n in ast.walk(tree) if isinstance(n, ast.Try) and _may_fail(n)]
        never_run = {id(inner) for block in typing for inner in ast.walk(block)}
        for node in ast.walk(tree):
            if id(node) in never_run:
                continue
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hmm_exp."):
                place = node.module.removeprefix("hmm_exp.").replace(".", "/")
                assert {f"{place}.py", f"{place}/__init__.py"} & set(stored), (name, node.module)


@pytest.mark.slow
def test_it_loads_where_the_checkout_cannot_be_imported(store: Store, bars, tmp_path):
    run_id = candidate(store, small_detector())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bars.to_parquet(elsewhere / "bars.parquet")
    program = STRANGER.format(
        root=str(Path(hmm_exp.__file__).parents[1]),
        store=store.uri,
        uri=f"runs:/{run_id}/{MODEL_NAME}",
        bars=str(elsewhere / "bars.parquet"),
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW"))}
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=elsewhere,
        env=clean | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["from"].endswith("/code/hmm_exp/__init__.py")
    assert not answer["hydra"]
    assert answer["min_history"] == MIN_HISTORY
    expected = small_detector().filter(bars)["p_state_0"]
    np.testing.assert_allclose(answer["p"], expected, atol=1e-12)


def test_a_detector_is_found_by_run_model_folder_and_file(store: Store, tmp_path):
    run_id = store.client.create_run(store.experiment_id).info.run_id
    model = log_detector(store.experiment_id, run_id, small_detector())
    file = tmp_path / "detector.json"
    small_detector().save(file)
    places = [
        f"runs:/{run_id}",
        f"runs:/{run_id}/{MODEL_NAME}",
        model.model_uri,
        model.artifact_location.removeprefix("file://"),
        tmp_path,
        str(file),
    ]
    for place in places:
        assert hmm_exp.load_detector(place).to_dict() == small_detector().to_dict()


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("models:/nothing/Production", "models:/nothing"),
        ("models:/nothing@production", "models:/nothing"),
        ("runs:/0a1b2c", "run 0a1b2c"),
        ("nowhere", "nowhere"),
    ],
)
def test_a_missing_model_is_one_line(store: Store, place, named):
    with pytest.raises(ModelError) as caught:
        hmm_exp.load_detector(place)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_looking_for_a_model_makes_no_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(ModelError, match="no tracking store at sqlite"):
        hmm_exp.load_detector("models:/hmm_regime/Production")
    assert list(tmp_path.iterdir()) == []


def test_the_package_is_light_until_something_is_asked_of_it():
    program = (
        "import sys, hmm_exp\n"
        "heavy = {'pandas', 'numba', 'mlflow', 'omegaconf'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'Detector', 'load_detector', '__version__'} <= set(dir(hmm_exp))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_only_the_server_reads_requests_in_its_own_way(served):
    assert mlflow.pyfunc.scoring_server.invocations.__module__ == "mlflow.pyfunc.scoring_server"
