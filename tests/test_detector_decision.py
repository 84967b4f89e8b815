"""The decided regime: by its rule, from the past alone, alike in batch, stream, pipe and file."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exp.detector import Detector, Stream
from hmm_exp.detector.decision import Decision
from hmm_exp.detector.files import Newest, RowStream
from hmm_exp.detector.pipe import RegimeLines, names_in, resumed
from hmm_exp.errors import ConfigError, ModelError
from hmm_exp.features.build import build_features
from hmm_exp.features.recipe import Recipe
from hmm_exp.stored.document import write_document
from tests.live_detector import SHORT, gappy_bars, live_detector, part, records
from tests.reference import decided

RULES = [
    Decision("argmax"),
    Decision("hysteresis", enter=0.6, leave=0.3),
    Decision("hysteresis", enter=0.4, leave=0.1),
    Decision("hysteresis"),
    Decision("min_bars", min_bars=1),
    Decision("min_bars", min_bars=3),
]
RECIPE = Recipe.of_set("v1", ["1H"], **SHORT)
by_every_rule = pytest.mark.parametrize("decision", RULES, ids=str)


def probabilities(seed: int, n_states: int, n_rows: int, noise: float) -> np.ndarray:
    """Probabilities that wander, so that states stay the most probable for some rows."""
    random = np.random.default_rng(seed)
    walk = np.cumsum(random.normal(size=(n_rows, n_states)), axis=0)
    weights = np.exp(walk + noise * random.normal(size=walk.shape))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def bars():
    return gappy_bars(900)


def test_hysteresis_keeps_the_regime_until_it_is_left_and_another_entered():
    rows = [[0.95, 0.05], [0.3, 0.7], [0.08, 0.92], [0.6, 0.4], [0.89, 0.11], [0.91, 0.09]]
    decider = Decision("hysteresis", enter=0.9, leave=0.1).decider(2)
    assert decider.advance(np.array(rows)).tolist() == [0, 0, 1, 1, 1, 0]


def test_hysteresis_of_three_states_needs_both_thresholds():
    rows = [[0.0, 0.95, 0.05], [0.5, 0.05, 0.45], [0.75, 0.2, 0.05], [0.85, 0.05, 0.1]]
    decider = Decision("hysteresis", enter=0.7, leave=0.1).decider(3)
    assert decider.advance(np.array(rows)).tolist() == [1, 1, 1, 0]


def test_min_bars_waits_for_as_many_rows_in_a_row():
    top = np.array([0, 0, 0, 1, 1, 0, 1, 1, 1, 0])
    decider = Decision("min_bars", min_bars=3).decider(2)
    assert decider.advance(np.eye(2)[top]).tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, 1, 1]


@given(
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.sampled_from(RULES),
    st.integers(1, 30),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_it_equals_every_possible_past_one_by_one_in_any_chunks(seed, K, decision, burn_in, cuts):
    probs = probabilities(seed, K, 60, 2.0)
    decider = decision.decider(K, burn_in)
    chunks = np.split(probs, sorted(cuts))
    ours = np.concatenate([decider.advance(chunk) for chunk in chunks])
    theirs = decided(decision, probs, burn_in)
    assert ours.tolist() == theirs
    assert decider.regime == theirs[-1]


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from(RULES))
def test_no_cut_contradicts_the_whole(seed, K, decision):
    probs = probabilities(seed, K, 80, 1.0)
    whole = decision.decider(K).advance(probs)
    for cut in range(80):
        lookback = decision.decider(K).advance(probs[cut:])
        known = lookback >= 0
        np.testing.assert_array_equal(lookback[known], whole[cut:][known])
        if known.any():
            assert known[known.argmax() :].all()


@by_every_rule
def test_a_lookback_of_bars_never_contradicts_the_long_file(decision):
    bars = gappy_bars(2000, lost=0.0)
    detector = live_detector(RECIPE, decision=decision)
    detector = replace(detector, min_history=RECIPE.warmup(detector.step) + 120)
    whole = detector.filter(bars).set_index("available_at")
    n_known = 0
    for first in range(0, 1600, 37):
        ours = detector.filter(part(bars, slice(first, None))).set_index("available_at")
        settled = ours.iloc[detector.min_rows - 1 :]
        known = (settled if decision.rule == "argmax" else ours).query("regime >= 0")
        np.testing.assert_array_equal(known["regime"], whole.loc[known.index, "regime"])
        n_known += len(known)
    assert n_known > 5000


@by_every_rule
@pytest.mark.parametrize("timeframes", [["1H"], ["4H", "12H"]], ids=str)
def test_stream_extend_and_rows_decide_as_the_batch(bars, decision, timeframes):
    detector = live_detector(Recipe.of_set("v1", timeframes, **SHORT), decision=decision)
    batch = detector.filter(bars)
    assert len(batch["regime"].unique()) > 1
    stream = detector.stream(missing="gap")
    one_by_one = [r.to_dict() for bar in records(bars) for r in stream.update_all(bar)]
    rows = pd.DataFrame(one_by_one).drop(columns="probs")
    later = batch["available_at"] >= rows["available_at"].iloc[0]
    pd.testing.assert_frame_equal(rows, batch[later].reset_index(drop=True), check_exact=True)
    assert stream.latest.regime == batch["regime"].iloc[-1]
    table = build_features(bars, detector.recipe)
    ready = table.frame.assign(timestamp=table.timestamp)
    from_rows, of_rows = RowStream(detector.stream().model), Newest()
    answers = [from_rows.extend(ready.iloc[:333]), from_rows.extend(ready.iloc[333:])]
    for answer in answers:
        of_rows.see(answer)
    assert np.concatenate([a["regime"] for a in answers]).tolist() == list(batch["regime"])
    changed = batch["regime"].ne(batch["regime"].shift())
    assert of_rows.regime_since == batch["available_at"][changed].iloc[-1]


@by_every_rule
def test_another_future_changes_no_regime(bars, decision):
    detector = live_detector(RECIPE, decision=decision)
    before = detector.filter(bars)
    for cut in (200, 431, 700):
        other = bars.frame.copy()
        other.loc[other.index[cut:], ["open", "high", "low", "close"]] *= 3.0
        other.loc[other.index[cut:], "volume"] = 0.0
        after = detector.filter(replace(bars, frame=other))
        past = before["available_at"] <= bars.frame.index[cut - 1]
        columns = ["regime", "in_training"]
        pd.testing.assert_frame_equal(before[past][columns], after[past][columns])


@by_every_rule
def test_a_saved_stream_decides_on(bars, decision, tmp_path):
    detector = live_detector(RECIPE, decision=decision)
    for n in (0, 53, 59, 60, 300):
        stream = detector.stream(missing="gap")
        stream.extend(part(bars, slice(n)))
        stream.save(tmp_path / "stream.json")
        again = Stream.load(tmp_path / "stream.json")
        assert again.to_dict() == stream.to_dict()
        for bar in records(part(bars, slice(n, n + 120))):
            assert again.update_all(bar) == stream.update_all(bar)


def test_in_training_ends_with_the_last_bar_that_the_parameters_know(bars):
    end = bars.frame.index[400]
    detector = replace(live_detector(RECIPE), train_end=end)
    regimes = detector.filter(bars)
    np.testing.assert_array_equal(regimes["in_training"], regimes["available_at"] <= end)
    assert regimes["in_training"].any()
    for later in (detector.smooth(bars), detector.decode(bars)):
        assert {"regime", "in_training"}.isdisjoint(later)


def test_a_detector_keeps_rule_and_end_of_training(bars):
    detector = live_detector(RECIPE, decision=Decision("min_bars", min_bars=5))
    again = Detector.from_dict(json.loads(json.dumps(detector.to_dict())))
    assert again.decision == detector.decision
    assert again.train_end == detector.train_end
    pd.testing.assert_frame_equal(again.filter(bars), detector.filter(bars), check_exact=True)


def earlier(values: dict) -> dict:
    """A stored model as versions before the decision rules wrote it."""
    return {name: v for name, v in values.items() if name not in ("decision", "train_end")}


def test_a_detector_of_an_earlier_version_decides_by_the_argmax(bars):
    old = Detector.from_dict(earlier(live_detector(RECIPE).to_dict()))
    regimes = old.filter(bars)
    assert "in_training" not in regimes
    np.testing.assert_array_equal(regimes["regime"], regimes["state"])
    meta = {"train_end": "2021-03-20T00:00:00+00:00"}
    knows = Detector.from_dict(earlier(live_detector(RECIPE).to_dict()) | {"meta": meta})
    assert 0 < knows.filter(bars)["in_training"].sum() < len(regimes)


def test_a_stream_of_an_earlier_version_goes_on_with_its_model(bars, tmp_path):
    meta = {"train_end": "2021-03-20T00:00:00+00:00"}
    detector = Detector.from_dict(earlier(live_detector(RECIPE).to_dict()) | {"meta": meta})
    stream = detector.stream(part(bars, slice(300)), missing="gap")
    content = stream.to_dict()
    del content["decider"]
    content["model"] = earlier(content["model"])
    write_document(tmp_path / "stream.json", content)
    assert Stream.load(tmp_path / "stream.json").latest.in_training is None
    again = resumed(tmp_path / "stream.json", detector.stream(missing="gap"))
    for bar in records(part(bars, slice(300, 350))):
        assert again.update_all(bar) == stream.update_all(bar)


def test_lines_go_on_under_the_header_of_an_earlier_file(bars, tmp_path):
    detector, path = live_detector(RECIPE), tmp_path / "regimes.csv"
    names = [name for name in detector.columns if name not in ("regime", "in_training")]
    path.write_text(",".join(names) + "\n")
    assert list(names_in(path, detector)) == names
    regime = detector.stream(bars).latest
    for columns, rest in ((names, []), (detector.columns, [str(regime.regime), "false"])):
        out = io.StringIO()
        RegimeLines(out, columns, as_json=False, headed=True).write([regime])
        cells = out.getvalue().strip().split(",")
        assert cells[2:4] == [str(regime.state), regime.label]
        assert cells[4 : 4 + len(rest)] == rest
        assert len(cells) == len(columns)
    path.write_text("timestamp,available_at,state,label,p_state_9\n")
    with pytest.raises(ConfigError, match="'p_state_9', which the model does not give"):
        names_in(path, detector)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("decision.rule", "median", "decision.rule is 'median': must be one of argmax, hyst"),
        ("decision.enter", 1.5, "decision.enter is 1.5: must be above 0 and at most 1"),
        ("decision.enter", 1.0, "decision.leave is 0.2: must be below enter, and enter below 1"),
        ("decision.leave", 0.7, "decision.leave is 0.7: must be below enter"),
        ("decision.min_bars", 0, "decision.min_bars is 0: must be a whole number, at least 1"),
        ("decision.other", 1, "decision.other is unknown"),
        ("train_end", "2021", "train_end is '2021': must be an ISO time with a zone"),
    ],
)
def test_a_stored_rule_out_of_range_is_refused(place, value, message):
    values = live_detector(RECIPE).to_dict()
    part, _, name = place.rpartition(".")
    (values[part] if part else values)[name] = value
    with pytest.raises(ModelError, match=message):
        Detector.from_dict(values)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("possible", [], "decider.possible is .*: must be distinct numbers of states below 3"),
        ("possible", [0, 0], "must be distinct whole numbers, at least 0"),
        ("possible", [3], "must be distinct numbers of states below 3"),
        ("possible", [0.5], "must be distinct whole numbers, at least 0"),
        ("possible", [[0, 1]], "must be distinct whole numbers, at least 0"),
        ("candidate", 3, "decider.candidate is 3: must be below 3"),
        ("in_a_row", 4, "decider.in_a_row is 4: must be at most 3"),
        ("rows", 11, "decider.rows is 11: must be at most 10"),
        ("rows", -1, "decider.rows is -1: must be a whole number, at least 0"),
        ("more", 1, "decider.more is unknown"),
    ],
)
def test_a_memory_that_no_decider_can_have_is_refused(bars, tmp_path, name, value, message):
    detector = live_detector(RECIPE, decision=Decision("min_bars"))
    content = detector.stream(part(bars, slice(300))).to_dict()
    content["decider"][name] = value
    write_document(tmp_path / "stream.json", content)
    with pytest.raises(ModelError, match=message):
        Stream.load(tmp_path / "stream.json")
