"""A table takes for each row the last regime that was known then, and nothing of the future."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.detector.files import RegimeFile
from hmm_exp.detector.join import join_regimes, read_rows
from hmm_exp.errors import ConfigError, DataError
from hmm_exp.features.recipe import Recipe
from hmm_exp.market.options import ReadOptions
from tests.live_detector import SHORT, gappy_bars, live_detector, part

BARS = gappy_bars(700)
DETECTOR = live_detector(Recipe.of_set("v1", ["1H"], **SHORT))
REGIMES = DETECTOR.filter(BARS)


def table_of(folder, stamps, stamp: str = "close", **columns):
    frame = pd.DataFrame({"time": stamps} | columns)
    frame.to_csv(folder / "table.csv", index=False)
    return read_rows(folder / "table.csv", ReadOptions(stamp))


def instants(n_rows: int = 300) -> pd.DatetimeIndex:
    """Times before, between and after the regimes, not in order."""
    random = np.random.default_rng(0)
    first, last = BARS.frame.index[0], BARS.frame.index[-1] + pd.Timedelta(days=2)
    seconds = random.integers(0, int((last - first).total_seconds()), n_rows)
    return first + pd.to_timedelta(seconds, unit="s")


def test_each_row_takes_the_last_regime_before_it(tmp_path):
    times = instants()
    joined = join_regimes(table_of(tmp_path, times, x=range(len(times))), REGIMES, "regime_")
    assert list(joined["x"]) == list(range(len(times)))
    by_time = REGIMES.set_index("available_at")
    for time, (_, row) in zip(times, joined.iterrows(), strict=True):
        known = by_time[by_time.index <= time]
        if known.empty:
            assert row.filter(like="regime_").isna().all()
        else:
            assert row["regime_available_at"] == known.index[-1] <= time
            assert row["regime_state"] == known["state"].iloc[-1]
            assert row["regime_label"] == known["label"].iloc[-1]
            assert row["regime_p_state_2"] == known["p_state_2"].iloc[-1]
    assert joined["regime_state"].isna().any()


def test_a_row_does_not_change_with_bars_after_it(tmp_path):
    cut = 500
    frame = BARS.frame.copy()
    frame.iloc[cut:, 1:5] *= 1.5
    changed = DETECTOR.filter(replace(BARS, frame=frame))
    table = table_of(tmp_path, instants())
    ours, theirs = (join_regimes(table, r, "") for r in (REGIMES, changed))
    past = table.known_at < BARS.frame.index[cut].value
    assert 0.3 < past.mean() < 0.9
    pd.testing.assert_frame_equal(ours[past], theirs[past], check_exact=True)
    assert not ours[~past].equals(theirs[~past])


def test_a_row_stamped_at_its_start_takes_the_regime_of_its_end(tmp_path):
    stamps = BARS.frame["timestamp"].reset_index(drop=True)
    joined = join_regimes(table_of(tmp_path, stamps, "open", x=1.0), REGIMES, "r_")
    same = joined.dropna()
    assert len(same) == len(REGIMES)
    assert same["r_state"].tolist() == REGIMES["state"].tolist()
    later = join_regimes(table_of(tmp_path, stamps, "close", x=1.0), REGIMES, "r_").dropna()
    assert (later["r_available_at"] <= pd.to_datetime(later["time"], utc=True)).all()
    daily = table_of(tmp_path, pd.date_range("2021-01-02", periods=20, freq="D"), "open", x=1)
    assert daily.length == pd.Timedelta(days=1)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("unix", lambda t: t.as_unit("s").asi8),
        ("Date", lambda t: t.strftime("%d.%m.%Y %H:%M:%S")),
        ("close_time", lambda t: t.as_unit("ms").asi8),
    ],
)
def test_times_are_found_in_any_usual_form(tmp_path, name, values):
    times = instants(50)
    frame = pd.DataFrame({"a": "x", name: values(times)})
    frame.to_csv(tmp_path / "t.csv", index=False, sep=";")
    table = read_rows(tmp_path / "t.csv", ReadOptions("close"))
    assert table.time == name
    assert (table.known_at // 10**9 == times.as_unit("s").asi8).all()


def test_a_column_without_a_usual_name_is_chosen(tmp_path):
    (tmp_path / "t.csv").write_text("x,when\n1,2021-01-05T00:00:30Z\n,2021-01-05T00:00:31Z\n")
    table = read_rows(tmp_path / "t.csv", ReadOptions("close", timestamp_column="when"))
    assert len(table.frame) == 2


def test_rows_that_have_no_length_or_no_time_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"irregular times.* data.bar_stamp=close"):
        table_of(tmp_path, instants(), "open")
    with pytest.raises(DataError, match="irregular times have no length"):
        table_of(tmp_path, instants(1), "open", x=1)
    with pytest.raises(DataError, match="1 unreadable timestamp"):
        table_of(tmp_path, [*instants(5).astype(str), "soon"])


@pytest.mark.parametrize("step", ["1h", "24h", "30min"])
def test_rows_of_another_step_than_the_regimes_are_instants_unless_chosen(tmp_path, step):
    stamps = pd.date_range("2021-01-10", periods=15, freq=step, tz="UTC")
    pd.DataFrame({"time": stamps, "x": 1}).to_csv(tmp_path / "t.csv", index=False)
    found = read_rows(tmp_path / "t.csv", ReadOptions("open"), pd.Timedelta("1h"))
    assert found.length == pd.Timedelta("1h" if step == "1h" else 0)
    assert read_rows(tmp_path / "t.csv", ReadOptions("open")).length == pd.Timedelta(step)


def test_rows_at_irregular_times_are_instants_unless_chosen(tmp_path):
    pd.DataFrame({"time": instants(), "x": 1}).to_csv(tmp_path / "t.csv", index=False)
    table = read_rows(tmp_path / "t.csv", ReadOptions("open"), pd.Timedelta("1h"))
    assert not table.length
    joined = join_regimes(table, REGIMES, "").dropna()
    assert (joined["available_at"] <= pd.to_datetime(joined["time"], utc=True)).all()


def test_a_name_that_the_table_has_already_is_refused(tmp_path):
    table = table_of(tmp_path, instants(5), regime_state=1)
    with pytest.raises(ConfigError, match="'regime_state' already: --prefix decides"):
        join_regimes(table, REGIMES, "regime_")


def test_every_column_of_the_regimes_is_joined(tmp_path):
    more = REGIMES.assign(regime=REGIMES["state"], in_training=REGIMES["state"] > 0)
    joined = join_regimes(table_of(tmp_path, instants(), x=0), more, "m_")
    added = [name for name in joined if name.startswith("m_")]
    assert added == [f"m_{name}" for name in more.columns if name != "timestamp"]
    assert joined["m_in_training"].dropna().isin([True, False]).all()


def test_regimes_of_fewer_bars_fill_fewer_rows(tmp_path):
    few = DETECTOR.filter(part(BARS, slice(200)))
    table = table_of(tmp_path, BARS.frame.index)
    last = join_regimes(table, few, "")["available_at"].iloc[-1]
    assert last == few["available_at"].iloc[-1]


def test_a_table_whose_names_hold_commas_is_written_whole(tmp_path):
    joined = join_regimes(table_of(tmp_path, instants(5), **{"range, %": range(5)}), REGIMES, "r_")
    with RegimeFile(tmp_path / "joined.csv") as file:
        file.write(joined)
    assert list(pd.read_csv(tmp_path / "joined.csv")) == list(joined)
