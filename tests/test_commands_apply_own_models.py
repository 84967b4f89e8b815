"""`hmm-apply` with the model of each symbol: files, newest regimes, and a feed of many symbols."""

import io
import json
import sys
from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from joblib.externals.loky import get_reusable_executor

from hmm_exp.commands import symbols
from hmm_exp.commands.apply import main
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.features.recipe import Recipe
from hmm_exp.registry.versions import Versions
from tests.conftest import ROOT
from tests.live_detector import SHORT, gappy_bars, live_detector
from tests.test_registry_detectors import name_of, register

RECIPE = Recipe.of_set("v1", ["1H"], **SHORT)
MODELS = "models:/hmm_regime.*/Production"
SYMBOLS = {"BTC": 400, "ETH": 700, "X/Y": 500}  # bars of each
N_HISTORY = 300


def model_of(symbol: str):
    """Another model for each symbol, of two, three and four states."""
    place = list(SYMBOLS).index(symbol)
    return live_detector(RECIPE, seed=place, n_states=place + 2)


@pytest.fixture(scope="module")
def store(store):
    for symbol in SYMBOLS:
        register(store, model_of(symbol), name_of(symbol), instrument=symbol)
    return store


@pytest.fixture(scope="module")
def bars():
    """Bars of each symbol, of its own length and gaps."""
    return {symbol: gappy_bars(n, seed=n) for symbol, n in SYMBOLS.items()}


@pytest.fixture(scope="module")
def expected(bars):
    """The regimes that the model of each symbol gives."""
    return {
        symbol: model_of(symbol).filter(own).reset_index(drop=True) for symbol, own in bars.items()
    }


@pytest.fixture
def folder(store, bars, tmp_path, monkeypatch):
    """Folders of bars by symbol."""
    monkeypatch.chdir(tmp_path)
    for symbol, own in bars.items():
        place = tmp_path / "lake" / f"symbol={symbol.replace('/', '%2F')}"
        place.mkdir(parents=True)
        own.frame.to_parquet(place / "0.parquet")
    return tmp_path


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Status, lines of output and lines of complaints of a command; `text` comes through a pipe."""

    def start(*words: str, text: str = "", model: str = MODELS) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        status = main(["--model", model, *words])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return start


def add_symbol(folder, bars, symbol: str) -> None:
    place = folder / "lake" / f"symbol={symbol}"
    place.mkdir()
    bars["BTC"].frame.to_parquet(place / "0.parquet")


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame):
    assert ours.columns.tolist() == theirs.columns.tolist()
    for name in theirs:
        assert ours[name].tolist() == theirs[name].tolist(), name


def read_csv(path) -> pd.DataFrame:
    frame = pd.read_csv(path)
    for name in ("timestamp", "available_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).dt.as_unit("ns")
    return frame


def test_each_symbol_gets_the_regimes_of_its_own_model(folder, expected, run):
    status, _, err = run("--bars", "lake", "--output", "regimes")
    assert status == 0
    for symbol, name in zip(SYMBOLS, ["BTC", "ETH", "X~2FY"], strict=True):
        assert_same(pd.read_parquet(folder / "regimes" / f"{name}.parquet"), expected[symbol])
    total = sum(map(len, expected.values()))
    assert err[-1] == f"regimes: {total:,} rows written, 3 of 3 symbols"
    table = err[err.index("regime now  symbols") + 1 : -1]
    decided = [own["regime"].iloc[-1] for own in expected.values()]
    now = ["undecided" if number < 0 else f"vol-{number + 1}" for number in decided]
    counts = {line.split()[0]: int(line.split()[1]) for line in table}
    assert counts == {label: now.count(label) for label in now}


def test_csv_files_hold_the_same(folder, expected, run):
    assert run("--bars", "lake", "--output", "regimes", "--csv")[0] == 0
    for symbol, name in zip(SYMBOLS, ["BTC", "ETH", "X~2FY"], strict=True):
        assert_same(read_csv(folder / "regimes" / f"{name}.csv"), expected[symbol])


@pytest.mark.parametrize("file", ["all.parquet", "all.csv"])
def test_a_long_table_has_the_columns_of_the_model_with_most_states(folder, expected, run, file):
    assert run("--bars", "lake", "--long", "--output", file)[0] == 0
    found = pd.read_parquet(file) if file.endswith("parquet") else read_csv(file)
    assert list(found) == ["symbol", *expected["X/Y"].columns]
    for symbol, own in expected.items():
        rows = found[found["symbol"] == symbol].reset_index(drop=True)
        assert_same(rows[list(own)], own)
        assert rows.drop(columns=["symbol", *own]).isna().all().all()


@pytest.fixture
def fresh_processes(monkeypatch):
    """Processes as a command starts them: MLflow leaves the code of models in the path of tests."""
    monkeypatch.syspath_prepend(ROOT)
    get_reusable_executor().shutdown(wait=True)
    yield
    get_reusable_executor().shutdown(wait=True)


@pytest.mark.usefixtures("fresh_processes")
def test_other_processes_write_the_same_bytes(folder, bars, run, monkeypatch):
    words = ["--bars", "lake", "--output"]
    run(*words, "alone")
    run("--bars", "lake", "--long", "--output", "alone.parquet")
    (folder / "lake" / "symbol=ETH" / "0.parquet").write_bytes(b"PAR1 and no more")
    monkeypatch.setattr(symbols, "_TRIAL", 0.0)
    monkeypatch.setattr(symbols, "_PAYS_FROM", 0.0)
    monkeypatch.setattr("hmm_exp.parallel.cores", lambda: 2)
    status, _, err = run(*words, "helped")
    assert status == 1
    assert any(line.startswith("ETH: lake/symbol=ETH/0.parquet is a damaged") for line in err)
    for name in ("BTC.parquet", "X~2FY.parquet"):
        alone, helped = (folder / place / name for place in ("alone", "helped"))
        assert alone.read_bytes() == helped.read_bytes()
    bars["ETH"].frame.to_parquet(folder / "lake" / "symbol=ETH" / "0.parquet")
    run("--bars", "lake", "--long", "--output", "helped.parquet")
    assert pq.read_table("alone.parquet").equals(pq.read_table("helped.parquet"))


def test_what_has_no_counterpart_is_named_and_is_no_failure(folder, bars, expected, run):
    add_symbol(folder, bars, "DOGE")
    (folder / "lake" / "symbol=ETH" / "0.parquet").unlink()
    status, out, err = run("--bars", "lake", "--latest")
    assert status == 0
    assert err[-2:] == ["1 symbol without model: DOGE", "1 model without bars: ETH"]
    rows = [json.loads(line) for line in out]
    assert [row["symbol"] for row in rows] == ["BTC", "X/Y"]
    for row in rows:
        assert row["p_state_1"] == expected[row["symbol"]].iloc[-1]["p_state_1"]


def test_a_symbol_that_is_asked_for_must_have_a_model(folder, bars, run):
    add_symbol(folder, bars, "DOGE")
    status, out, err = run("--bars", "lake", "--symbols", "DOGE,BTC", "--latest")
    assert status == 1
    assert len(out) == 1
    assert err[-2] == f"DOGE: {MODELS} has no model of this symbol"
    assert err[-1] == "error: 1 of 2 symbols failed"


def test_names_that_never_meet_are_one_line(folder, bars, run):
    bars["BTC"].frame.to_parquet("BTCUSDT.parquet")
    status, _, err = run("--bars", "BTCUSDT.parquet", "--latest")
    assert (status, len(err)) == (2, 1)
    assert "bars are of BTCUSDT, models of BTC, ETH, X/Y; --symbol-pattern" in err[0]
    words = ["--bars", "BTCUSDT.parquet", "--symbol-pattern", "(.*)USDT", "--latest"]
    assert run(*words)[0] == 0


def test_no_model_is_one_line(folder, run):
    status, _, err = run("--bars", "lake", "--latest", model="models:/hmm_regimes.*/Production")
    assert (status, len(err)) == (2, 1)
    assert "did you mean hmm_regime." in err[0]


def test_a_pool_gives_each_symbol_its_detector(folder, bars, run):
    models = {symbol: model_of("BTC") for symbol in ("BTC", "ETH", "LTC")}
    PooledDetector(models).save("pool.json")
    status, out, err = run("--bars", "lake", "--latest", model="pool.json")
    assert status == 0
    own = model_of("BTC").filter(bars["ETH"]).iloc[-1]
    assert json.loads(out[1])["p_state_1"] == own["p_state_1"]
    assert err[-2:] == ["1 symbol without model: X/Y", "1 model without bars: LTC"]


# --- a feed


@pytest.fixture
def feed(bars):
    """The bars after the history as a feed of all symbols brings them: in order of time."""
    long = pd.concat([own.frame[N_HISTORY:].assign(symbol=s) for s, own in bars.items()])
    return long.sort_index(kind="stable").astype({"timestamp": str})


def text_of(feed: pd.DataFrame, form: str) -> str:
    if form == "csv":
        return feed.to_csv(index=False)
    return "".join(f"{json.dumps(bar)}\n" for bar in feed.to_dict("records"))


@pytest.fixture
def history(folder, bars):
    long = pd.concat([own.frame[:N_HISTORY].assign(symbol=s) for s, own in bars.items()])
    long.to_csv("history.csv", index=False)
    return ["--follow", "--missing", "gap", "--bars", "history.csv"]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_feed_gets_the_regimes_of_each_symbol(run, feed, expected, history, form):
    words = [*history, *(["--json"] if form == "json" else [])]
    status, out, err = run(*words, text=text_of(feed, form))
    assert status == 0, err
    if form == "csv":
        rows = pd.read_csv(io.StringIO("\n".join(out)))
    else:
        rows = pd.DataFrame([json.loads(line) for line in out])
    assert rows["symbol"].value_counts().to_dict() == feed["symbol"].value_counts().to_dict()
    assert rows["available_at"].is_monotonic_increasing
    for symbol, own in expected.items():
        mine = rows[rows["symbol"] == symbol]
        for name in (name for name in own if name.startswith("p_state")):
            assert mine[name].tolist() == own[name].tolist()[-len(mine) :]


def test_a_feed_resumes_with_each_row_once(folder, run, feed, expected, history):
    words = [*history, "--state", "states", "--output", "live"]
    text = text_of(feed, "csv").splitlines(keepends=True)
    assert run(*words, text="".join(text[:200]))[0] == 0
    with (folder / "live" / "BTC.csv").open("a") as file:
        file.write("half a li")  # as a kill leaves it
    status, _, err = run(*words, text="".join([text[0], *text[150:]]))
    assert status == 0, err
    assert "states: 3 of 3 symbols resume after their bars" in err
    for symbol, own in expected.items():
        name = symbol.replace("/", "~2F")
        found = read_csv(folder / "live" / f"{name}.csv")
        assert_same(found, own[-len(found) :].reset_index(drop=True))
        assert len(found) == (feed["symbol"] == symbol).sum()


def test_a_symbol_that_fails_in_a_feed_costs_only_itself(folder, run, feed, expected, history):
    lines = text_of(feed, "json").splitlines(keepends=True)
    bad = '{"symbol": "ETH", "timestamp": "2021-03-20", "open": "much"}\n'
    unknown = json.dumps({"symbol": "DOGE", "timestamp": "2021-03-20"}) + "\n"
    text = "".join([*lines[:40], bad, unknown, unknown, *lines[40:]])
    status, _, err = run(*history, "--output", "live", text=text)
    assert status == 1
    assert [line for line in err if "DOGE" in line] == [
        "no model of symbol DOGE; its bars are left out from now on"
    ]
    assert any(line.startswith("ETH: ") and line.endswith("from now on") for line in err)
    assert err[-1] == "error: 1 of 3 symbols failed: ETH"
    found = read_csv(folder / "live" / "BTC.csv")
    assert_same(found, expected["BTC"][-len(found) :].reset_index(drop=True))
    assert len(found) == (feed["symbol"] == "BTC").sum()
    n_before = (feed["symbol"][:40] == "ETH").sum()
    assert len(read_csv(folder / "live" / "ETH.csv")) == n_before


def test_with_dropped_rows_a_bad_line_costs_no_symbol(run, feed, history):
    lines = text_of(feed, "csv").splitlines(keepends=True)
    text = "".join([*lines[:40], "what?\n", *lines[40:]])
    status, out, err = run(*history, text=text)
    assert (status, err[-1][:6]) == (2, "error:")
    status, out, err = run(*history, "--bad-rows", "drop", text=text)
    assert status == 0
    assert len(out) == len(lines)
    assert [line for line in err if line.startswith("skipped: ")] == err[-1:]


def test_a_model_trained_with_dropped_rows_drops_those_of_its_feed(
    store, folder, run, feed, history, monkeypatch
):
    monkeypatch.setattr(symbols, "_CUT_FROM", 2)  # the history, too, is read as always
    model = model_of("ETH")
    drops = replace(model, reading=replace(model.reading, bad_rows="drop"))
    register(store, drops, name_of("ETH"), instrument="ETH")
    lines = text_of(feed, "json").splitlines(keepends=True)
    bad = [json.dumps({"symbol": s, "timestamp": "2021-03-20", "open": "much"}) for s in SYMBOLS]
    text = "".join([*lines[:40], *(f"{line}\n" for line in bad[:2]), *lines[40:]])
    try:
        status, _, err = run(*history, "--output", "live", text=text)
    finally:
        Versions(store.client, name_of("ETH")).settle("1")
    assert status == 1
    assert err[-1] == "error: 1 of 3 symbols failed: BTC"  # it was trained on sound rows alone
    assert len([line for line in err if line.startswith("skipped: ETH: ")]) == 1
    assert len(read_csv(folder / "live" / "ETH.csv")) == (feed["symbol"] == "ETH").sum()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("timestamp,open,high,low,close,volume\n", "names symbols: send one called symbol"),
        ("what\n", "names no columns: send a header"),
        ('{"symbol": "", "timestamp": 1}\n', "has no symbol in 'symbol'"),
        ('{"timestamp": 1}\n', "no column of timestamp names symbols"),
    ],
)
def test_a_feed_without_symbols_is_one_line(run, text, line):
    status, _, err = run("--follow", text=text)
    assert (status, len(err)) == (2, 1)
    assert line in err[0]


def test_a_new_model_of_one_symbol_stops_only_that_one(store, folder, run, feed, history):
    words = [*history, "--state", "states"]
    assert run(*words, text=text_of(feed[:30], "csv"))[0] == 0
    register(store, live_detector(RECIPE, seed=9), name_of("ETH"), instrument="ETH")
    try:
        status, _, err = run(*words, text=text_of(feed[30:], "csv"))
    finally:
        Versions(store.client, name_of("ETH")).settle("1")
    assert status == 1
    (line, last) = [line for line in err if "ETH" in line and "1H" not in line]
    assert line.startswith("ETH: states/ETH.json was saved with another model")
    assert last == "error: 1 of 3 symbols failed: ETH"
