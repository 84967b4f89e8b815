"""`hmm-download` against a stand-in of an exchange on loopback: pages, faults, kill and resume."""

import os
import signal
import socket
import subprocess
import sys

import pandas as pd
import pytest

from hmm_exp.commands import download
from hmm_exp.market import exchange as market
from tests.conftest import ROOT
from tests.stand_in_exchange import BASES, BEGIN, HOUR, StandIn, kline, standing_in

pytest.importorskip("ccxt")
COLUMNS = ["timestamp", "open", "high", "low", "close", "volume"]
NEW = ("--since", "2020-01-01")


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No proxy on the way to loopback, and no waiting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(market, "PAUSES", (0,) * 5)


def words(url: str, *more: str, symbol: str = "BTC/USDT") -> list[str]:
    return ["--exchange=binance", "--symbol", symbol, "--timeframe=1h", f"--url={url}", *more]


def run(exchange: StandIn, *more: str, **options) -> int:
    return download.main(words(exchange.url, *more, **options))


def expected(exchange: StandIn, base: str = "BTC") -> pd.DataFrame:
    """The closed candles of the stand-in."""
    places = [i for i in range(exchange.n_candles) if i not in exchange.missing]
    rows = [list(map(float, kline(i, BASES[base])[:6])) for i in places]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.assign(
        timestamp=pd.to_datetime(frame.timestamp.astype("int64"), unit="ms", utc=True)
    )


def check(path: str, exchange: StandIn, base: str = "BTC") -> None:
    """The file holds each closed candle once, bit for bit."""
    frame = pd.read_parquet(path) if path.endswith("parquet") else pd.read_csv(path)
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True).dt.as_unit("ms")
    theirs = expected(exchange, base)
    theirs["timestamp"] = theirs["timestamp"].dt.as_unit("ms")
    pd.testing.assert_frame_equal(frame[COLUMNS], theirs, check_exact=True)


@pytest.mark.parametrize("name", ["bars.parquet", "bars.csv"])
def test_every_closed_candle_arrives_once_through_all_faults(name, capsys):
    faults = {1: 500, 2: 429, 3: "drop", 5: "page"}
    missing = {120, 121, 122, 200}
    with standing_in(missing=missing, faults=faults, doubled=1) as exchange:
        assert run(exchange, *NEW, "--output", name) == 0
        check(name, exchange)
    out, err = capsys.readouterr()
    assert out == (
        f"{name}: 246 candles of binance BTC/USDT 1h (246 new), 2020-01-01T00:00:00Z to "
        "2020-01-11T09:00:00Z; 2 gaps with 4 missing candles, the longest after "
        "2020-01-05T23:00:00Z (3 missing); 3 repeated candles dropped\n"
    )
    assert [line[:5] for line in err.splitlines()] == ["note:"] * 4
    assert "429" in err
    assert os.listdir() == [name]  # noqa: PTH208
    for headers in exchange.sent:
        assert not {"Authorization", "Cookie", "X-MBX-APIKEY"} & set(headers)


@pytest.mark.parametrize("name", ["bars.parquet", "bars.csv"])
def test_a_killed_download_goes_on_where_it_was_and_ends_in_the_same_file(name, tmp_path):
    with standing_in(faults={3: "stall"}) as exchange:
        program = "import sys; from hmm_exp.commands.download import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *words(exchange.url, *NEW, "--output", name)]
        killed = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": _path()})
        assert exchange.stalled.wait(60)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    table = pd.read_parquet(name) if name.endswith("parquet") else pd.read_csv(name)
    assert len(table) == 200
    with standing_in() as exchange:
        assert run(exchange, *NEW, "--output", name) == 0
        assert [int(query["startTime"]) for query in exchange.asked] == [BEGIN + 200 * HOUR]
        assert run(exchange, *NEW, "--output", f"whole_{name}") == 0
        check(name, exchange)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole_{name}").read_bytes()


def _path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, sys.path)])


def test_the_same_command_later_adds_what_has_closed_since(tmp_path, capsys):
    with standing_in(n_candles=30) as exchange:
        assert run(exchange, *NEW, "--output=bars.csv") == 0
        assert run(exchange, *NEW, "--output=bars.csv") == 0
        exchange.n_candles = 33
        assert run(exchange, "--output=bars.csv") == 0
        check("bars.csv", exchange)
    new = [
        line.partition(" new)")[0].rpartition("(")[2]
        for line in capsys.readouterr().out.split("\n")
    ]
    assert new[:3] == ["30", "0", "3"]


def test_an_answer_of_another_kind_is_asked_for_again_and_named(capsys):
    with standing_in(faults={2: "object"}) as exchange:
        assert run(exchange, *NEW, "--output=bars.csv") == 0
        check("bars.csv", exchange)
    assert "trying again in 0 s: binance answers something else than asked for" in (
        capsys.readouterr().err
    )
    with standing_in(faults=dict.fromkeys(range(1, 9), "object")) as exchange:
        assert run(exchange, *NEW, "--output=none.csv") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: binance: no answer: binance answers something else than asked")


def test_candles_that_are_missing_at_the_end_are_reported(capsys):
    with standing_in(missing={247, 248, 249}) as exchange:
        assert run(exchange, *NEW, "--output=bars.csv") == 0
        assert run(exchange, "--until=2020-01-11T08:30", "--output=bars.csv") == 0
        assert run(exchange, "--until=2020-01-11T07:59", "--output=bars.csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("; none from 2020-01-11T07:00:00Z to 2020-01-11T10:30:00Z")
    assert lines[1].endswith("; none from 2020-01-11T07:00:00Z to 2020-01-11T08:30:00Z")
    assert lines[2].endswith(" to 2020-01-11T06:00:00Z")


def test_a_refused_connection_is_named(capsys):
    with standing_in() as exchange:
        pass
    assert run(exchange, *NEW, "--output=bars.csv") == 1
    assert "refused" in capsys.readouterr().err.splitlines()[0]


def test_a_name_that_ends_in_a_slash_is_a_folder(tmp_path):
    with standing_in() as exchange:
        assert run(exchange, *NEW, "--output=lake.v2/") == 0
    assert [path.name for path in (tmp_path / "lake.v2").iterdir()] == ["BTC-USDT.parquet"]


def test_the_exchange_decides_what_is_closed_whatever_this_machine_thinks(monkeypatch):
    monkeypatch.setattr(market.time, "time", lambda: 4e9)
    with standing_in(n_candles=5) as exchange:
        assert run(exchange, *NEW, "--output=bars.csv") == 0
        check("bars.csv", exchange)


def test_until_is_the_close_of_the_last_candle(capsys):
    with standing_in() as exchange:
        span = ("--since", "2020-01-02 06:00", "--until", "2020-01-02 09:30")
        assert run(exchange, *span, "--output=bars.csv") == 0
    assert (
        "3 candles of binance BTC/USDT 1h (3 new), 2020-01-02T06:00:00Z to"
        in capsys.readouterr().out
    )


def test_several_symbols_get_a_file_each_in_a_folder(tmp_path, capsys):
    with standing_in(n_candles=20) as exchange:
        assert run(exchange, *NEW, "--output=lake", symbol="ETH/USDT,BTC/USDT") == 0
        for base in ("BTC", "ETH"):
            check(f"lake/{base}-USDT.parquet", exchange, base)
    assert capsys.readouterr().out.count("20 candles of binance") == 2


def test_candles_that_the_exchange_does_not_have_are_named(capsys):
    with standing_in(n_candles=20) as exchange:
        assert run(exchange, "--since=2019-12-01", "--output=bars.csv") == 0
        check("bars.csv", exchange)
    assert capsys.readouterr().out.endswith("; none from 2019-12-01T00:00:00Z to the first\n")


def test_an_exchange_that_stops_answering_leaves_what_arrived(capsys):
    with standing_in(faults=dict.fromkeys(range(3, 20), "drop")) as exchange:
        assert run(exchange, *NEW, "--output=bars.parquet") == 1
        assert len(exchange.asked) == 8
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: binance: no answer: binance GET http://127.0.0.1:")
    assert len(pd.read_parquet("bars.parquet")) == 200


def test_a_pause_that_no_one_waits_for_ends_the_download(capsys):
    with standing_in(faults={1: 429}, headers={"Retry-After": "86400"}) as exchange:
        assert run(exchange, *NEW, "--output=bars.parquet") == 1
        assert len(exchange.asked) == 1
    assert "it asks for a pause of 86,400 s" in capsys.readouterr().err
    assert os.listdir() == []  # noqa: PTH208


def test_a_login_for_other_programs_is_not_sent(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login someone password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with standing_in(n_candles=5) as exchange:
        assert run(exchange, *NEW, "--output=bars.csv") == 0
        assert len(exchange.sent) == 3
        assert not any("Authorization" in headers for headers in exchange.sent)


@pytest.mark.parametrize("garbage", ["exchangeInfo", "klines"])
def test_an_answer_that_is_a_web_page_is_one_line(garbage, capsys):
    with standing_in(garbage=garbage) as exchange:
        assert run(exchange, *NEW, "--output=bars.csv") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: binance: no answer: binance answers, but not in JSON")


def test_a_refusal_is_not_repeated(capsys):
    with standing_in(faults={1: 451}) as exchange:
        assert run(exchange, *NEW, "--output=bars.parquet") == 1
        assert len(exchange.asked) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_pause_that_an_exchange_asks_for_is_kept(monkeypatch, capsys):
    waited = []
    monkeypatch.setattr(market.time, "sleep", waited.append)
    with standing_in(n_candles=5, faults={1: 429}, headers={"Retry-After": "7"}) as exchange:
        assert run(exchange, *NEW, "--output=bars.csv") == 0
        check("bars.csv", exchange)
    assert 7 in waited


def test_without_a_network_there_is_one_line_and_no_file(capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert download.main(words(url, *NEW, "--output=bars.csv")) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["note"] * 5 + ["error"]
    assert os.listdir() == []  # noqa: PTH208


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--exchange=binanse",), "--exchange binanse: no such exchange (did you mean binance?)"),
        (("--exchange=zaif",), "--exchange zaif: this exchange gives no candles"),
        (
            ("--symbol=BTC/USTD",),
            "--symbol BTC/USTD: no such market (did you mean BTC/USDT?) among",
        ),
        (("--timeframe=7h",), "--timeframe 7h: binance has 1s, 1m, 3m,"),
        (("--url=http://u:p@127.0.0.1",), "--url http://127.0.0.1: must be http:// or https://"),
        (("--url=127.0.0.1",), "--url 127.0.0.1: must be http:// or https:// and a host"),
        (("--timeframe=1M",), "--timeframe 1M: binance has"),
        (("--since=soon",), "--since soon is not a date"),
        (
            ("--since=2024-02-01", "--until=2024-01-01"),
            "--until 2024-01-01 is not after --since 2024-02-01",
        ),
        (("--until=now",), "--until now is not a date"),
        (("--since=2030-01-01",), "binance BTC/USDT 1h: the exchange has no closed candle in this"),
        (("--output=bars.xlsx",), "bars.xlsx: the name must end in .parquet or .csv"),
        (("--output=none/bars.csv",), "--output none/bars.csv: the folder none does not exist"),
        (("--symbol=BTC/USDT,ETH/USDT",), "--output bars.csv: must be a folder for 2 symbols"),
        (
            ("--symbol=A/B,A:B", "--output=lake"),
            "--symbol A/B A:B: two of them have one file's name",
        ),
    ],
)
def test_bad_input_is_one_line_and_asks_for_no_candle(more, says, capsys):
    with standing_in(n_candles=5) as exchange:
        assert run(exchange, *NEW, "--output=bars.csv", *more) == 2
        assert exchange.asked == []
    error = capsys.readouterr().err
    assert error.startswith(f"error: {says}")
    assert error.count("\n") == 1
    assert os.listdir() == []  # noqa: PTH208


def test_a_new_file_needs_its_first_time(capsys):
    with standing_in() as exchange:
        assert run(exchange, "--output=bars.csv") == 2
        assert exchange.sent == []
    assert capsys.readouterr().err == "error: --since is not set: bars.csv is new and needs it\n"


def test_a_file_of_another_symbol_stays_as_it_is(tmp_path, capsys):
    with standing_in(n_candles=20) as exchange:
        assert run(exchange, *NEW, "--output=bars.csv") == 0
        before = (tmp_path / "bars.csv").read_bytes()
        assert run(exchange, *NEW, "--output=bars.csv", symbol="ETH/USDT") == 2
    assert (tmp_path / "bars.csv").read_bytes() == before
    assert "bars.csv holds binance BTC/USDT 1h, not binance ETH/USDT 1h" in capsys.readouterr().err


def test_without_ccxt_the_line_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ccxt", None)
    assert download.main(words("http://127.0.0.1:9", *NEW, "--output=bars.csv")) == 2
    assert capsys.readouterr().err == "error: downloads need ccxt: pip install 'hmm_exp[ccxt]'\n"
