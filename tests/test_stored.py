"""Stored detectors and streams: earlier formats go on, damage is refused in one line."""

import base64
import json
import os
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.damage import STRANGE, changed, judge
from hmm_exp.detector import Stream
from hmm_exp.detector.detector import Detector
from hmm_exp.detector.kernel import COUNT, EDGE, HEADER, LAST_BAR, LAST_ROW, N_BARS
from hmm_exp.errors import HmmExpError, ModelError
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.market.options import ReadOptions
from hmm_exp.stored.document import LARGEST, digest_of, write_document
from tests.live_detector import SHORT, gappy_bars, live_detector, part, records

FIRST_FORMAT = {
    "format": 1,
    "recipe": {
        "columns": ["close_logret_current_1H", "close_parkinson_5_4H"],
        "timeframes": ["1H", "4H"],
        "window": 5,
        "vwap_hours": 48.0,
    },
    "scaler_mean": [0.0001, 0.004],
    "scaler_scale": [0.005, 0.001],
    "params": {
        "covariance_type": "diag",
        "startprob": [1.0, 0.0],
        "transmat": [[0.95, 0.05], [0.1, 0.9]],
        "means": [[0.01, -0.5], [-0.02, 1.25]],
        "covars": [[0.5, 0.25], [2.0, 1.0]],
    },
    "labels": ["calm", "turbulent"],
    "step_seconds": 3600.0,
    "stamp": "open",
    "gaps": "split",
    "name": "live",
    "min_history": 40,
    "meta": {"fingerprint": "0a1b", "train_end": "2021-01-13T12:00:00+00:00", "refit": False},
}  # what versions before format 2 wrote


def of_first_format() -> Detector:
    """The detector that `FIRST_FORMAT` holds, made by hand."""
    stored = FIRST_FORMAT["params"]
    arrays = {name: np.array(stored[name]) for name in ("startprob", "transmat", "means", "covars")}
    return Detector(
        recipe=Recipe(("close_logret_current_1H", "close_parkinson_5_4H"), ("1H", "4H"), 5, 48.0),
        scaler_mean=np.array([0.0001, 0.004]),
        scaler_scale=np.array([0.005, 0.001]),
        params=GaussianParams(**arrays),
        labels=("calm", "turbulent"),
        step=pd.Timedelta(hours=1),
        reading=ReadOptions("open"),
        name="live",
        min_history=40,
        meta=FIRST_FORMAT["meta"],
    )


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def with_change(content, place, value):
    """Copy of a JSON object with another value at a dotted place; `...` takes it away."""
    content = json.loads(json.dumps(content))
    inside, (*names, last) = content, place.split(".")
    for name in names:
        inside = inside[name]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return content


@pytest.fixture(scope="module")
def bars():
    return gappy_bars(400, lost=0.0)


@pytest.fixture(scope="module")
def detector():
    return live_detector(Recipe.of_set("v1v2", ["1H", "4H"], **SHORT), covariance_type="full")


@pytest.fixture
def stream_file(detector, bars, tmp_path):
    detector.stream(part(bars, slice(302))).save(tmp_path / "stream.json")
    return tmp_path / "stream.json"


# --- formats


def test_a_detector_and_a_stream_carry_a_digest_of_everything_else(detector, stream_file, tmp_path):
    detector.save(tmp_path / "detector.json")
    for path in (tmp_path / "detector.json", stream_file):
        content = json.loads(path.read_text())
        digest = content.pop("digest")
        assert content["format"] == 2
        assert digest == digest_of(content)
        assert digest == digest_of(dict(reversed(content.items())))
        assert digest != digest_of(content | {"format": 1})
    assert Detector.load(tmp_path).to_dict() == detector.to_dict()


def test_a_detector_of_the_first_format_filters_and_streams_as_ever(bars, tmp_path):
    detector = Detector.load(write(tmp_path / "detector.json", FIRST_FORMAT))
    assert detector.to_dict() == of_first_format().to_dict()
    answer = detector.filter(bars)
    assert answer.equals(of_first_format().filter(bars))
    stream = detector.stream(part(bars, slice(300)))
    assert [stream.update(bar) for bar in records(part(bars, slice(300, None)))][-1].probs == tuple(
        answer.filter(like="p_state_").to_numpy()[-1]
    )


def test_a_stream_of_the_first_format_goes_on_with_the_same_bits(bars, tmp_path):
    detector = of_first_format()
    stream = detector.stream(part(bars, slice(300)))
    stored = stream.to_dict()
    model = {k: v for k, v in FIRST_FORMAT.items() if k not in ("format", "meta")}
    write(tmp_path / "stream.json", stored | {"format": 1, "model": model})
    later = Stream.load(tmp_path / "stream.json")
    for bar in records(part(bars, slice(300, None))):
        known = [regime._replace(in_training=None) for regime in stream.update_all(bar)]
        assert later.update_all(bar) == known  # the first format has no end of training
    later.save(tmp_path / "stream.json")
    assert json.loads((tmp_path / "stream.json").read_text())["format"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "0" * 64}, "its format is 1 but it has a digest"),
        ({"digest": None}, "its format is 1 but it has a digest"),
        ({"reading": ReadOptions("open").to_dict()}, "reading is unknown"),
        ({"format": 2}, "not what its digest was made of"),
        ({"format": 3}, "detector format 3: this version reads 1 and 2"),
        ({"format": True}, "format True"),
        ({"format": "2"}, "format 2: this version reads"),
    ],
)
def test_a_file_that_mixes_formats_is_refused(tmp_path, change, message):
    path = write(tmp_path / "detector.json", FIRST_FORMAT | change)
    with pytest.raises(ModelError, match=message):
        Detector.load(path)


# --- fields, whatever the digest says

FIELDS = [
    ("recipe", [], "recipe is .*: must be a JSON object"),
    ("recipe.columns", "close", "recipe.columns is 'close': must be distinct texts"),
    ("recipe.columns", ["a", "a"], "must be distinct"),
    ("recipe.columns", ["close_logret_current_2H"], "unknown feature column"),
    ("recipe.timeframes", ["1H", "1 hour"], "unknown timeframe '1 hour'"),
    ("recipe.timeframes", ["1H", "4H", "999999999999999D"], "recipe: "),
    (
        "recipe",
        {
            "columns": ["close_logret_current_999D", "close_parkinson_5_999D"],
            "timeframes": ["999D"],
            "window": 5,
            "vwap_hours": 1e5,
        },
        "recipe.timeframes holds 999D: the longest bar is of 366 days",
    ),
    ("recipe.window", 5.0, "recipe.window is 5.0: must be a whole number, at least 2"),
    ("recipe.window", 10**9, "at least 2 and at most 100000"),
    ("recipe.vwap_hours", 1e99, "above 0 and at most 100000"),
    ("recipe.vwap_hours", 1e300, "must be a number above 0, at most 1e"),
    ("recipe.vwap_hours", 0, "recipe.vwap_hours is 0: must be a number above 0"),
    ("recipe.windows", 5, "recipe.windows is unknown"),
    ("scaler_mean", [0.0], "scaler_mean has 1 numbers: must have 2"),
    ("scaler_mean", [0.0, None], "scaler_mean .*: must be finite numbers"),
    ("scaler_scale", [0.005, 0.0], "scaler_scale is .*: must be above 0"),
    ("scaler_scale", [0.005, -1], "scaler_scale is .*: must be above 0"),
    ("scaler_scale", [0.005, 1e-320], "scaler_scale is .*: must be above 0"),
    ("scaler_mean", [1e308, 0.0], "scaler_mean .*: must be finite numbers"),
    ("scaler_scale", [[0.005, 0.001]], "scaler_scale has 1 x 2 numbers: must have 2"),
    ("params.covars", [[0.5, 0.25], [2.0, 0.0]], "a variance is not positive"),
    ("params.means", [[0.0], [1.0]], "covars has shape"),
    ("params.covariance_type", "round", "unknown covariance type 'round'"),
    ("params.transmat", [[0.95, 0.06], [0.1, 0.9]], "not made of distributions"),
    ("params.transmat", [[1.0, 0.0], [0.0, 1.0]], "more than one stationary"),
    ("params.startprob", [1.5, -0.5], "not made of distributions"),
    ("labels", ["calm"], "labels is .*: must be 2, one for each state"),
    ("labels", ["calm", "calm"], "must be distinct"),
    ("labels", ["calm", ""], "of 1 to 100 printable"),
    ("labels", ["calm", 1], "must be distinct texts"),
    ("labels", ["calm", "\x1b[31m"], "printable"),
    ("labels", ["calm", "x" * 101], "of 1 to 100"),
    ("step_seconds", 0, "step_seconds is 0: must be a number above 0"),
    ("step_seconds", 0.5, "must be a whole number of seconds"),
    ("step_seconds", 1e18, "at most 366 days"),
    ("step_seconds", 7000, "1H must be a whole multiple of it"),
    ("step_seconds", "3600", "must be a number"),
    ("min_history", 39.5, "must be a whole number"),
    ("min_history", 3, "min_history is 3: must be a whole number, at least"),
    ("min_history", True, "must be a whole number"),
    ("name", None, "name is None: must be a text"),
    ("name", "x" * 5000, "at most 1000 characters"),
    ("meta", None, "meta is None: must be a JSON object"),
    ("meta.train_end", "soon", "meta.train_end is 'soon': must be an ISO time"),
    ("meta.refit", 1, "meta.refit is 1: must be true or false"),
    ("meta.fingerprint", 5, "meta.fingerprint is 5: must be a text"),
    ("promise", [], "promise is .*: must be a JSON object"),
    ("surprise", 1, "surprise is unknown"),
    ("labels", ..., "labels is missing"),
    ("params.means", ..., "params.means is missing"),
]
IN_FORMAT_1 = [
    ("stamp", "middle", "data.bar_stamp is 'middle'"),
    ("stamp", ..., "stamp is missing"),
    ("gaps", ["split"], "gaps is .*: must be a text"),
]
ERRORS = {"level": 0.95, "window": 1, "reason": "", "error": [0.1] * 12, "robust": [0.0] * 12}
IN_FORMAT_2 = [
    ("reading.bar_stamp", "middle", "data.bar_stamp is 'middle'"),
    ("reading.timezone", "Mars/Olympus", "data.timezone is 'Mars/Olympus'"),
    ("reading.timezone", [], "reading.timezone is .*: must be a text"),
    ("reading.bad_rows", "keep", "data.bad_rows is 'keep'"),
    ("reading.volume_column", 5, "reading.volume_column is 5: must be a text"),
    ("reading.volume_column", ..., "reading.volume_column is missing"),
    ("reading.encoding", "utf-8", "reading.encoding is unknown"),
    ("promise", ..., "promise is missing"),
    ("standard_errors", [], "standard_errors is .*: must be a JSON object"),
    ("standard_errors", ERRORS | {"level": 1}, "level is 1: must be below 1"),
    ("standard_errors", ERRORS | {"window": 0}, "window is 0: must be a whole number"),
    ("standard_errors", ERRORS | {"error": [0.1]}, "error has 1 numbers: must have 12"),
    ("standard_errors", ERRORS | {"robust": [-0.1] * 12}, "must hold no number below 0"),
    ("standard_errors", ERRORS, None),
    ("meta", {}, None),
    ("promise", {"first": 1}, None),
    ("meta.note", "anything", None),
]


@pytest.mark.parametrize(("place", "value", "message"), FIELDS + IN_FORMAT_1)
def test_a_wrong_field_of_the_first_format_is_refused_by_name_and_rule(
    tmp_path, place, value, message
):
    path = write(tmp_path / "detector.json", with_change(FIRST_FORMAT, place, value))
    with pytest.raises(ModelError, match=message) as caught:
        Detector.load(path)
    assert str(caught.value).startswith(f"{path} is a damaged detector: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("place", "value", "message"), FIELDS + IN_FORMAT_2)
def test_a_wrong_field_is_refused_though_its_digest_is_right(tmp_path, place, value, message):
    path = tmp_path / "detector.json"
    write_document(path, with_change(of_first_format().to_dict(), place, value))
    if message is None:
        assert Detector.load(path).labels == ("calm", "turbulent")
        return
    with pytest.raises(ModelError, match=message):
        Detector.load(path)


def test_a_model_of_ready_features_may_have_timeframes_that_are_no_multiples(tmp_path):
    recipe = Recipe(
        ("close_logret_current_30min", "close_logret_current_45min"), ("30min", "45min")
    )
    detector = live_detector(recipe, step="30min")
    detector.save(tmp_path / "detector.json")
    assert Detector.load(tmp_path).recipe == recipe


def test_what_is_no_json_cannot_be_saved_and_leaves_no_file(detector, tmp_path):
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises(ModelError, match="cannot be saved"):
            replace(detector, meta=detector.meta | {"note": value}).save(tmp_path / "detector.json")
    assert list(tmp_path.iterdir()) == []


# --- files

NO_DETECTORS = {
    "list": (b"[]", "no JSON object"),
    "null": (b"null", "no JSON object"),
    "number": (b"7", "no JSON object"),
    "empty": (b"", "no JSON object"),
    "table": (b"timestamp,open,high,low,close,volume", "no JSON object"),
    "half": (b'{"format": 2, "recipe"', "damaged detector"),
    "latin-1": (b'{"name": "M\xfcnchen"}', "can't decode"),
    "zero inside": (b'{"name": "\0"}', "Invalid control character"),
    "byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "utf-16": ('{"format": 2}'.encode("utf-16"), "a binary file"),
    "deep": (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "more than 20 levels deep"),
    "rather deep": (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "more than 20 levels deep"),
    "long number": (b'{"format": ' + b"9" * 5000 + b"}", "a whole number of 5,000 characters"),
    "NaN": (b'{"format": NaN}', "NaN is not finite"),
    "infinity": (b'{"format": -Infinity}', "-Infinity is not finite"),
    "beyond": (b'{"format": 1e999}', "1e999 is not finite"),
    "twice": (b'{"format": 2, "format": 2}', "'format' is there twice"),
    "zeros": (b"\0" * 1000, "a binary file"),
    "pickle": (b"\x80\x04\x95\x00\x00", "a pickle, which is never loaded"),
    "zip": (b"PK\x03\x04\x14\x00", "a zip archive"),
    "gzip": (b"\x1f\x8b\x08\x00", "a gzip file"),
    "parquet": (b"PAR1\x15\x04", "a Parquet file"),
    "onnx": (b"\x08\x07\x12\x07skl2onnx\xff", "a binary file"),
}


@pytest.mark.parametrize("name", NO_DETECTORS)
@pytest.mark.parametrize("load", [Detector.load, Stream.load])
def test_a_file_of_something_else_is_one_line(tmp_path, name, load):
    content, message = NO_DETECTORS[name]
    path = tmp_path / "stored"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load(path)
    line = str(caught.value)
    assert (
        message.replace("detector", "saved stream" if load == Stream.load else "detector") in line
    )
    assert line.startswith(str(path))
    assert line.isprintable()


@pytest.mark.parametrize("load", [Detector.load, Stream.load])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, load):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 30)
    places = {
        tmp_path / "pipe": "a pipe or a device",
        tmp_path / "huge": f"more than {LARGEST:,}",
        "/dev/zero": "a pipe or a device",
        tmp_path / "nothing": "^no ",
        tmp_path: "no detector at|Is a directory",
    }
    for path, message in places.items():
        with pytest.raises(ModelError, match=message):
            load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_one_line(tmp_path):
    path = write(tmp_path / "detector.json", FIRST_FORMAT)
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        Detector.load(path)


# --- memories of a stream


def with_array(stream_file, name, place, value):
    """Put a number into an array of a saved stream, and sign it."""
    content = json.loads(stream_file.read_text())
    del content["digest"]
    kind = np.int64 if name == "clock" else np.float64
    array = np.frombuffer(base64.b64decode(content[name]), kind).copy()
    array[place] = value
    content[name] = base64.b64encode(array.tobytes()).decode()
    write_document(stream_file, content)


FOUR = HEADER + 4  # the 4H timeframe's part of the clock
K, WINDOW_STATE = 3, 3 + 5 + 10  # states; where the windows of 1H begin in the memory
MEMORY = [
    ("clock", N_BARS, -1, "clock: the number of bars"),
    ("clock", N_BARS, 0, "a stream without bars"),
    ("clock", N_BARS, 5, "the windows"),
    ("clock", LAST_BAR, 0, "last_bar|last row"),
    ("clock", LAST_BAR, np.iinfo(np.int64).max, "the time of the last bar"),
    ("clock", LAST_ROW, np.iinfo(np.int64).max, "the time of the last row"),
    ("clock", HEADER + COUNT, 1, "clock of 1H"),
    ("clock", FOUR + COUNT, -1, "clock of 4H"),
    ("clock", FOUR + COUNT, 10**12, "clock of 4H"),
    ("clock", FOUR + EDGE, 12345, "clock of 4H"),
    ("memory", 0, np.nan, "memory: the probabilities"),
    ("memory", 0, -0.1, "memory: the probabilities"),
    ("memory", 1, 0.999, "memory: the probabilities"),
    ("memory", WINDOW_STATE, 6.0, "memory of 1H: the windows"),
    ("memory", WINDOW_STATE + 2, 1e12, "memory of 1H: the windows"),
    ("memory", WINDOW_STATE + 3, 0.5, "memory of 1H: the windows"),
    ("memory", WINDOW_STATE + 6, 1e6, "memory of 1H: the windows"),
    ("memory", WINDOW_STATE + 6, -1.0, "memory of 1H: the windows"),
    ("memory", WINDOW_STATE + 8, -1.0, "memory of 1H: the windows"),
    ("memory", WINDOW_STATE + 8, np.nan, "memory of 1H: the windows"),
]


@pytest.mark.parametrize(("name", "place", "value", "message"), MEMORY)
def test_a_memory_that_no_stream_can_have_is_refused(stream_file, name, place, value, message):
    with_array(stream_file, name, place, value)
    with pytest.raises(ModelError, match=message):
        Stream.load(stream_file)


STREAM_FIELDS = [
    ("memory", "", "memory does not fit its model: 0 bytes"),
    ("memory", "a", "memory is no base64"),
    ("clock", "AAAA", "clock does not fit its model: 3 bytes"),
    ("clock", 5, "clock is 5: must be a text"),
    ("missing", "skip", "missing is 'skip'"),
    ("last_bar", "2021-01-01 00:00:00+00:00", "last_bar is .*: the clock has"),
    ("model.labels", ["a"], "must be 3, one for each state"),
    ("model.reading.gaps", "none", "data.gaps is 'none'"),
    ("model.recipe.vwap_hours", 24.0, "does not fit its model"),
    ("model.meta", {}, "model.meta is unknown"),
]


@pytest.mark.parametrize(("place", "value", "message"), STREAM_FIELDS)
def test_a_saved_stream_with_a_wrong_field_is_refused(stream_file, place, value, message):
    content = json.loads(stream_file.read_text())
    del content["digest"]
    write_document(stream_file, with_change(content, place, value))
    with pytest.raises(ModelError, match=message):
        Stream.load(stream_file)


@pytest.mark.parametrize("gaps", ["split", "bridge"])
def test_every_state_that_a_stream_can_have_is_loaded(tmp_path, gaps):
    detector = live_detector(Recipe.of_set("v1v2", ["1H", "4H", "1D"], **SHORT), gaps=gaps)
    stream = detector.stream(missing="gap")
    for bar in records(gappy_bars(250, gaps=gaps, lost=0.2)):
        stream.save(tmp_path / "stream.json")
        assert Stream.load(tmp_path / "stream.json").to_dict() == stream.to_dict()
        stream.update(bar)


def test_a_stream_of_nine_features_goes_on_as_before(detector, bars, tmp_path):
    """Streams saved before the log range was a feature hold one value fewer a timeframe."""
    stream = detector.stream(part(bars, slice(302)))
    content = stream.to_dict()
    memory = np.frombuffer(base64.b64decode(content["memory"]), np.float64)
    place, kept = detector.n_states, np.ones(len(memory), bool)
    for timeframe in detector.recipe.timeframes:
        windows = 6 * detector.recipe.window + 2 * (detector.recipe.vwap_window(timeframe) + 2)
        kept[place + 5 + 9] = False
        place += 5 + 10 + 7 + windows
    assert place == len(memory)
    content["memory"] = base64.b64encode(memory[kept].tobytes()).decode()
    write_document(tmp_path / "stream.json", content)
    older = Stream.load(tmp_path / "stream.json")
    for bar in records(part(bars, slice(302, 330))):
        assert older.update(bar) == stream.update(bar)


# --- damage by chance


@pytest.mark.parametrize("kind", ["detector", "stream"])
def test_no_damaged_copy_with_another_content_is_accepted(kind, detector, stream_file, tmp_path):
    detector.save(tmp_path / "detector.json")
    where = {
        "detector": (tmp_path / "detector.json", Detector.load, Detector.to_dict),
        "stream": (stream_file, Stream.load, Stream.to_dict),
    }
    outcomes, faults = judge(*where[kind], n_cases=300)
    assert faults == []
    assert outcomes["refused"] > 250


def outcome(action):
    """What an action gives, or the line of its refusal."""
    try:
        return action()
    except HmmExpError as error:
        return str(error)


def signed_copies(good, n_copies, seed):
    """Copies of a JSON object with one other value, in the first format or under a right digest."""
    chance = random.Random(seed)
    for _ in range(n_copies):
        content = changed(good, chance)
        try:
            yield content if good["format"] == 1 else content | {"digest": digest_of(content)}
        except ValueError:  # a number that is not finite has no digest
            continue


@pytest.mark.parametrize("form", [1, 2])
def test_a_copy_that_no_digest_betrays_is_refused_or_gives_probabilities(form, bars, tmp_path):
    good = FIRST_FORMAT if form == 1 else of_first_format().to_dict()
    loaded = 0
    for content in signed_copies(good, 300, seed=form):
        path = write(tmp_path / "detector.json", content)
        answer = outcome(lambda path=path: Detector.load(path).filter(bars))
        if isinstance(answer, str):
            assert answer.isprintable()
            continue
        loaded += 1
        probs = answer.filter(like="p_state_").to_numpy()
        assert np.abs(probs.sum(axis=1) - 1).max() < 1e-9
    assert 0 < loaded < 150


def test_a_state_that_no_digest_betrays_is_refused_or_goes_on(detector, bars, stream_file):
    good = json.loads(stream_file.read_text())
    del good["digest"]
    (bar,) = records(part(bars, slice(302, 303)))
    array = np.frombuffer(base64.b64decode(good["memory"]), np.float64)
    numbers = [value for value in STRANGE if isinstance(value, float)]
    chance = random.Random(0)
    for _ in range(150):
        other = array.copy()
        other[chance.randrange(len(other))] = chance.choice(numbers)
        content = good | {"memory": base64.b64encode(other.tobytes()).decode()}
        write_document(stream_file, content)
        answer = outcome(lambda: Stream.load(stream_file).update(bar))
        if isinstance(answer, str):
            assert answer.isprintable()
        else:
            assert abs(sum(answer.probs) - 1) < 1e-9
