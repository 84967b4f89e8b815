"""The line on what was read, and the hint about a last bar that may be open."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.market.bars import Bars
from hmm_exp.market.clean import bars_from_frame
from hmm_exp.market.iso import iso
from hmm_exp.market.load import read_bars, read_features
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.reading import unclosed_hint, what_was_read
from hmm_exp.market.resample import resample
from hmm_exp.market.synthetic import make_market

OPEN = ReadOptions("open")


def table(times: pd.DatetimeIndex, volume: float = 10.0) -> pd.DataFrame:
    price = 100 + np.arange(len(times)) % 7
    return pd.DataFrame(
        {"time": times, "open": price, "high": price + 1, "low": price - 1, "close": price}
    ).assign(volume=volume)


def line(frame: pd.DataFrame, **options: str) -> str:
    return what_was_read(bars_from_frame(frame, replace(OPEN, **options), name="x").report)


WORKDAYS = pd.bdate_range("2010-01-04", "2019-12-31", tz="UTC")


def test_the_synthetic_market_has_its_line():
    assert what_was_read(make_market(3000).report) == (
        "synthetic market: 3,000 rows, 1H, 2021-01-01 to 2021-05-05"
    )


def test_a_file_shows_rows_kept_and_repeated_and_the_quiet_bars(tmp_path):
    frame = table(pd.date_range("2024-01-01", periods=100, freq="h"))
    frame.loc[3, "close"] = -1.0
    frame.loc[10:14, "volume"] = 0
    pd.concat([frame, frame.iloc[50:52]]).to_csv(tmp_path / "bars.csv", index=False)
    report = read_bars(tmp_path / "bars.csv", bar_stamp="open", bad_rows="drop").report
    assert what_was_read(report) == (
        "bars.csv: 99 of 102 rows, 1H, 2024-01-01 to 2024-01-05; 1 bad row dropped; 2 repeated "
        "rows removed; 1 gap with 1 missing bar; 5 bars without volume"
    )


@pytest.mark.parametrize(
    ("gaps", "tells"),
    [
        ("split", "; 521 gaps, looks like a session market: data.gaps=bridge"),
        ("bridge", "; 521 gaps bridged"),
    ],
)
def test_gaps_of_sessions_name_the_option_unless_it_is_set(gaps, tells):
    assert line(table(WORKDAYS), gaps=gaps) == f"x: 2,607 rows, 1D, 2010-2019{tells}"


def test_a_bridged_hole_has_its_dates():
    days = WORKDAYS[(WORKDAYS < "2012-01-01") | (WORKDAYS > "2017-06-30")]
    assert line(table(days), gaps="bridge").endswith(
        "gaps bridged; hole of 2,012 days bridged from 2011-12-30 to 2017-07-03"
    )


def test_a_calendar_replaces_the_guess_about_sessions():
    report = bars_from_frame(table(WORKDAYS), OPEN).report
    found = {
        **{"calendar": "XETR", "closed": 500, "outages": 2, "missing": 3, "unit": "session"},
        **{"first_outages": ["2011-03-01T00:00:00Z"], "outside": 1},
    }
    assert what_was_read(report | {"calendar": found}).endswith(
        "; XETR: 500 steps over closed times (data.gaps=bridge), 2 outages with 3 missing "
        "sessions, first after 2011-03-01, 1 bar while the exchange is closed"
    )


def test_a_feature_table_shows_its_rows_grid_and_missing_values(tmp_path):
    times = pd.date_range("2024-01-01", periods=50, freq="4h")
    frame = pd.DataFrame({"timestamp": times, "a_4H": np.arange(50.0), "b_1D": 1.0})
    frame.loc[[4, 9], "a_4H"] = np.nan
    frame.to_csv(tmp_path / "f.csv", index=False)
    _, report = read_features(tmp_path / "f.csv", bar_stamp="open")
    assert what_was_read(report) == (
        "f.csv: 50 rows, 4H, 2024-01-01 to 2024-01-09; 2 rows with a missing value"
    )


def with_last_volume(bars: Bars, share: float) -> Bars:
    """The bars whose last volume is a share of the one a day, or a bar, before."""
    frame = bars.frame.copy()
    back = 2 if bars.step == pd.Timedelta(days=1) else 1 + pd.Timedelta(days=1) // bars.step
    frame.iloc[-1, frame.columns.get_loc("volume")] = share * frame["volume"].iloc[-back]
    return replace(bars, frame=frame)


@pytest.mark.parametrize("timeframe", ["1H", "4H", "1D"])
def test_a_last_bar_of_little_volume_is_doubted_and_a_usual_one_is_not(timeframe):
    bars = resample(make_market(3000, n_regimes=1), timeframe)
    hint = unclosed_hint(with_last_volume(bars, 0.03))
    assert hint is not None
    assert hint.startswith(f"the last bar, which closes at {iso(bars.time[-1])}, has ")
    assert hint.endswith("it may not be closed yet")
    assert unclosed_hint(with_last_volume(bars, 0.5)) is None


def test_the_hour_of_the_day_decides_what_is_usual():
    times = pd.date_range("2024-01-01", periods=24 * 40, freq="h", tz="UTC")
    volume = np.where(times.hour < 6, 5.0, 1000.0)
    bars = bars_from_frame(table(times).assign(volume=volume), OPEN)
    at_night = replace(bars, frame=bars.frame.iloc[: 24 * 39 + 3])
    assert unclosed_hint(at_night) is None
    by_day = bars.frame.copy()
    by_day.iloc[-1, by_day.columns.get_loc("volume")] = 5.0
    assert "has 0 % of its hour's usual volume" in str(unclosed_hint(replace(bars, frame=by_day)))


@pytest.mark.parametrize(
    "volume",
    [np.zeros(960), np.tile([0.0, 3.0], 480), np.full(960, np.nan), np.full(960, 7.0)],
    ids=["without volume", "often without volume", "unknown volume", "constant volume"],
)
def test_markets_whose_volume_tells_nothing_raise_no_doubt(volume):
    times = pd.date_range("2024-01-01", periods=960, freq="h", tz="UTC")
    frame = table(times).assign(volume=volume)
    needs = ("open", "high", "low", "close")
    assert unclosed_hint(bars_from_frame(frame, OPEN, needs=needs)) is None


def test_false_doubts_are_rare_on_real_bars(shared_data):
    bars = read_bars(shared_data / "BINANCE_BTCUSDT.P, 60.csv", bar_stamp="open")
    ends = range(2000, len(bars), 5)
    doubts = sum(
        unclosed_hint(replace(bars, frame=bars.frame.iloc[end - 1000 : end])) is not None
        for end in ends
    )
    assert doubts < 0.005 * len(ends)
