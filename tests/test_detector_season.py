"""A detector with a season: the stream, files and saved streams give the bits of the batch."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.causality import check_causality
from hmm_exp.detector.detector import Detector
from hmm_exp.detector.files import RowStream
from hmm_exp.detector.stream import Stream
from hmm_exp.errors import DataError, ModelError
from hmm_exp.features.build import build_features
from hmm_exp.features.recipe import Recipe
from hmm_exp.features.season import clock_hours
from hmm_exp.stored.document import digest_of
from tests.live_detector import SHORT, gappy_bars, live_detector, part, records

RANGE = Recipe.of_set("range", ["1H"])
MIXED = Recipe.of_columns(
    [
        *("log_range_current_1H", "close_parkinson_5_1H", "log_volume_delta_current_1H"),
        *("log_range_current_4H", "log_volume_delta_current_12H"),
    ],
    **SHORT,
)
BERLIN = "Europe/Berlin"  # its clocks change on 2021-03-28, within the bars of these tests


def seasonal_detector(recipe, zone=BERLIN, unseen=(), **options):
    """A detector whose hours differ by more than its states; `unseen` hours have no mean."""
    recipe = recipe.by_hour(zone)
    means = np.zeros((24, len(recipe.columns)))
    means[:, recipe.seasonal] = np.random.default_rng(5).normal(size=(24, len(recipe.seasonal)))
    means[np.ix_(list(unseen), recipe.seasonal)] = np.nan
    return replace(live_detector(recipe, **options), season=means)


def probabilities(frame):
    return frame.filter(like="p_state_").to_numpy()


@pytest.mark.parametrize("zone", ["UTC", BERLIN, "Australia/Lord_Howe"])
@pytest.mark.parametrize("recipe", [RANGE, MIXED], ids=["range", "mixed"])
@pytest.mark.parametrize("gaps", ["split", "bridge"])
def test_a_stream_equals_the_batch_at_every_bar(recipe, zone, gaps):
    detector = seasonal_detector(recipe, zone, unseen=(3,), gaps=gaps)
    bars = gappy_bars(1000, gaps=gaps, lost=0.1)
    stream = detector.stream(part(bars, slice(300)), missing="gap")
    rest = records(part(bars, slice(300, None)))
    ours = np.array([regime.probs for bar in rest for regime in stream.update_all(bar)])
    theirs = probabilities(detector.filter(bars))
    assert ours.tobytes() == theirs[-len(ours) :].tobytes()
    plain = replace(detector, season=np.nan_to_num(detector.season) * 0.0)
    assert not np.allclose(theirs, probabilities(plain.filter(bars)))


def test_a_stream_on_finer_bars_equals_the_batch():
    recipe = Recipe.of_columns(["log_range_current_30min", "log_range_current_4H"], **SHORT)
    detector = seasonal_detector(recipe, step="15min")
    bars = gappy_bars(1500, step="15min", lost=0.2)
    whole = detector.stream().extend(bars)
    assert probabilities(whole).tobytes() == probabilities(detector.filter(bars)).tobytes()


def test_a_stream_begins_at_a_row_that_only_its_hour_makes_missing():
    bars = gappy_bars(300, lost=0.0)
    first = clock_hours(bars.time[:1], BERLIN)
    detector = seasonal_detector(RANGE, unseen=first)
    whole = detector.stream().extend(bars)
    pd.testing.assert_frame_equal(whole, detector.filter(bars), check_exact=True)
    assert len(whole) == len(bars)


def test_the_observation_of_an_unseen_hour_is_missing():
    detector = seasonal_detector(RANGE, unseen=(7, 8))
    table = build_features(gappy_bars(300), detector.recipe)
    hour = clock_hours(table.ends[:, 0], BERLIN)
    missing = np.isnan(detector.scaled(table)).any(axis=1)
    np.testing.assert_array_equal(missing, np.isin(hour, (7, 8)))
    assert (detector.filtered(table).log_lik[missing] == 0.0).all()


def test_a_saved_stream_goes_on_with_the_same_bits(tmp_path):
    detector, bars = seasonal_detector(MIXED, unseen=(3,)), gappy_bars(900)
    stream = detector.stream(part(bars, slice(450)), missing="gap")
    stream.save(tmp_path / "stream.json")
    loaded = Stream.load(tmp_path / "stream.json")
    rest = part(bars, slice(450, None))
    pd.testing.assert_frame_equal(loaded.extend(rest), stream.extend(rest), check_exact=True)


def test_ready_rows_in_pieces_equal_the_batch():
    detector, bars = seasonal_detector(RANGE, unseen=(3,)), gappy_bars(500)
    table = build_features(bars, detector.recipe)
    rows = table.frame.assign(timestamp=table.timestamp)
    stream = RowStream(detector)
    pieces = [stream.extend(rows.iloc[i : i + 60]) for i in range(0, len(rows), 60)]
    ours, theirs = pd.concat(pieces), detector.filter(bars)
    assert probabilities(ours).tobytes() == probabilities(theirs).tobytes()
    ready = detector.filter(rows.reset_index(drop=True).dropna())
    assert len(ready) > 400


def test_ready_rows_of_several_timeframes_are_refused():
    detector = seasonal_detector(MIXED)
    table = build_features(gappy_bars(500), detector.recipe)
    rows = table.frame.assign(timestamp=table.timestamp)
    with pytest.raises(DataError, match=r"features\.season=hour needs bars there"):
        RowStream(detector).extend(rows)
    with pytest.raises(DataError, match=r"features\.season=hour needs bars there"):
        detector.filter(rows.reset_index(drop=True))


def test_the_future_changes_no_filtered_probability():
    detector = seasonal_detector(MIXED, unseen=(3,))
    table = check_causality(detector, gappy_bars(900), times=5)
    assert table["largest_change"].xs("filtered", level="output").max() == 0.0
    assert table["largest_change"].xs("smoothed", level="output").max() > 0.0


def test_a_detector_survives_its_file_to_the_bit(tmp_path):
    detector, bars = seasonal_detector(MIXED, unseen=(3, 4)), gappy_bars(500)
    detector.save(tmp_path / "detector.json")
    loaded = Detector.load(tmp_path / "detector.json")
    assert loaded.season.tobytes() == detector.season.tobytes()
    assert loaded.recipe == detector.recipe
    pd.testing.assert_frame_equal(loaded.filter(bars), detector.filter(bars), check_exact=True)


def test_a_detector_without_a_season_does_not_name_it():
    content = live_detector(MIXED).to_dict()
    assert "season" not in content
    assert "season" not in content["recipe"]


NAME = "log_range_current_1H"
DAMAGED = [
    (lambda c: c.pop("season"), "season is missing"),
    (lambda c: c["recipe"].pop("season"), "season is .*: the recipe has no season"),
    (lambda c: c["season"].pop(NAME), f"season.{NAME} is missing"),
    (lambda c: c["season"].update(other=[0.0] * 24), "season.other is unknown"),
    (lambda c: c["season"].update({NAME: [0.0] * 23}), f"season.{NAME} is .*: must be 24 numbers"),
    (lambda c: c["season"].update({NAME: [None] * 24}), "not all null"),
    (lambda c: c["season"].update({NAME: [1e101] * 24}), "must be 24 numbers of at most 1e"),
    (lambda c: c["season"].update({NAME: [True] * 24}), "must be 24 numbers"),
    (lambda c: c["season"].update({NAME: 1.0}), "must be 24 numbers"),
    (lambda c: c.update(season=[1.0]), "season is .*: must be a JSON object"),
    (lambda c: c["recipe"].update(season="Mars/Olympus"), "data.timezone is 'Mars/Olympus'"),
    (lambda c: c["recipe"].update(season=5), "recipe.season is 5: must be a text"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGED, ids=[says for _, says in DAMAGED])
def test_a_damaged_season_is_refused_with_its_place(tmp_path, damage, says):
    content = json.loads(json.dumps(seasonal_detector(MIXED).to_dict()))
    damage(content)
    path = tmp_path / "detector.json"
    path.write_text(json.dumps(content | {"digest": digest_of(content)}))
    with pytest.raises(ModelError, match=says) as caught:
        Detector.load(path)
    assert "\n" not in str(caught.value)
