"""A panel from the command line: every symbol is judged by itself, all of them are controlled."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hmm_exp.commands import promote
from hmm_exp.config import Config, GateConfig
from hmm_exp.errors import ConfigError
from hmm_exp.experiment.days import by_day, write_days
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.judge.panel import judge_panel
from hmm_exp.judge.split import SPLIT_NAMES
from hmm_exp.market.panel import PanelSymbol
from hmm_exp.market.synthetic import make_market
from hmm_exp.panel.plan import Job, escaped, model_name, name_template
from hmm_exp.registry.gate import PanelTest, asked_gains
from hmm_exp.registry.promotion import champion
from hmm_exp.store.relocation import relocate
from hmm_exp.sweep.housekeeping import removable, sweep_text, sweeps_table
from hmm_exp.sweep.plan import with_values
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import read_scores
from tests.test_train_cli import runs_of, store_of

SYMBOLS = ("AAA", "BBB", "BTC^X", "CCC")  # three with regimes of volatility; CCC has none
WORDS = (
    *("data=panel", "data.path=lake/*.parquet", "data.bar_stamp=open", "features=v1,range"),
    *("model.n_states=2", "model.n_init=1", "tracking.report=false"),
)


def write_bars(place: Path, seed: int, n_bars: int = 2500) -> None:
    market = make_market(n_bars, 1 if "CCC" in place.name else 3, seed).frame
    market.reset_index(drop=True).to_parquet(place)


@pytest.fixture(scope="module")
def panel(tmp_path_factory, empty_store, train_cli):
    """Four symbols of different spans, and a file that is broken."""
    folder = tmp_path_factory.mktemp("panel")
    shutil.copy(empty_store, folder / "mlflow.db")
    (folder / "lake").mkdir()
    for place, symbol in enumerate(SYMBOLS):
        write_bars(folder / "lake" / f"{symbol}.parquet", 50 + place, 2500 + 100 * place)
    (folder / "lake" / "BAD.parquet").write_bytes(b"PAR1 is not all")
    (folder / "worse").mkdir()
    for name in ("X.csv", "Y.csv"):
        (folder / "worse" / name).write_text("a,b\n1,2\n")
    done = train_cli(folder, "-m", *WORDS)
    return folder, done


def by_symbol(folder: Path, kind: str) -> dict[str, list]:
    found: dict[str, list] = {}
    for each in runs_of(store_of(folder), kind):
        found.setdefault(each.data.tags[tags.SYMBOL], []).append(each)
    return found


def table_of(folder: Path) -> pd.DataFrame:
    client = store_of(folder)
    parent = runs_of(client, "sweep")[0].info.run_id
    path = client.download_artifacts(parent, "symbols.csv")
    return pd.read_csv(path, dtype={"K": str}).set_index("symbol")


def test_a_broken_file_costs_its_own_symbol(panel):
    folder, done = panel
    assert done.returncode == 1, done.stderr
    table = table_of(folder)
    assert set(table.index) == {*SYMBOLS, "BAD"}
    assert table.loc["BAD", "status"] == "no winner"
    assert "BAD.parquet" in table.loc["BAD", "reason"]
    assert (table.loc[list(SYMBOLS), "status"] == "finished").all()
    assert set(table.loc[list(SYMBOLS), "K"]) <= {"2", "3"}  # whole, although one has none
    assert "NOT FINISHED: BAD: " in done.stdout
    assert "go on with sweep_id=" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "] BAD " in line]
    assert line.startswith("[2/5] BAD  2 of 2 cells failed: ")


def test_cells_are_children_of_their_symbol_and_symbols_of_the_panel(panel):
    folder, _ = panel
    client = store_of(folder)
    (parent,) = runs_of(client, "sweep")
    symbols, cells = by_symbol(folder, "symbol"), by_symbol(folder, "cell")
    assert parent.data.tags[tags.N_SYMBOLS] == "5"
    assert set(symbols) == set(cells) == {*SYMBOLS, "BAD"}
    for name, (one,) in symbols.items():
        assert one.data.tags[tags.PARENT_RUN] == parent.info.run_id
        assert one.info.status == ("FAILED" if name == "BAD" else "FINISHED")
        assert len(cells[name]) == 2
        for cell in cells[name]:
            assert cell.data.tags[tags.PARENT_RUN] == one.info.run_id
            assert cell.data.tags[tags.SWEEP_ID] == parent.data.tags[tags.SWEEP_ID]


def test_a_symbol_of_a_panel_is_judged_as_in_a_sweep_of_its_own(panel, train_cli, workdir):
    folder, _ = panel
    words = ("data=bars", f"data.path={folder}/lake/BBB.parquet", "data.bar_stamp=open")
    alone = ("features=v1,range", "model.n_states=2", "model.n_init=1", "promote=false")
    done = train_cli(workdir, "-m", *words, *alone, "tracking.report=false", "plots=all")
    assert done.returncode == 0, done.stderr
    (sweep,) = runs_of(store_of(workdir), "sweep")
    cells = {run.data.tags[tags.FINGERPRINT]: run for run in runs_of(store_of(workdir), "cell")}
    (symbol,) = by_symbol(folder, "symbol")["BBB"]
    for cell in by_symbol(folder, "cell")["BBB"]:
        twin = cells.pop(cell.data.tags[tags.FINGERPRINT])
        same = {name for name in twin.data.metrics if not name.startswith(("seconds", "log_lik_h"))}
        assert {name: cell.data.metrics[name] for name in same} == {
            name: twin.data.metrics[name] for name in same
        }
        is_winner = cell.info.run_id == symbol.data.tags[tags.WINNER]
        assert is_winner == (twin.info.run_id == sweep.data.tags[tags.WINNER])
    for name in ("reality_check_p_white", "winner_gain_val"):
        assert symbol.data.metrics[name] == sweep.data.metrics[name]


def test_only_winners_have_figures(panel):
    folder, _ = panel
    client = store_of(folder)
    winners = {run.data.tags.get(tags.WINNER) for (run,) in by_symbol(folder, "symbol").values()}
    for cell in runs_of(client, "cell"):
        names = {item.path for item in client.list_artifacts(cell.info.run_id)}
        assert ("plots" in names) == (cell.info.run_id in winners)


def test_promotions_follow_the_false_discovery_rate_and_the_gate(panel):
    folder, _ = panel
    client, table = store_of(folder), table_of(folder)
    cells = {run.info.run_id: run for run in runs_of(client, "cell")}
    gains = {}
    for name in SYMBOLS:
        (symbol,) = by_symbol(folder, "symbol")[name]
        scores = read_scores(client, symbol.data.tags[tags.WINNER])
        test = scores[scores["split"] == "test"]
        gains[name] = pd.DataFrame({"static": test["model_score"] - test["static_score"]})
        assert cells[symbol.data.tags[tags.WINNER]].data.tags[tags.INSTRUMENT] == name
    expected = judge_panel(gains, GateConfig().fdr)
    np.testing.assert_allclose(table.loc[list(SYMBOLS), "q_bh"], expected["q_bh"])
    promoted = {name for name in SYMBOLS if table.loc[name, "promoted"] == "yes"}
    assert {"AAA", "BBB"} <= promoted <= set(expected.index[expected["promoted"]])
    assert "CCC" not in promoted
    assert "gate.fdr" in table.loc["CCC", "reason"]
    for name in SYMBOLS:
        model = table.loc[name, "model"]
        served = champion(client, model)
        assert (served is not None) == (name in promoted)
        if served:
            assert served.tags[tags.INSTRUMENT] == name


def test_days_tell_the_decided_regime_of_the_winner(panel):
    folder, _ = panel
    client = store_of(folder)
    (symbol,) = by_symbol(folder, "symbol")["AAA"]
    days = pq.read_table(client.download_artifacts(symbol.info.run_id, "days.parquet"))
    labels = json.loads(days.schema.metadata[b"labels"])
    regimes = pd.read_csv(client.download_artifacts(symbol.data.tags[tags.WINNER], "regimes.csv"))
    assert labels[-1] == "turbulent"
    assert len(labels) == regimes["state"].max() + 1
    frame = days.to_pandas()
    stamps = pd.to_datetime(regimes["available_at"]).dt.date
    for day in (frame["day"].iloc[5], frame["day"].iloc[-2]):
        counts = regimes["regime"][stamps == day].value_counts()
        assert counts[frame["regime"][frame["day"] == day].iloc[0]] == counts.max()
    assert symbol.data.tags["now.regime"] in symbol.data.tags[tags.REGIME_NOW]


def test_a_panel_resumes_with_what_is_left_and_keeps_the_rest(panel, train_cli, tmp_path):
    before, _ = panel
    folder = tmp_path / "copy"
    shutil.copytree(before, folder)
    relocate(folder / "mlflow.db")
    (folder / "lake" / "BAD.parquet").unlink()
    write_bars(folder / "lake" / "BAD.parquet", 99)
    client = store_of(folder)
    kept = {run.info.run_id for run in runs_of(client, "cell") if run.info.status == "FINISHED"}
    sweep_id = runs_of(client, "sweep")[0].data.tags[tags.SWEEP_ID]
    done = train_cli(folder, "-m", *WORDS, f"sweep_id={sweep_id}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("already fitted") == len(SYMBOLS)
    cells = [run for run in runs_of(store_of(folder), "cell") if run.info.status == "FINISHED"]
    assert kept < {run.info.run_id for run in cells}
    assert len({run.data.tags[tags.FINGERPRINT] for run in cells}) == len(cells) == 10
    table = table_of(folder)
    assert table.loc["BAD", "status"] == "finished"
    assert set(table["promoted"]) <= {"already", "yes", "no"}


def test_a_recorded_panel_is_promoted_again_by_its_id(panel, monkeypatch, capsys):
    folder, _ = panel
    monkeypatch.chdir(folder)
    uri = f"sqlite:///{folder}/mlflow.db"
    status = promote.main(["--sweep", "latest", "--dry-run", "--tracking-uri", uri])
    shown = capsys.readouterr().out
    assert status == 0
    assert "already" in shown
    assert "forecast test bars better than the static Student-t" in shown
    status = promote.main(["--sweep", "latest", "--gate", "strictest", "--tracking-uri", uri])
    assert "the" in capsys.readouterr().out
    assert status in (0, 1)


def test_a_cell_of_a_panel_is_promoted_under_the_name_of_its_symbol(panel, capsys):
    folder, _ = panel
    uri = f"sqlite:///{folder}/mlflow.db"
    (symbol,) = by_symbol(folder, "symbol")["CCC"]
    for run_id in (symbol.data.tags[tags.WINNER], symbol.info.run_id):  # its own means its winner
        status = promote.main(["--run", run_id, "--tracking-uri", uri])
        shown = capsys.readouterr().out
        assert status == 1
        assert "gate.fdr" in shown


def test_the_sweeps_command_knows_a_panel(panel):
    folder, _ = panel
    client = store_of(folder)
    sweep_id = runs_of(client, "sweep")[0].data.tags[tags.SWEEP_ID]
    shown = sweep_text(client, sweep_id)
    assert "AAA" in shown
    assert "q_bh" in shown
    n_winners = table_of(folder)["winner"].notna().sum()
    assert f"{n_winners} of {len(SYMBOLS) + 1} symbols" in sweeps_table(client)
    can_go, _ = removable(client, sweep_id)
    assert {run.data.tags[tags.SYMBOL] for run in can_go} == {"BAD"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("data.path=none/*.parquet",), "no file matches none/*.parquet"),
        (("registry.name=mine",), "registry.name=mine.{symbol}"),
        (("data.gaps=split,bridge",), "a panel reads its symbols once"),
        (("data.symbols=[AAB]",), "did you mean AAA?"),
        (("gate.fdr=0",), "gate.fdr=0"),
        (("data.symbols=[BAD]",), "BAD.parquet"),
        (("data.path=worse/*",), "none of 2 symbols can be read, the first is X: no column named"),
        (("plots=all,winner",), "plots=all,winner: one value for the whole sweep"),
        (("gate.fdr=.01,.05",), "one value for the whole sweep"),
        (("gate=default,strict",), "one value for the whole sweep"),
        (("sweep.symbols=x",), "the program sets it"),
    ],
)
def test_bad_input_to_a_panel_is_one_line(panel, train_cli, words, line):
    folder, _ = panel
    n_runs = len(runs_of(store_of(folder), "sweep"))
    done = train_cli(folder, "-m", *WORDS, *words)
    assert done.returncode == 2
    (shown,) = [text for text in done.stderr.splitlines() if text]
    assert shown.startswith("error: ")
    assert line in shown
    assert len(runs_of(store_of(folder), "sweep")) == n_runs


def test_a_panel_is_a_sweep(panel, train_cli):
    folder, _ = panel
    done = train_cli(folder, *WORDS, "model.n_states=2")
    assert done.returncode == 2
    assert "add -m" in done.stderr


def test_one_market_has_no_winner_of_its_own_figures(panel, train_cli):
    folder, _ = panel
    done = train_cli(folder, "plots=winner")
    assert done.returncode == 2
    assert "it is for data=panel" in done.stderr


def test_a_name_in_the_registry_holds_the_symbol():
    assert name_template("hmm_regime") == "hmm_regime.{symbol}"
    assert name_template("{symbol}_regime") == "{symbol}_regime"
    assert model_name("x.{symbol}", "BTC/USDT") == "x.BTC~2FUSDT"
    with pytest.raises(ConfigError, match=r"registry\.name=x\.\{symbol\}"):
        name_template("x")
    symbols = [PanelSymbol("BTC", "a"), PanelSymbol("A:B", "b"), PanelSymbol("C/D", "c")]
    assert escaped("x.{symbol}", symbols[:1]) == []
    (line,) = escaped("x.{symbol}", symbols)
    assert line.startswith("A:B is registered as x.A~3AB, and so 1 more")


def test_a_job_gives_every_symbol_the_settings_of_all_configurations():
    base = Config()
    base.registry.name = "hmm_regime.{symbol}"
    base.sweep.symbols = json.dumps([[3, "B/C", "x.parquet", "ticker"]])
    changes = [{}, {"model.n_states": 4, "features.name": "range"}]
    base.sweep.configurations = json.dumps(changes)
    job = Job.of(base)
    ((number, one),) = job.symbols
    first, second = job.cells_of(one, "run")
    assert number == 3
    assert (first.data.symbol, first.data.symbol_column, first.data.name) == (
        "B/C",
        "ticker",
        "B/C",
    )
    assert (first.model.n_states, second.model.n_states) == (None, 4)
    assert (first.features.name, second.features.name) == ("v1", "range")
    assert first.registry.name == "hmm_regime.B~2FC"
    assert first.sweep.parent_run == "run"
    assert not first.tracking.figures
    drawn = Job.of(with_values(base, {"plots": "all"})).cells_of(one, "run")
    assert all(cell.tracking.figures for cell in drawn)


@pytest.mark.parametrize(("q", "weight"), [(0.05, "note"), (0.051, "refuse")])
def test_a_symbol_passes_up_to_the_false_discovery_rate(q, weight):
    assert PanelTest(0.01, q, 0.2, 0.05, 40).finding.weight == weight


def test_gains_that_are_only_warned_about_are_not_asked_for():
    assert asked_gains(GateConfig()) == ["static"]
    assert asked_gains(replace(GateConfig(), ewma_gain="refuse")) == ["static", "ewma"]
    assert asked_gains(replace(GateConfig(), static_gain="warn")) == []


@pytest.fixture(scope="module", params=["ratio", "walk_forward"])
def result(request):
    config = Config()
    config.data.n_bars, config.model.n_init, config.model.n_states = 2000, 1, 3
    config.data.bar_stamp, config.split.kind = "open", request.param
    return run(prepare(config))


def test_a_day_has_its_most_frequent_decided_regime(result):
    days, prepared = by_day(result), result.prepared
    bars = prepared.source.bars.frame
    date = bars.index.tz_convert(None).date
    regime = pd.Series(-1, bars.index)
    known = result.regimes.set_index("available_at")["regime"]
    regime.loc[known.index] = known
    assert list(days["day"]) == sorted(set(date))
    for number, day in enumerate(days["day"]):
        of_day = regime[date == day]
        decided = of_day[of_day >= 0]
        expected = -1 if decided.empty else int(decided.mode().iloc[0])
        assert days["regime"].iloc[number] == expected
        assert days["close"].iloc[number] == np.float32(bars["close"][date == day].iloc[-1])
        last = np.flatnonzero(date == day)[-1]
        assert days["split"].iloc[number] == SPLIT_NAMES[prepared.target_part[last]]


def test_days_are_written_with_their_labels(result, tmp_path):
    write_days(result, tmp_path)
    stored = pq.read_table(io.BytesIO((tmp_path / "days.parquet").read_bytes()))
    assert json.loads(stored.schema.metadata[b"labels"]) == list(result.detector.labels)
    assert stored.schema.field("regime").type == "int8"
