"""Requests to the REST server: every form gets the same answer, everything else one short line."""

import io
import json
import re

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.detector.files import RegimeFile
from hmm_exp.serving import rest
from hmm_exp.serving.answering import RegimeModel, RequestError
from hmm_exp.serving.mlflow_model import sample_bars
from hmm_exp.serving.rest import answer_text
from tests.small_detector import small_detector  # imports MLflow's server without its warnings

JSON, CSV = "application/json", "text/csv"
PARQUET = "application/vnd.apache.parquet"
MODEL = RegimeModel(small_detector())
BARS = sample_bars(small_detector())
TEXT = BARS.assign(timestamp=BARS["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
ROWS = TEXT.to_dict("records")
SPLIT = {"columns": list(TEXT), "data": TEXT.to_numpy().tolist()}
LISTS = TEXT.to_dict("list")
CSV_TEXT = TEXT.to_csv(index=False)


def as_json(**request: object) -> bytes:
    return json.dumps(request).encode()


def parquet(frame: pd.DataFrame) -> bytes:
    content = io.BytesIO()
    frame.to_parquet(content)
    return content.getvalue()


def refusal(body: bytes, kind: str | None = JSON) -> RequestError:
    """The error that answers a request, after what must hold of each."""
    with pytest.raises(RequestError) as caught:
        MODEL.answer(body, kind)
    line = json.loads(caught.value.serialize_as_json())["message"]
    assert line.isprintable()
    assert len(line) <= 300
    assert "send" in line
    assert not re.search(r"Traceback|\.py\b|data\.\w+=", line)
    return caught.value


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(as_json(dataframe_records=ROWS), JSON, id="records"),
        pytest.param(as_json(dataframe_split=SPLIT), JSON, id="split"),
        pytest.param(as_json(dataframe_split=SPLIT | {"index": [4]}), JSON, id="split, an index"),
        pytest.param(as_json(instances=ROWS), JSON, id="instances"),
        pytest.param(as_json(inputs=ROWS), JSON, id="inputs, rows"),
        pytest.param(as_json(inputs=LISTS), JSON, id="inputs, columns"),
        pytest.param(as_json(inputs=LISTS | {"unix": [1] * 61}), JSON, id="another column"),
        pytest.param(b"\xef\xbb\xbf" + as_json(inputs=LISTS), JSON, id="byte order mark"),
        pytest.param(as_json(inputs=LISTS), "Application/JSON; charset=UTF-8", id="charset"),
        pytest.param(CSV_TEXT.encode(), CSV, id="CSV"),
        pytest.param(CSV_TEXT.replace("\n", "\r\n").encode("utf-8-sig"), CSV, id="CSV of Windows"),
        pytest.param(TEXT.to_csv().encode(), CSV, id="CSV with row numbers"),
        pytest.param(parquet(BARS), PARQUET, id="Parquet"),
        pytest.param(parquet(BARS.set_index("timestamp")), PARQUET, id="Parquet, times as index"),
    ],
)
def test_every_form_of_a_request_gets_the_answer_of_the_detector(body, kind):
    assert MODEL.answer(body, kind) == answer_text(small_detector().filter(BARS))


def test_epochs_in_csv_are_times():
    seconds = BARS["timestamp"].dt.as_unit("s").astype("int64")
    body = BARS.assign(timestamp=seconds).to_csv(index=False).encode()
    assert MODEL.answer(body, CSV) == MODEL.answer(CSV_TEXT.encode(), CSV)


@pytest.mark.parametrize("late", [pd.Timedelta(0), pd.Timedelta(milliseconds=999)])
def test_an_answer_is_written_as_mlflow_writes_it(late):
    answer = small_detector().filter(BARS)
    answer["timestamp"] += late
    theirs = io.StringIO()
    mlflow.pyfunc.scoring_server.predictions_to_json(answer, theirs)
    ours, theirs = (
        json.loads(text)["predictions"] for text in (answer_text(answer), theirs.getvalue())
    )
    for one, other in zip(ours, theirs, strict=True):
        for name in ("timestamp", "available_at"):
            assert one[name].endswith("Z")
            assert pd.Timestamp(one.pop(name)) == pd.Timestamp(other.pop(name))
        assert one == other


def test_times_of_whole_seconds_have_no_fraction():
    first = json.loads(answer_text(small_detector().filter(BARS)))["predictions"][0]
    assert first["available_at"] == "2021-01-01T20:00:00Z"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "not JSON: Expecting value", id="empty"),
        pytest.param(b"close=5", "not JSON", id="a form"),
        pytest.param(CSV_TEXT.encode(), "not JSON", id="CSV"),
        pytest.param(b'{"inputs": ' + b"[" * 50_000, "nested too deeply", id="deep lists"),
        pytest.param(b'{"inputs": ' * 50_000, "nested too deeply", id="deep objects"),
        pytest.param(b'{"inputs": {"open": [%s]}}' % (b"7" * 4301), "4,300 digits", id="digits"),
        pytest.param(b'{"instances": "\xff"}', "not UTF-8: byte 0xff at 15", id="no UTF-8"),
        pytest.param('{"inputs": {}}'.encode("utf-16"), "not UTF-8", id="UTF-16"),
        pytest.param(b"null", "an object with one of the keys", id="null"),
        pytest.param(b"[{}]", "an object with one of the keys", id="a list"),
        pytest.param(as_json(messages=[]), "it has messages", id="a chat"),
        pytest.param(as_json(inputs=LISTS, params={}), "it has inputs, params", id="params"),
        pytest.param(as_json(inputs=LISTS, instances=ROWS), "and no other", id="two forms"),
        pytest.param(b'{"inputs": {}, "inputs": {}}', "'inputs' more than once", id="key twice"),
        pytest.param(
            b'{"instances": [{"close": 1, "close": 2}]}', "'close' more than once", id="cell twice"
        ),
        pytest.param(as_json(dataframe_records={}), "a list of objects", id="records, object"),
        pytest.param(as_json(dataframe_records=[]), "no rows", id="no records"),
        pytest.param(as_json(dataframe_records=[{}]), "no rows", id="empty record"),
        pytest.param(as_json(instances=[*ROWS, 5]), "data row 62 must be", id="record, number"),
        pytest.param(as_json(instances=SPLIT["data"]), "data row 1 must be", id="rows, no names"),
        pytest.param(as_json(dataframe_split=[]), "object of columns, data", id="split, list"),
        pytest.param(as_json(dataframe_split={"data": []}), "columns, data", id="split, no names"),
        pytest.param(
            as_json(dataframe_split=SPLIT | {"dtype": 1}), "columns, data", id="split, more"
        ),
        pytest.param(
            as_json(dataframe_split={"columns": [{}, []], "data": []}), "names", id="split, names"
        ),
        pytest.param(
            as_json(dataframe_split=SPLIT | {"data": [*SPLIT["data"], [1, 2]]}),
            "data row 62 must be a list of 6 values",
            id="split, short row",
        ),
        pytest.param(
            as_json(dataframe_split={"columns": ["close", "close"], "data": [[1, 2]]}),
            "no column named high, low",
            id="split, column twice",
        ),
        pytest.param(as_json(inputs=5), "inputs must be", id="inputs, number"),
        pytest.param(as_json(inputs={"close": 5}), "inputs must be", id="inputs, scalar"),
        pytest.param(as_json(inputs=LISTS | {"open": [1]}), "of one length", id="inputs, uneven"),
    ],
)
def test_json_that_is_no_request_is_refused(body, words):
    error = refusal(body)
    assert words in error.message
    assert error.status == 400


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("close", True, "close holds a value of type bool in data row 4"),
        ("close", {"a": []}, "close holds a value of type dict"),
        ("timestamp", [2021], "timestamp holds a value of type list"),
        ("volume", 10**400, "volume holds a number beyond 1e300"),
        ("timestamp", 10**400, "timestamp holds a number beyond 1e300"),
        ("timestamp", 10**25, "timestamp"),
        ("timestamp", "2300-01-01", "2300"),
        ("timestamp", "1500-01-01", "1500"),
        ("timestamp", "12:30", "unreadable timestamp, first '12:30'"),
        ("high", float("nan"), "a missing or infinite number, first high=nan"),
        ("high", float("inf"), "a missing or infinite number, first high=inf"),
        ("low", "cheap", "text instead of a number, first low=cheap"),
        ("low", "\x1b]0;\x07\r\n\u202e", r"first low=\x1b]0;\x07 \u202e at"),
        ("low", "y" * 3_000_000, "first low=yyy"),
        ("timestamp", "y" * 3_000_000, "first 'yyy"),
    ],
)
def test_a_cell_of_no_use_is_named_and_not_echoed(column, value, words):
    rows = [row | ({column: value} if i == 3 else {}) for i, row in enumerate(ROWS)]
    assert words in refusal(as_json(dataframe_records=rows)).message


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", CSV, "the body is empty"),
        (b"\n\n", CSV, "the body is empty"),
        (b"timestamp,open,high,low,close,volume\n", CSV, "no rows"),
        (CSV_TEXT.encode() + b"1,2\n", CSV, "not CSV: CSV parse error: Expected 6 columns, got 2"),
        (
            CSV_TEXT.replace(",", ";").encode(),
            CSV,
            "there are timestamp;open",
        ),
        (
            CSV_TEXT.replace("volume", "close").encode(),
            CSV,
            "2 columns are named close",
        ),
        (CSV_TEXT.replace("2021-01-02T", "2300-01-02T").encode(), CSV, "2300"),
        (BARS.assign(volume=True).to_csv(index=False).encode(), CSV, "volume holds values of type"),
        (b"timestamp,close\n\xe4,1\n", CSV, "not UTF-8: byte 0xe4 at 16"),
        (b"PAR1", PARQUET, "not Parquet"),
        (parquet(BARS)[:-40], PARQUET, "not Parquet"),
        (parquet(BARS.assign(close=BARS["timestamp"])), PARQUET, "close holds values of type date"),
        (parquet(BARS.assign(close=[[1.0]] * len(BARS))), PARQUET, "of type ndarray in data row 1"),
    ],
)
def test_tables_that_are_no_bars_are_refused(body, kind, words):
    error = refusal(body, kind)
    assert words in error.message
    assert error.status == 400


@pytest.mark.parametrize(
    "kind",
    [None, "", "application/xml", "a" * 5000, "text/\x1b[31m", "text/csv; charset=latin-1",
     "application/json; format=pandas-split"],
)  # fmt: skip
def test_other_content_types_are_refused_with_status_415(kind):
    error = refusal(CSV_TEXT.encode(), kind)
    assert error.get_http_status_code() == 415
    assert error.message.startswith("content type")


def test_more_rows_than_the_most_are_refused_with_status_413(monkeypatch):
    monkeypatch.setattr(rest, "MOST_ROWS", 60)
    for body, kind in (
        (as_json(dataframe_records=ROWS), JSON),
        (CSV_TEXT.encode(), CSV),
        (parquet(BARS), PARQUET),
    ):
        error = refusal(body, kind)
        assert error.get_http_status_code() == 413
        assert "61 rows, the most is 60: send the newest rows" in error.message
        assert "hmm-apply" in error.message


def test_a_larger_body_than_the_most_is_not_read(monkeypatch):
    monkeypatch.setattr(rest, "MOST_BYTES", 2**20)
    error = refusal(b"x" * (3 * 2**20))
    assert error.get_http_status_code() == 413
    assert "the body has 3 MB, the most is 1: send the newest rows" in error.message


def test_rows_with_a_name_each_do_not_widen_the_frame():
    rows = [{f"name {i}": i, "close": 1} for i in range(3000)]
    frame = rest.read_body(as_json(dataframe_records=rows), JSON, MODEL.detector.reads)
    assert list(frame.columns) == ["close"]


TOKENS = [
    b'"', b"[", b"{", b"}", b"]", b",", b":", b"null", b"true", b"NaN", b"-Infinity", b"1e999",
    b"9" * 4301, b"-" + b"9" * 330, b"2300", b"0000-", b"\xff", b"\x00", b"\r", b'"close"', b"[1]",
    b"{}", b"\x1b[31m", b"y" * 2000,
]  # fmt: skip
BODIES = {
    "records": (as_json(dataframe_records=ROWS), JSON),
    "split": (as_json(dataframe_split=SPLIT), JSON),
    "CSV": (CSV_TEXT.encode(), CSV),
    "Parquet": (parquet(BARS), PARQUET),
}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(BODIES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(TOKENS)), max_size=3),
)
def test_a_damaged_request_gets_an_answer_or_one_line(form, damages):
    body, kind = BODIES[form]
    for place, cut, token in damages:
        at = int(place * len(body))
        body = body[:at] + token + body[at + cut :]
    try:
        answer = json.loads(MODEL.answer(body, kind))["predictions"]
    except RequestError:
        refusal(body, kind)
    else:
        shares = np.array([[row["p_state_0"], row["p_state_1"]] for row in answer])
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("text/csv", CSV),
        ("Text/CSV; charset=utf-8", CSV),
        ("application/json, text/csv", JSON),
        ("application/json;q=0.5, text/csv;q=0.9", CSV),
        ("text/csv;q=0.2, application/json", JSON),
        ("text/csv, */*;q=0.1", CSV),
        ("text/csv;q=0", JSON),
        ("text/csv;q=1.2.3, text/html", JSON),
        ("", JSON),
    ],
)
def test_the_header_accept_decides_between_json_and_csv(accept, kind):
    assert rest.answer_kind(accept) == kind


def test_an_answer_as_csv_holds_the_numbers_and_times_of_the_answer_as_json():
    as_json = pd.DataFrame(json.loads(MODEL.answer(CSV_TEXT.encode(), CSV))["predictions"])
    text = MODEL.answer(CSV_TEXT.encode(), CSV, CSV)
    as_csv = pd.read_csv(io.StringIO(text))
    pd.testing.assert_frame_equal(as_csv, as_json, check_exact=True)


def test_an_answer_as_csv_is_written_as_hmm_apply_writes_it(tmp_path):
    answer = small_detector().filter(BARS).assign(in_training=True)
    with RegimeFile(tmp_path / "regimes.csv") as file:
        file.write(answer)
    assert answer_text(answer, CSV) == (tmp_path / "regimes.csv").read_text()
