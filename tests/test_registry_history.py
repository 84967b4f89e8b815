"""`scripts/registry.py`: versions, one version, what differs between two, the way back."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.config import GateConfig
from hmm_exp.market.synthetic import make_market
from hmm_exp.registry import history
from hmm_exp.registry.promotion import promote
from hmm_exp.registry.versions import Versions
from scripts import registry as script
from tests.small_detector import (
    candidate,
    shown_scores,
    small_detector,
)

NAME = "hmm_regime"


@pytest.fixture(scope="module")
def store(store):
    """Two versions: the second has other means, another window and a warning."""
    second = small_detector("BTC", 1)
    weak = shown_scores(over_ewma=-0.01)
    for run_id in (
        candidate(store, small_detector("BTC", 0)),
        candidate(store, replace(second, min_history=80), scores=weak, sweep_id="sweep-2"),
    ):
        promote(store.client, run_id, registry_name=NAME, gate=GateConfig())
    return store


@pytest.fixture
def shown(store, capsys):
    """What the script prints; its exit status has to be the one given."""

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert script.main([*words, "--tracking-uri", store.uri]) == status
        out, err = capsys.readouterr()
        return err if status else out

    return run


def test_list_shows_versions_with_sweep_metrics_and_reasons(shown):
    lines = shown("list").splitlines()
    assert lines[0].split()[:4] == ["version", "status", "since", "cell"]
    assert "Archived" in lines[1]
    assert "sweep-1" in lines[1]
    assert "Production" in lines[2]
    assert "sweep-2" in lines[2]
    assert "1234" in lines[2] or "1235" in lines[2]
    assert "version 2: gain over the EWMA Student-t on 600 test bars -0.0100" in "\n".join(lines)
    assert any(line.startswith("version 2: labels kept from version 1") for line in lines)


def test_show_prints_all_records_of_one_version(shown, store):
    text = shown("show", "production")
    values = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert values["version"] == "2 of hmm_regime"
    assert values["sweep_id"] == "sweep-2"
    assert values["gate_notes"].startswith(
        "gain over the static Student-t on 600 test bars +0.0500"
    )
    assert text == shown("show", "2")


def test_diff_names_the_parameters_that_differ(shown):
    lines = shown("diff", "1", "production").splitlines()
    assert lines[0].split() == ["what", "version", "1", "version", "2"]
    history_row = next(line for line in lines if "history needed" in line)
    assert history_row.split()[-2:] == ["60", "80"]
    assert any("state 1 close_parkinson_20_1H" in line for line in lines)
    assert not any("covariance" in line for line in lines)
    assert shown("diff", "1", "1") == "version 1 and version 1 have the same parameters\n"


def test_diff_compares_the_regimes_of_given_bars(shown, tmp_path):
    bars = make_market(n_bars=600, seed=3)
    table = bars.frame.drop(columns="available_at", errors="ignore")
    table.to_csv(tmp_path / "bars.csv", index=False)
    text = shown("diff", "1", "2", "--bars", str(tmp_path / "bars.csv"))
    assert "shared rows; states matched 0-0, 1-1 agree on" in text
    assert "version 2  calm  turbulent" in text
    missing = shown("diff", "1", "2", "--bars", str(tmp_path / "none.csv"), status=2)
    assert missing.count("\n") == 1


def test_regimes_are_compared_row_by_row():
    bars = make_market(n_bars=600, seed=3)
    old, new = small_detector("BTC", 0), small_detector("BTC", 1)
    swapped = replace(new, labels=("turbulent", "calm"))
    a, b = old.filter(bars), new.filter(bars)
    for other, same in ((new, a["label"] == b["label"]), (swapped, a["label"] != b["label"])):
        found = history.compare_regimes(old, other, bars, ("old", "new"))
        assert found.same_label == pytest.approx(same.mean())
        assert found.agreement.share == pytest.approx((a["state"] == b["state"]).mean())
        assert found.together.to_numpy().sum() == len(a)
        assert found.latest["available_at"] == a["available_at"][~same].iloc[-1]


def test_a_coarser_version_is_compared_at_its_own_rows():
    both = [
        pd.DataFrame(
            {
                "available_at": pd.date_range("2024-01-01", periods=n, freq=freq, tz="UTC"),
                "state": np.arange(n),
                "label": [f"{freq}-{i}" for i in range(n)],
            }
        )
        for n, freq in ((24, "1h"), (6, "4h"))
    ]
    rows = history._side_by_side(*both)
    assert rows["state"].tolist() == [0, 4, 8, 12, 16, 20]
    assert rows["state_new"].tolist() == [0, 1, 2, 3, 4, 5]
    assert history._side_by_side(*both[::-1])["state"].tolist() == [0, 1, 2, 3, 4, 5]


def test_rollback_goes_to_the_version_before_or_a_named_one(shown, store):
    assert shown("rollback").startswith("rolled back from version 2: models:/hmm_regime/Production")
    assert "rolled back" in shown("list").splitlines()[2]
    assert shown("rollback", "--to", "2").startswith("rolled back from version 1: ")
    assert Versions(store.client, NAME).champion().version == "2"
    assert shown("rollback", "--to", "2").startswith("nothing was rolled back: ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("show 9", "error: no version 9 of hmm_regime: there are 1, 2"),
        ("diff 1 x", "error: no version x of hmm_regime: there are 1, 2"),
        ("list --registry none", "error: none has no versions: promote first"),
        ("rollback --to 9", "error: no version 9 of hmm_regime: there are 1, 2"),
    ],
)
def test_bad_input_is_one_line(shown, words, line):
    assert shown(*words.split(), status=2) == f"{line}\n"
