"""The causality check: honest detectors pass, one that looks ahead is caught."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from hmm_exp.causality import LOOKS_AHEAD, check_causality, main
from hmm_exp.detector.detector import Detector
from hmm_exp.errors import HistoryError
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.inference import Filtered
from tests.live_detector import SHORT, gappy_bars, live_detector


class Prophet(Detector):
    """Calls smoothed probabilities filtered."""

    def filtered(self, table):
        smoothed = self.smoothed(table).probs
        return Filtered(smoothed, np.zeros(len(smoothed)))


@pytest.fixture(scope="module")
def bars():
    return gappy_bars(500)


@pytest.fixture(scope="module")
def files(bars, tmp_path_factory):
    """A detector and bars as files."""
    folder = tmp_path_factory.mktemp("causality")
    live_detector(Recipe.of_set("v1", ["1H"], **SHORT)).save(folder / "detector.json")
    bars.frame.to_csv(folder / "bars.csv", index=False)
    return folder


@pytest.mark.parametrize("timeframes", [["1H"], ["4H"], ["1H", "4H"]], ids="+".join)
def test_filtered_never_changes_and_hindsight_does(bars, timeframes):
    detector = live_detector(Recipe.of_set("v1v2", timeframes, **SHORT))
    table = check_causality(detector, bars, times=6)
    assert (table.loc["filtered"] == 0).all(axis=None)
    assert (table.loc["smoothed", "largest_change"] > 1e-6).all()
    assert table.loc["viterbi", "labels_changed"].max() > 0


def test_a_detector_that_looks_ahead_is_caught(bars):
    honest = live_detector(Recipe.of_set("v1", ["1H"], **SHORT))
    prophet = Prophet(**{name: getattr(honest, name) for name in honest.__dataclass_fields__})
    table = check_causality(prophet, bars, times=6)
    assert (table.loc["filtered", "largest_change"] > 1e-6).all()


def test_the_same_seed_checks_the_same_times(bars):
    detector = live_detector(Recipe.of_set("v1", ["1H"], **SHORT))
    first, again, other = (check_causality(detector, bars, 3, seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_too_few_bars_are_refused(bars):
    detector = replace(live_detector(Recipe.of_set("v1", ["1H"], **SHORT)), min_history=400)
    with pytest.raises(HistoryError, match="at least 800"):
        check_causality(detector, bars)


def test_the_command_prints_a_table_and_exits_with_0(files):
    command = [sys.executable, "-m", "hmm_exp.causality", "--times", "3"]
    paths = ["--model", str(files), "--bars", str(files / "bars.csv")]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        *("output", "future", "largest_change", "labels_changed", "newest_changed")
    ]
    assert [line.split()[0] for line in lines[1:7]] == [
        *(["filtered"] * 2),
        *(["smoothed"] * 2),
        *(["viterbi"] * 2),
    ]
    assert "of all labels differ from those known live" in lines[-2]
    assert lines[-1].startswith("filtered regimes never changed")


def test_the_command_exits_with_1_when_filtered_changed(files, monkeypatch, capsys):
    monkeypatch.setattr(Detector, "filtered", Prophet.filtered)
    words = ["--model", str(files), "--bars", str(files / "bars.csv"), "--times", "2"]
    assert main(words) == LOOKS_AHEAD
    assert "this detector looks ahead" in capsys.readouterr().out


def test_bad_input_is_one_line(files, capsys):
    assert main(["--model", str(files), "--bars", "nowhere.csv"]) == 2
    assert capsys.readouterr().err == "error: no such file: nowhere.csv\n"
    assert main(["--model", str(files / "bars.csv"), "--bars", str(files / "bars.csv")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "hmm-causality --model models:/" in capsys.readouterr().out
