"""`data=ccxt`: candles are downloaded once before training, from a stand-in of an exchange."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import hmm_exp.train  # noqa: F401, registers the schema
from hmm_exp.config import DataConfig, checked, conf_dir, to_config
from hmm_exp.config.used import used
from hmm_exp.errors import ConfigError, DataError, DownloadError
from hmm_exp.experiment.candles import download
from hmm_exp.experiment.source import read_source
from hmm_exp.market import exchange as market
from tests.conftest import OF_HYDRA
from tests.stand_in_exchange import standing_in

pytest.importorskip("ccxt")
FILE = Path("bars/binance-BTC-USDT-1h.parquet")


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(market, "PAUSES", (0,) * 5)


def settings(*words: str) -> DataConfig:
    with initialize_config_dir(str(conf_dir()), **OF_HYDRA):
        return checked(to_config(compose("config", ["data=ccxt", *words]))).data


def of_binance(url: str, *more: str) -> DataConfig:
    words = ("data.exchange=binance", "data.symbol=BTC/USDT", "data.since=2020-01-01")
    return settings(*words, f"data.url={url}", *more)


def test_a_file_that_is_missing_is_downloaded_and_read_as_bars_of_the_symbol(capsys):
    with standing_in(faults={2: 429}, missing={40}) as exchange:
        download(of_binance(exchange.url))
        source = read_source(of_binance(exchange.url))
    assert [path.name for path in FILE.parent.iterdir()] == [FILE.name]
    assert (source.name, len(source.time)) == ("BTC/USDT", 249)
    assert str(source.time[0]) == "2020-01-01 01:00:00+00:00"  # known when the first hour is over
    assert source.report["gaps"]["missing_bars"] == 1
    assert (
        "249 candles, 2020-01-01T00:00:00Z to 2020-01-11T09:00:00Z; 1 gap"
        in capsys.readouterr().err
    )


def test_a_file_that_exists_stays_though_newer_candles_have_closed(capsys):
    with standing_in(n_candles=20) as exchange:
        download(of_binance(exchange.url))
        before, n_requests = FILE.read_bytes(), len(exchange.sent)
        exchange.n_candles = 25
        capsys.readouterr()
        download(of_binance(exchange.url), quiet=True)
        assert (FILE.read_bytes(), len(exchange.sent)) == (before, n_requests)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("span", "named"),
    [
        (("data.since=2020-01-01 05:00", "data.until=2020-01-03"), "data.since=.* and data.until"),
        (("data.until=2020-01-01 12:00",), "data.until=2020-01-01 12:00"),
        (("data.since=2019-12-01", "data.until=2020-02-01"), None),
    ],
)
def test_a_file_that_exists_and_holds_bars_outside_the_span_is_named(capsys, span, named):
    with standing_in(n_candles=100) as exchange:
        download(of_binance(exchange.url))
        capsys.readouterr()
        data = of_binance(exchange.url)
        values = dict(word.removeprefix("data.").split("=") for word in span)
        download(replace(data, **values))
        said = capsys.readouterr().err
        download(replace(data, **values), quiet=True)
    line = f"^warning: {FILE} exists and holds bars outside {named}.*: all of them are used; delete"
    assert re.match(line, said) if named else said == ""
    assert capsys.readouterr().err == ""


def test_a_download_that_breaks_off_is_no_file_to_train_on_and_goes_on_later():
    with standing_in(faults=dict.fromkeys(range(2, 8), "drop")) as exchange:
        with pytest.raises(DownloadError, match="no answer"):
            download(of_binance(exchange.url))
        assert not FILE.exists()
        n_requests = len(exchange.asked)
        download(of_binance(exchange.url))
        assert len(exchange.asked) == n_requests + 2  # the first of three pages is there
        assert len(read_source(of_binance(exchange.url)).time) == 250


def test_a_path_and_a_span_of_ones_own():
    span = ("data.since='2020-01-02 06:00'", "data.until=2020-01-03", "data.path=mine.csv")
    with standing_in() as exchange:
        data = of_binance(exchange.url, *span)
        download(data)
        assert len(read_source(data).time) == 18
    assert os.listdir() == ["mine.csv"]  # noqa: PTH208


def test_a_time_before_which_nothing_has_closed_leaves_no_file():
    with standing_in(n_candles=5) as exchange:
        data = replace(of_binance(exchange.url), since="2030-01-01")
        with pytest.raises(DataError, match=r"data\.since=2030-01-01: no candle of binance"):
            download(data)
    assert not FILE.exists()


def test_what_is_downloaded_is_recorded_and_other_bars_record_nothing_of_it():
    data = of_binance("http://127.0.0.1:9")
    config = checked(to_config(_config()))
    assert not {name for name in used(config) if name.endswith(("exchange", "since", "until"))}
    known = used(replace(config, data=data))
    assert (known["data.exchange"], known["data.timeframe"]) == ("binance", "1h")


def _config():
    with initialize_config_dir(str(conf_dir()), **OF_HYDRA):
        return compose("config", ["data=bars", "data.path=b.csv", "data.bar_stamp=open"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "data.exchange is not set: data=ccxt needs it .data.exchange=binance"),
        (("data.exchange=binance",), "data.symbol is not set"),
        (("data.exchange=binance", "data.symbol=BTC/USDT"), "data.since is not set"),
        (("data=bars", "data.exchange=binance"), "data.symbol is not set"),
        (("data=synthetic", "data.since=2020-01-01"), "with data=synthetic: add data=ccxt"),
        (("data=features_csv", "data.exchange=kraken"), "with data=features: add data=ccxt"),
    ],
)
def test_settings_of_a_download_that_lack_or_contradict_others_are_refused(words, line):
    with pytest.raises(ConfigError, match=line) as error:
        settings(*words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("more", ["data.bar_stamp=close", "data.symbol_column=coin"])
def test_how_a_download_is_stamped_is_no_choice(more):
    with pytest.raises(ConfigError, match="a download stamps the open and holds one symbol"):
        of_binance("http://127.0.0.1:9", more)


@pytest.mark.slow
def test_a_sweep_downloads_each_symbol_once_and_a_wrong_one_stops_it_first(
    tmp_path, train_cli, empty_store
):
    words = ("data=ccxt", "data.exchange=binance", "data.since=2020-01-01", "features=returns")
    small = ("model.n_init=1", "tracking.figures=false", "tracking.report=false", "gate=off")
    with standing_in(n_candles=1500, page=1000) as exchange:
        url = f"data.url={exchange.url}"
        wrong = train_cli(tmp_path, "-m", *words, url, "data.symbol=BTC/USTD,ETH/USDT", *small)
        assert (wrong.returncode, wrong.stderr.count("error:")) == (2, 1)
        assert "data.symbol=BTC/USTD: no such market (did you mean BTC/USDT?)" in wrong.stderr
        assert exchange.asked == []
        done = train_cli(
            *(tmp_path, "-m", *words, url, "data.symbol=BTC/USDT,ETH/USDT", "model.n_states=2,3"),
            *small,
        )
        assert len(exchange.asked) == 4  # two pages of each symbol, for four cells
    assert "binance-ETH-USDT-1h.parquet: 1,500 rows, 1H" in done.stderr
    assert "symbol=ETH/USDT" in done.stdout
