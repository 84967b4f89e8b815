"""A panel that was killed goes on: finished symbols stay, and files may have changed in between."""

import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

from hmm_exp.config import Config, TrackingConfig
from hmm_exp.market.panel import PanelSymbol
from hmm_exp.market.synthetic import make_market
from hmm_exp.panel.finish import FinishedPanel
from hmm_exp.panel.plan import Job
from hmm_exp.panel.symbol import Symbol
from hmm_exp.store.store import open_store
from hmm_exp.sweep.finish import close_left
from hmm_exp.tracking import tags
from tests.small_detector import forget_store
from tests.test_sweep_plan import needs
from tests.test_train_cli import runs_of, store_of
from tests.watching import processes_in, until

SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE")
WORDS = (
    *("data=panel", "data.path=lake/*.parquet", "data.bar_stamp=open", "features=range"),
    *("model.n_states=2,3", "model.n_init=1", "tracking.report=false", "tracking.figures=false"),
)
SAME = ["status", "winner", "K", "gain_val", "gain_test", "ewma_gain_test", "regime", "since"]
ENGINES = [
    pytest.param(("compute=joblib", "compute.workers=2"), marks=needs("joblib"), id="joblib"),
    pytest.param(
        ("compute=ray", "+hydra.launcher.ray.init.num_cpus=2"), marks=needs("ray"), id="ray"
    ),
]


def write_bars(place: Path, seed: int, n_regimes: int = 3) -> None:
    market = make_market(1000, n_regimes, seed).frame
    market.reset_index(drop=True).to_parquet(place)


def make_lake(folder: Path, symbols: tuple[str, ...]) -> None:
    (folder / "lake").mkdir()
    for symbol in symbols:
        write_bars(folder / "lake" / f"{symbol}.parquet", 200 + ord(symbol[0]))


def table_of(folder: Path) -> pd.DataFrame:
    client = store_of(folder)
    parent = runs_of(client, "sweep")[0].info.run_id
    path = client.download_artifacts(parent, "symbols.csv")
    return pd.read_csv(path, dtype={"K": str}).set_index("symbol")


def finished(folder: Path, kind: str) -> dict[str, object]:
    runs = runs_of(store_of(folder), kind)
    return {run.info.run_id: run for run in runs if run.info.status == "FINISHED"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, empty_store, train_cli):
    """Table of a serial panel over all symbols, the one that comes later included."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(empty_store, folder / "mlflow.db")
    make_lake(folder, (*SYMBOLS, "NEW"))
    done = train_cli(folder, "-m", *WORDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return table_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_panel_goes_on_over_files_that_came_went_and_changed(
    undisturbed,
    train_cli,
    workdir,
    started,
    engine,
):
    make_lake(workdir, SYMBOLS)
    (workdir / "lake" / "BAD.parquet").write_bytes(b"PAR1 is not all")
    main = started(workdir, *WORDS, *engine)
    until(lambda: "sweep " in main.output())
    until(lambda: [r for r in finished(workdir, "symbol").values() if tags.WINNER in r.data.tags])
    main.send_signal(signal.SIGKILL)
    main.wait()
    until(lambda: not processes_in(workdir))  # what was left ends by itself
    symbols, cells = finished(workdir, "symbol"), finished(workdir, "cell")
    changed, *kept = sorted(symbols, key=lambda run: symbols[run].info.start_time)
    other = symbols[changed].data.tags[tags.SYMBOL]
    write_bars(workdir / "lake" / f"{other}.parquet", 1, n_regimes=1)  # has no winner
    (workdir / "lake" / "BAD.parquet").unlink()
    write_bars(workdir / "lake" / "NEW.parquet", 200 + ord("N"))
    sweep_id = runs_of(store_of(workdir), "sweep")[0].data.tags[tags.SWEEP_ID]
    done = train_cli(workdir, "-m", *WORDS, *engine, f"sweep_id={sweep_id}")
    assert done.returncode == 0, done.stdout + done.stderr

    table = table_of(workdir)
    assert set(table.index) == {*SYMBOLS, "NEW"}
    assert table.loc[other, "status"] == "no winner"
    others = sorted({*SYMBOLS, "NEW"} - {other})
    pd.testing.assert_frame_equal(table.loc[others, SAME], undisturbed.loc[others, SAME])
    after = finished(workdir, "symbol")
    assert tags.WINNER not in after[changed].data.tags
    assert {after[run].info.end_time for run in kept} == {
        symbols[run].info.end_time for run in kept
    }
    again = finished(workdir, "cell")
    assert set(cells) < set(again)
    marks = [run.data.tags[tags.FINGERPRINT] for run in again.values()]
    assert len(set(marks)) == len(marks) == 2 * (len(SYMBOLS) + 1 + 1)  # two of the data before
    statuses = {
        run.info.status for kind in ("sweep", "cell") for run in runs_of(store_of(workdir), kind)
    }
    assert "RUNNING" not in statuses


@pytest.mark.slow
@needs("ray")
def test_ray_gives_a_job_to_another_worker_which_fits_nothing_again(train_cli, workdir):
    from tests.warm import FAULTS

    make_lake(workdir, SYMBOLS[:1])
    faults = {"PYTHONPATH": FAULTS, "KILL_AT": "recording", "KILL_ONCE": str(workdir / "killed")}
    done = train_cli(workdir, "-m", *WORDS, *ENGINES[1].values[0], **faults)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workdir / "killed").exists()
    assert len(finished(workdir, "symbol")) == len(runs_of(store_of(workdir), "symbol")) == 1
    states = sorted(run.data.params["model.n_states"] for run in finished(workdir, "cell").values())
    assert states == ["2", "3"]
    assert table_of(workdir).loc["AAA", "cells"] == 2


@pytest.fixture
def panel(workdir):
    """A store with a panel of two symbols: A has a winner, B has none."""
    store = open_store(TrackingConfig(uri=f"sqlite:///{workdir}/mlflow.db"))
    settings = Config(sweep_id="20260102-030405-abcd")
    settings.tracking.uri = store.uri
    settings.registry.name = "hmm_regime.{symbol}"
    settings.sweep.attempt = 2
    place = {tags.SWEEP_ID: str(settings.sweep_id)}
    create, experiment = store.client.create_run, store.experiment_id
    parent = create(experiment, tags=place | {tags.KIND: "sweep"}).info.run_id
    settings.sweep.parent_run = parent
    for name in "AB":
        about = place | {tags.SYMBOL: name, tags.OWNER: "elsewhere 12 34"}
        cell = create(experiment, tags=about | {tags.KIND: "cell", tags.ATTEMPT: "1"})
        store.client.set_terminated(cell.info.run_id, "FINISHED" if name == "A" else "FAILED")
        winner = {tags.WINNER: cell.info.run_id} if name == "A" else {}
        create(experiment, tags=about | {tags.KIND: "symbol"} | winner)
    yield store, settings
    forget_store()


def test_a_symbol_whose_file_is_gone_counts_if_it_has_a_winner(panel):
    _, settings = panel
    found = FinishedPanel.read(settings, ["C"])
    assert found.names == ["A", "C"]
    assert list(found.winners) == ["A"]
    table = found.table({}, {}).set_index("symbol")
    assert table.loc["C", ["status", "reason", "model"]].tolist() == [
        "failed",
        "it left no run",
        "hmm_regime.C",
    ]
    assert table.loc["A", "status"] == "failed"  # its run is RUNNING: it was not judged to the end


def test_a_panel_without_any_run_has_a_table(panel):
    store, settings = panel
    for run in runs_of(store.client, "symbol"):
        store.client.delete_run(run.info.run_id)
    found = FinishedPanel.read(settings, ["C", "D"])
    table = found.table({}, {})
    assert table["status"].tolist() == ["failed", "failed"]
    assert table["K"].isna().all()
    assert found.verdict(table, {})[-1].startswith("0 of 2 symbols in Production")
    assert not found.complete


def test_symbols_that_a_lost_worker_left_are_closed_at_the_end(panel):
    store, settings = panel
    close_left(store, str(settings.sweep_id))
    assert {run.info.status for run in runs_of(store.client, "symbol")} == {"KILLED"}


def test_a_finished_symbol_stays_finished_until_something_of_it_is_new(panel):
    store, settings = panel
    symbol = next(r for r in runs_of(store.client, "symbol") if r.data.tags[tags.SYMBOL] == "A")
    store.client.set_terminated(symbol.info.run_id)
    one = Symbol(Job(settings, [], [settings]), 0, PanelSymbol("A", "a.csv"), store, 1)
    found = one._found(one._recorded())
    assert store.client.get_run(found.info.run_id).info.status == "FINISHED"
    one._reopen(found)
    assert store.client.get_run(found.info.run_id).info.status == "RUNNING"
    assert one._found([]) is None
