"""`load_detectors`: the models of many symbols in a real store, by a pattern of their names."""

from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

import hmm_exp
from hmm_exp.commands.registry import main as registry_command
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.errors import ModelError
from hmm_exp.market.panel import registry_part
from hmm_exp.registry.detectors import find_detectors
from hmm_exp.registry.gate import named_gate
from hmm_exp.registry.promotion import promote
from hmm_exp.registry.versions import Versions
from hmm_exp.serving.mlflow_model import log_detector, sample_bars
from hmm_exp.tracking import tags
from tests.small_detector import candidate, small_detector

SYMBOLS = ["BTC/USDT", "ETH", "X@Y:1"]
PATTERNS = [
    "hmm_regime.*",
    "models:/hmm_regime.*/Production",
    "models:/hmm_regime.*/production",
    "models:/hmm_regime.*@production",
]


def register(store, model, name: str, *, serve: bool = True, **more: str) -> str:
    """Register a model as a version of a name, in Production if `serve`; gives its number."""
    run_id = store.client.create_run(store.experiment_id).info.run_id
    logged = log_detector(store.experiment_id, run_id, model)
    versions = Versions(store.client, name)
    version = versions.create(logged.model_id, run_id, more, "by hand")
    if serve:
        versions.settle(str(version.version))
    return str(version.version)


def name_of(symbol: str) -> str:
    return f"hmm_regime.{registry_part(symbol)}"


@pytest.fixture(scope="module")
def store(store):
    """Three symbols in Production, the first with two versions; and what is no such model."""
    for seed in (0, 1):
        run_id = candidate(store, small_detector(SYMBOLS[0], seed))
        promote(store.client, run_id, registry_name=name_of(SYMBOLS[0]), gate=named_gate("off"))
    for symbol in SYMBOLS[1:]:
        register(store, small_detector(symbol), name_of(symbol), **{tags.INSTRUMENT: symbol})
    register(store, small_detector("NEW"), "hmm_regime.NEW", serve=False, instrument="NEW")
    one = small_detector("ETH")
    pool = PooledDetector({"ETH": one, "BTC/USDT": replace(one, name="BTC/USDT")})
    register(store, pool, "hmm_regime.pool", instrument="pool")
    register(store, one, "hmmXregime.ETH", instrument="ETH")
    return store


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_symbol_gets_the_model_that_its_own_uri_serves(store, pattern):
    found = hmm_exp.load_detectors(pattern)
    assert list(found) == SYMBOLS
    for symbol, detector in found.items():
        served = hmm_exp.load_detector(f"models:/{name_of(symbol)}/Production")
        assert detector.to_dict() == served.to_dict()
    assert found["BTC/USDT"].meta["fingerprint"] == "fp-BTC/USDT-1"


def test_a_model_of_many_symbols_is_left_out_and_named(store):
    found = find_detectors("hmm_regime.*")
    assert found.others == ["hmm_regime.pool"]
    assert not found.failed
    with pytest.raises(ModelError, match="matches no model of one symbol, only hmm_reg"):
        hmm_exp.load_detectors("hmm_regime.p*")


def test_only_the_symbols_asked_for_are_read(store):
    assert list(find_detectors("hmm_regime.*", ["ETH", "NO"]).detectors) == ["ETH"]


def test_a_pattern_may_be_one_name_or_have_classes(store):
    assert list(hmm_exp.load_detectors(name_of("BTC/USDT"))) == ["BTC/USDT"]
    assert list(hmm_exp.load_detectors("hmm_regime.[A-E]*")) == ["BTC/USDT", "ETH"]


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("hmm_regimes.ETH*", r"no registered model matches .* \(did you mean hmm_regime.ETH\?\)"),
        ("zzz", "no registered model matches zzz; there are hmmXregime.ETH, .* and 3 more"),
        ("hmm_regime.eth", "no registered model matches hmm_regime.eth"),
        ("hmm_regime.N*", "hmm_regime.N.* has no version in Production: promote one of hmm_reg"),
        ("hmm*.ETH", "2 models of symbol ETH in Production: hmmXregime.ETH and hmm_regime.ETH"),
        ("models:/hmm_regime.*/2", "names no models in Production: give a pattern"),
        ("hmm_regime.*@challenger", "names no models in Production: give a pattern"),
        ("runs:/abc*", "names no models in Production: give a pattern"),
        ("it's%*", "no registered model matches it's%"),
    ],
)
def test_what_names_no_models_is_one_line(store, pattern, line):
    with pytest.raises(ModelError, match=line) as caught:
        hmm_exp.load_detectors(pattern)
    assert "\n" not in str(caught.value)


def test_a_symbol_without_a_tag_is_the_name_in_the_detector(store):
    register(store, small_detector("untagged"), "old.model")
    assert list(hmm_exp.load_detectors("old.*")) == ["untagged"]


def test_a_damaged_model_fails_alone(store):
    for symbol in ("good", "bad"):
        register(store, small_detector(symbol), f"half.{symbol}", instrument=symbol)
    (version,) = Versions(store.client, "half.bad").all()
    place = store.client.get_model_version_download_uri("half.bad", version.version)
    file = Path(place.removeprefix("file://")) / "data" / "detector.json"
    file.write_text(file.read_text().replace("0.95", "0.94"))
    found = find_detectors("half.*")
    assert list(found.detectors) == ["good"]
    assert "models:/half.bad/1/data/detector.json is a damaged detector" in str(found.failed["bad"])
    with pytest.raises(ModelError, match=r"models:/half.bad/1"):
        hmm_exp.load_detectors("half.*")


def test_more_models_than_one_question_holds_are_found(store, monkeypatch):
    monkeypatch.setattr("hmm_exp.registry.detectors._PAGE", 2)
    monkeypatch.setattr("hmm_exp.registry.detectors._IDS", 2)
    assert list(hmm_exp.load_detectors("hmm_regime.*")) == SYMBOLS


def test_a_deleted_version_serves_no_longer_and_a_model_outside_of_the_search_is_found(store):
    number = register(store, small_detector("GONE"), "gone.A", instrument="GONE")
    experiment = store.client.create_experiment("deleted")
    run_id = store.client.create_run(experiment).info.run_id
    logged = log_detector(experiment, run_id, small_detector("KEPT"))
    versions = Versions(store.client, "gone.B")
    versions.create(logged.model_id, run_id, {tags.INSTRUMENT: "KEPT"}, "by hand")
    versions.settle("1")
    store.client.delete_experiment(experiment)
    Versions(store.client, "gone.A").remove(number)
    assert list(hmm_exp.load_detectors("gone.*")) == ["KEPT"]


def test_the_champions_of_a_pattern_are_one_table(store, capsys):
    where = ["--tracking-uri", store.uri, "--registry"]
    assert registry_command(["list", *where, "hmm_regime.*"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["model", "version", "since"]
    assert [row.split()[:2] for row in rows] == [
        ["hmm_regime.BTC~2FUSDT", "2"],
        ["hmm_regime.ETH", "1"],
        ["hmm_regime.X~40Y~3A1", "1"],
        ["hmm_regime.pool", "1"],
    ]
    for command in (["rollback"], ["show", "1"], ["diff", "1", "2"]):
        assert registry_command([*command, *where, "hmm_regime.*"]) == 2
        assert f"{command[0]} takes one registered model" in capsys.readouterr().err
    assert registry_command(["list", *where, "none.*"]) == 2
    assert "no registered model matches none.*" in capsys.readouterr().err


def test_names_of_symbols_work_in_mlflow_and_in_the_history(store, capsys):
    name = name_of("BTC/USDT")
    model = mlflow.pyfunc.load_model(f"models:/{name}/Production", suppress_warnings=True)
    answer = model.predict(sample_bars(model.get_raw_model()))
    assert list(answer["state"].unique())
    where = ["--registry", name, "--tracking-uri", store.uri]
    assert registry_command(["list", *where]) == 0
    assert "BTC/USDT" in capsys.readouterr().out
    assert registry_command(["rollback", *where]) == 0
    assert f"models:/{name}/Production is version 1" in capsys.readouterr().out
    found = hmm_exp.load_detectors("hmm_regime.*")["BTC/USDT"]
    assert found.meta["fingerprint"] == "fp-BTC/USDT-0"
    by_alias = hmm_exp.load_detectors(f"models:/{name}@production")["BTC/USDT"]
    assert by_alias.to_dict() == found.to_dict()
