"""pool=true from the command line: one model for all symbols, compared, recorded, promoted."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest

import hmm_exp
from hmm_exp.commands import promote
from hmm_exp.config import Config, DataConfig, ModelConfig, SelectionConfig, SplitConfig, checked
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.errors import ConfigError
from hmm_exp.registry.promotion import champion
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import read_scores
from tests.test_panel import WORDS, write_bars
from tests.test_train_cli import runs_of, store_of

SYMBOLS = ("AAA", "BBB", "BTC^X")


@pytest.fixture(scope="module")
def pooled(tmp_path_factory, empty_store, train_cli):
    """Three symbols of different spans and one that is too short, two configurations."""
    folder = tmp_path_factory.mktemp("pooled")
    shutil.copy(empty_store, folder / "mlflow.db")
    (folder / "lake").mkdir()
    for place, symbol in enumerate(SYMBOLS):
        write_bars(folder / "lake" / f"{symbol}.parquet", 50 + place, 2500 + 100 * place)
    write_bars(folder / "lake" / "TINY.parquet", 9, 120)
    done = train_cli(folder, "-m", *WORDS, "pool=true", "tracking.figures=false")
    return folder, done


def pools_of(folder):
    return runs_of(store_of(folder), tags.POOL)


def best_of(folder):
    parent = runs_of(store_of(folder), "sweep")[0]
    return store_of(folder).get_run(parent.data.tags[tags.POOL])


def test_the_panel_says_what_the_pool_shows(pooled):
    folder, done = pooled
    assert "pool of 3 symbols: " in done.stdout
    assert " of 2 configurations, gain +" in done.stdout
    assert "one model for all forecasts validation " in done.stdout
    assert " than the models of each symbol: " in done.stdout or " as well as " in done.stdout
    assert "TINY is not in the pool: " in done.stdout
    assert best_of(folder).data.tags[tags.VERDICT] in done.stdout
    verdict = runs_of(store_of(folder), "sweep")[0].data.tags[tags.VERDICT]
    assert "one model for all forecasts validation " in verdict


def test_every_configuration_has_a_pool_that_is_a_child_of_the_panel(pooled):
    folder, _ = pooled
    runs = pools_of(folder)
    assert {run.data.tags[tags.CELL] for run in runs} == {"v1@1H diag K=2", "range@1H diag K=2"}
    parent = runs_of(store_of(folder), "sweep")[0].info.run_id
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.info.run_name == f"pool {run.data.tags[tags.CELL]}"
        assert run.data.tags[tags.PARENT_RUN] == parent
        assert run.data.tags[tags.INSTRUMENT] == "pool"
        assert run.data.params["registry.name"] == "hmm_regime.pool"
        assert run.data.metrics["n_symbols"] == 3
        assert {"bic", "return_gain_val", "return_gain_test_bound"} <= set(run.data.metrics)


def test_the_cells_are_those_of_a_panel_without_a_pool(pooled):
    folder, _ = pooled
    client = store_of(folder)
    assert len(runs_of(client, "cell")) == 8
    parent = runs_of(client, "sweep")[0].info.run_id
    table = pd.read_csv(client.download_artifacts(parent, "symbols.csv")).set_index("symbol")
    assert set(table.index) == {*SYMBOLS, "TINY"}
    assert (table["cells"] == 2).all()


def test_the_recorded_comparison_is_that_of_the_winners(pooled):
    folder, _ = pooled
    client, best = store_of(folder), best_of(folder)
    table = pd.read_csv(client.download_artifacts(best.info.run_id, "pool.csv"))
    assert table["symbol"].tolist() == list(SYMBOLS)
    for run in runs_of(client, "symbol"):
        symbol = run.data.tags[tags.SYMBOL]
        if symbol == "TINY":
            continue
        winner = client.get_run(run.data.tags[tags.WINNER])
        own = table.set_index("symbol").loc[symbol, "own_gain_val"]
        assert own == pytest.approx(winner.data.metrics["return_gain_val"])
    assert table["gain_val"].mean() == pytest.approx(best.data.metrics["return_gain_val"])
    scores = read_scores(client, best.info.run_id)
    gain = (scores["model_score"] - scores["static_score"])[scores["split"] == "test"]
    assert gain.mean() == pytest.approx(best.data.metrics["return_gain_test"])


def test_the_pool_is_registered_beside_the_symbols_and_answers_for_each(pooled, monkeypatch):
    folder, done = pooled
    client = store_of(folder)
    monkeypatch.chdir(folder)
    assert "promoted: models:/hmm_regime.pool/Production is version 1" in done.stdout
    assert champion(client, "hmm_regime.pool").run_id == best_of(folder).info.run_id
    found = hmm_exp.load_detector("models:/hmm_regime.pool/Production")
    assert isinstance(found, PooledDetector)
    assert found.symbols == SYMBOLS
    bars = {symbol: pd.read_parquet(folder / "lake" / f"{symbol}.parquet") for symbol in SYMBOLS}
    latest = found.latest(bars)
    assert latest["symbol"].tolist() == list(SYMBOLS)
    assert set(latest["label"]) <= {"calm", "turbulent"}


def test_a_pool_and_the_model_of_one_market_never_replace_each_other(pooled, capsys, monkeypatch):
    """Not even by force."""
    folder, _ = pooled
    monkeypatch.chdir(folder)
    client = store_of(folder)
    best = best_of(folder).info.run_id
    single = next(
        run.data.tags["symbol"]
        for run in runs_of(client, "symbol")
        if champion(client, f"hmm_regime.{run.data.tags['symbol']}") is not None
    )
    before = champion(client, f"hmm_regime.{single}").version
    assert promote.main(["--run", best, "--registry", f"hmm_regime.{single}", "--force"]) == 1
    line = "a pool and the model of one market never replace each other"
    assert line in capsys.readouterr().out
    assert champion(client, f"hmm_regime.{single}").version == before
    winner = champion(client, f"hmm_regime.{single}").run_id
    assert promote.main(["--run", winner, "--registry", "hmm_regime.pool", "--force"]) == 1
    assert line in capsys.readouterr().out


def test_a_pool_is_promoted_again_by_its_run(pooled, capsys, monkeypatch):
    folder, _ = pooled
    monkeypatch.chdir(folder)
    assert promote.main(["--run", best_of(folder).info.run_id]) == 0
    out = capsys.readouterr().out
    assert "models:/hmm_regime.pool/Production already is this model (version 1)" in out
    others = [run for run in pools_of(folder) if run.info.run_id != best_of(folder).info.run_id]
    promote.main(["--run", others[0].info.run_id, "--dry-run", "--gate", "off"])
    assert "would be promoted to models:/hmm_regime.pool/Production" in capsys.readouterr().out


@pytest.mark.slow
def test_a_resumed_panel_fits_no_pool_twice(pooled, train_cli):
    folder, _ = pooled
    before = {run.info.run_id for run in pools_of(folder)}
    sweep_id = runs_of(store_of(folder), "sweep")[0].data.tags[tags.SWEEP_ID]
    words = (*WORDS, "pool=true", "tracking.figures=false", f"sweep_id={sweep_id}")
    again = train_cli(folder, "-m", *words)
    assert {run.info.run_id for run in pools_of(folder)} == before
    assert best_of(folder).data.tags[tags.VERDICT] in again.stdout
    assert "models:/hmm_regime.pool/Production already is this model" in again.stdout
    assert "TINY is not in the pool: " in again.stdout


@pytest.mark.parametrize(
    ("data", "settings", "rule"),
    [
        ("synthetic", {}, "pool=true is set with data=synthetic: it is for data=panel"),
        ("panel", {"split": SplitConfig(kind="walk_forward")}, "split=walk_forward: a pool is"),
        ("panel", {"model": ModelConfig(refit="train_val")}, "model.refit=train_val: a pool"),
        ("panel", {"selection": SelectionConfig(cv_blocks=5)}, "selection.cv_blocks=5: a pool"),
    ],
)
def test_settings_that_a_pool_cannot_follow_are_refused_before_any_work(data, settings, rule):
    config = Config(data=DataConfig(kind=data, path="lake/*.parquet", bar_stamp="open"))
    if data == "synthetic":
        config.data = DataConfig()
    with pytest.raises(ConfigError, match=rule) as caught:
        checked(replace(config, pool=True, **settings))
    assert "\n" not in str(caught.value)


def test_a_symbol_called_pool_is_refused(tmp_path, train_cli):
    (tmp_path / "lake").mkdir()
    for name in ("AAA", "pool"):
        write_bars(tmp_path / "lake" / f"{name}.parquet", 1, 300)
    done = train_cli(tmp_path, "-m", *WORDS, "pool=true")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: symbol pool has the name of the model of all symbols: leave it out by "
        "data.exclude=[pool], or set pool=false"
    )
