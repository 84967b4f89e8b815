"""The cache of a sweep changes no bit, survives damage, and is filled once by many processes."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.config import Config, DataConfig, FeaturesConfig, SweepConfig, TimeframeConfig
from hmm_exp.experiment import prepare as prepare_module
from hmm_exp.experiment import source as source_module
from hmm_exp.experiment.cache import ABOUT, entry
from hmm_exp.experiment.prepare import Prepared, prepare
from hmm_exp.market.synthetic import make_market
from tests.conftest import ROOT


@pytest.fixture
def settings(tmp_path) -> dict[str, Config]:
    """A config of each kind of data, with a sweep's folder."""
    frame = make_market(3000, 3, 7).frame.drop(index=make_market(3000, 3, 7).frame.index[700:703])
    frame = frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None))
    frame.to_csv(tmp_path / "bars.csv", index=False)
    path = str(tmp_path / "bars.csv")
    folder = SweepConfig(folder=str(tmp_path / "sweep"))
    both = TimeframeConfig("multi", ["1H", "4H"])
    bars = DataConfig(kind="bars", path=path, bar_stamp="open")
    of_bars = Config(data=bars, features=FeaturesConfig("v1v2"), timeframe=both, sweep=folder)
    ready = prepare(replace(of_bars, cache=False)).table
    ready.write(tmp_path / "ready.csv")
    table = DataConfig(kind="features", path=str(tmp_path / "ready.csv"), bar_stamp="open")
    return {
        "synthetic": Config(data=DataConfig(n_bars=3000, bar_stamp="open"), sweep=folder),
        "bars": of_bars,
        "features": Config(data=table, features=FeaturesConfig("columns"), sweep=folder),
    }


def fresh(config: Config) -> Prepared:
    """Prepare as a new process would, which has read nothing yet."""
    source_module._read.cache_clear()
    return prepare(config)


def assert_same(one: Prepared, other: Prepared) -> None:
    assert one.X.tobytes() == other.X.tobytes()
    assert one.fingerprint == other.fingerprint
    assert one.observation_space == other.observation_space
    assert one.source.report == other.source.report
    assert one.table.n_missing == other.table.n_missing
    assert one.table.warmup_rows == other.table.warmup_rows
    pd.testing.assert_frame_equal(one.table.frame, other.table.frame, check_exact=True)
    pd.testing.assert_series_equal(one.table.timestamp, other.table.timestamp)
    np.testing.assert_array_equal(one.table.steps, other.table.steps)
    np.testing.assert_array_equal(one.source.log_return, other.source.log_return)
    assert one.scaler.mean_.tobytes() == other.scaler.mean_.tobytes()
    if one.source.bars is None:
        pd.testing.assert_frame_equal(one.source.frame, other.source.frame, check_exact=True)
    else:
        pd.testing.assert_frame_equal(one.source.bars.frame, other.source.bars.frame)
        np.testing.assert_array_equal(one.source.bars.states, other.source.bars.states)


@pytest.mark.parametrize("kind", ["synthetic", "bars", "features"])
def test_the_cache_changes_no_bit(settings, tmp_path, kind):
    config = settings[kind]
    off = fresh(replace(config, cache=False))
    assert not (tmp_path / "sweep").exists()
    made, mapped = fresh(config), fresh(config)
    assert_same(made, off)
    assert_same(mapped, off)
    expected = {"bars", "features"} if kind != "features" else {"ready"}
    entries = {path.parent.name.split("-")[0] for path in (tmp_path / "sweep").rglob(ABOUT)}
    assert entries == expected


def test_what_is_mapped_is_not_computed_again(settings, monkeypatch):
    fresh(settings["bars"])
    monkeypatch.setattr(source_module, "read_bars", None)
    monkeypatch.setattr(prepare_module, "build_features", None)
    fresh(settings["bars"])


def test_an_edited_file_is_read_again(settings, tmp_path):
    before = fresh(settings["bars"])
    path = tmp_path / "bars.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-5]) + "\n")
    assert len(fresh(settings["bars"]).source.time) == len(before.source.time) - 5


@pytest.mark.parametrize("harm", ["cut", "flip", "about", "pickle", "lost"])
def test_a_damaged_entry_is_made_again(settings, tmp_path, harm):
    before = fresh(settings["bars"])
    files = [*(tmp_path / "sweep").rglob("*.npy"), *(tmp_path / "sweep").rglob(ABOUT)]
    for file in files:
        content = bytearray(file.read_bytes())
        if harm == "cut":
            file.write_bytes(content[: len(content) // 2])
        elif harm == "flip" and file.suffix == ".npy":
            content[-3] ^= 1
            file.write_bytes(content)
        elif harm == "about" and file.name == ABOUT:
            file.write_text(file.read_text().replace("warmup_rows", "warmup_r0ws"))
        elif harm == "pickle" and file.suffix == ".npy":
            file.write_bytes(pickle.dumps([1]))
        elif harm == "lost" and file.name == "values.npy":
            file.unlink()
    assert_same(fresh(settings["bars"]), before)
    source_module._read.cache_clear()
    assert_same(fresh(settings["bars"]), before)


RACE = """
import sys
from pathlib import Path
import numpy as np
from hmm_exp.experiment.cache import entry

def make():
    print("made", flush=True)
    return {"x": np.arange(200_000.0)}, {"n": 200_000}

sys.stdin.readline()
arrays, about = entry(Path(sys.argv[1]), "race", "key", make)
assert arrays["x"].sum() == 200_000 * 199_999 / 2 and about == {"n": 200_000}
"""


def test_many_processes_at_once_make_an_entry_once(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path / "cache")]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    racers = [subprocess.Popen(command, **options) for _ in range(4)]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert "".join(said).count("made") == 1
    assert not list((tmp_path / "cache").glob("*.part"))


def test_without_a_place_to_write_work_is_done_all_the_same(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    content = {"x": np.ones(3)}, {}
    assert entry(tmp_path / "cache", "kind", "key", lambda: content) is content


def test_a_write_stays_in_this_process(tmp_path):
    def make():
        return {"x": np.ones(3)}, {}

    entry(tmp_path, "kind", "key", make)
    first, _ = entry(tmp_path, "kind", "key", make)
    first["x"][0] = 5.0
    second, _ = entry(tmp_path, "kind", "key", make)
    assert second["x"].tolist() == [1.0, 1.0, 1.0]
