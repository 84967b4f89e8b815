"""`hmm-monitor` on many symbols, each with its own model in a real store."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from hmm_exp.commands.monitor import main
from hmm_exp.market.synthetic import make_market
from tests.small_detector import small_detector
from tests.test_monitor import fitted, later
from tests.test_registry_detectors import name_of, register

MODELS = "models:/hmm_regime.*/Production"
PRICES = ["open", "high", "low", "close"]


@pytest.fixture(scope="module")
def store(store):
    """One model of a baseline for three symbols, and one without a baseline."""
    from tests.conftest import small_config

    detector = fitted(small_config.__wrapped__()).detector
    for symbol in ("CALM", "WILD", "GONE"):
        register(store, replace(detector, name=symbol), name_of(symbol), instrument=symbol)
    register(store, small_detector("BARE"), name_of("BARE"), instrument="BARE")
    return store


@pytest.fixture
def folder(store, tmp_path, monkeypatch):
    """Files of bars: one market as in training, one with moves that grow."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lake").mkdir()
    quiet = later(make_market(n_bars=2500, seed=5)).frame
    wild = quiet.copy()
    wild.iloc[1250:, wild.columns.get_indexer(PRICES)] **= 1.5
    for symbol, frame in {"CALM": quiet, "WILD": wild, "NEW": quiet}.items():
        frame.to_parquet(tmp_path / "lake" / f"{symbol}.parquet", index=False)
    return tmp_path


def run(capsys, *words: str) -> tuple[int, list[str], list[str]]:
    status = main(["--model", MODELS, *words])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def test_each_symbol_is_judged_by_its_own_model(folder, capsys):
    status, out, err = run(capsys, "--bars", "lake", "--output", "m.json")
    assert status == 1
    assert [line.split()[0] for line in out[1:3]] == ["WILD", "CALM"]
    assert out[-1] == "ALARM for 1 of 2 symbols: WILD"
    assert err[-2:] == ["1 symbol without model: NEW", "2 models without bars: BARE, GONE"]
    reports = json.loads((folder / "m.json").read_text())
    assert {symbol: one["alarm"] for symbol, one in reports.items()} == {
        "CALM": False,
        "WILD": True,
    }
    alone = main(
        ["--model", f"models:/{name_of('WILD')}/Production", "--bars", "lake/WILD.parquet"]
    )
    assert alone == 1
    assert reports["WILD"]["alarm_at"] in capsys.readouterr().out


def test_symbols_as_expected_are_no_alarm(folder, capsys):
    status, out, _ = run(capsys, "--bars", "lake", "--symbols", "CALM")
    assert (status, out[-1]) == (0, "1 symbol as expected")


def test_a_symbol_that_cannot_be_monitored_is_named(folder, capsys):
    pd.read_parquet("lake/CALM.parquet").to_parquet("lake/BARE.parquet", index=False)
    status, out, err = run(capsys, "--bars", "lake", "--symbols", "CALM,BARE")
    assert status == 2
    assert out[-1] == "1 symbol as expected"
    assert err[-2].startswith("BARE: this model has no monitoring baseline")
    assert err[-1] == "error: 1 of 2 symbols failed: BARE"


def test_a_figure_is_of_one_symbol(folder, capsys):
    with pytest.raises(SystemExit):
        main(["--model", MODELS, "--bars", "lake", "--figure", "x.png"])
    assert "--figure draws one symbol" in capsys.readouterr().err
