"""Promotion and rollback in a real store: who may replace whom, and what Production serves."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import numpy as np
import pytest

import hmm_exp
from hmm_exp.config import GateConfig
from hmm_exp.errors import TrackingError
from hmm_exp.registry import installation, promotion
from hmm_exp.registry.gate import named_gate
from hmm_exp.registry.promotion import champion, promote, rollback
from hmm_exp.store.store import Store
from hmm_exp.tracking import tags
from scripts import promote as promote_script
from scripts import rollback as rollback_script
from tests.small_detector import candidate, shown_scores, small_detector

ROOT = Path(__file__).resolve().parents[1]
GATE = GateConfig()
OFF = named_gate("off")


@pytest.fixture(scope="module")
def trio(store) -> list[str]:
    """Three runs on one instrument; a run may stand in many registries."""
    return [candidate(store, small_detector("BTC", seed)) for seed in range(3)]


@pytest.fixture
def name(request) -> str:
    return request.node.name.replace("[", "_").replace("]", "")


def put(store: Store, name: str, run_id: str, **options) -> promotion.Decision:
    """Promote under the default gate."""
    return promote(store.client, run_id, registry_name=name, **{"gate": GATE, **options})


def in_production(store: Store, name: str) -> list[str]:
    """Versions in the stage Production; it must hold one, a URI serves the highest."""
    versions = store.client.search_model_versions(f"name = '{name}'")
    return [str(v.version) for v in versions if v.current_stage == "Production"]


def served(name: str) -> str:
    """Instrument and seed of what Production serves, by its fingerprint."""
    by_stage = hmm_exp.load_detector(f"models:/{name}/Production")
    by_alias = hmm_exp.load_detector(f"models:/{name}@production")
    assert by_stage.to_dict() == by_alias.to_dict()
    return by_stage.meta["fingerprint"]


def test_a_promoted_model_is_served_by_its_uri(store: Store, name):
    run_id = candidate(store, small_detector("BTC"))
    decision = put(store, name, run_id)
    assert decision.promoted
    assert (decision.version, decision.reasons, decision.warnings) == ("1", [], [])
    assert decision.naming.story == "fresh: the first version"
    detector = hmm_exp.load_detector(f"models:/{name}/Production")
    model = mlflow.pyfunc.load_model(f"models:/{name}/Production")
    assert detector.to_dict() == model.get_raw_model().to_dict() == small_detector("BTC").to_dict()
    assert champion(store.client, name).run_id == run_id


def test_a_version_records_its_origin(store: Store, name):
    run_id = candidate(store, small_detector("BTC"))
    put(store, name, run_id)
    version = store.client.get_model_version(name, "1")
    assert version.run_id == run_id
    assert version.tags[tags.SWEEP_ID] == "sweep-1"
    assert version.tags[tags.INSTRUMENT] == "BTC"
    assert version.tags["bic"] == "1234.5"
    assert run_id in version.description
    assert "sweep-1" in version.description
    run = store.client.get_run(run_id)
    assert run.data.tags[tags.GATE_DECISION] == "promoted"


def test_the_newer_takes_over_and_the_stage_holds_it_alone(store: Store, name, trio):
    put(store, name, trio[0])
    assert put(store, name, trio[1]).version == "2"
    assert in_production(store, name) == ["2"]
    assert store.client.get_model_version(name, "1").current_stage == "Archived"
    assert served(name) == "fp-BTC-1"


def test_the_champion_itself_and_its_twin_change_nothing(store: Store, name):
    run_id = candidate(store, small_detector("BTC"))
    twin = candidate(store, small_detector("BTC"))
    put(store, name, run_id)
    for again in (run_id, twin):
        decision = put(store, name, again)
        assert decision.noop
        assert not decision.promoted
        assert not decision.refused
    assert len(store.client.search_model_versions(f"name = '{name}'")) == 1
    shown = [store.client.get_run(run).data.tags[tags.GATE_DECISION] for run in (run_id, twin)]
    assert shown == ["promoted", "unchanged"]


def test_hard_faults_are_refused_with_every_reason_on_the_run(store: Store, name, trio):
    put(store, name, trio[0])
    faulty = candidate(store, small_detector("BTC", 1), faults="not converged; state 2 is empty")
    decision = put(store, name, faulty)
    assert decision.reasons == ["hard fault: not converged", "hard fault: state 2 is empty"]
    assert in_production(store, name) == ["1"]
    run = store.client.get_run(faulty)
    assert run.data.tags[tags.GATE_DECISION] == "refused"
    assert run.data.tags[tags.GATE_REASONS] == "; ".join(decision.reasons)
    assert run.data.tags[tags.GATE] == "default"
    assert "gain over the static Student-t" in run.data.tags[tags.GATE_NOTES]
    assert put(store, name, faulty, gate=OFF).promoted


def test_a_refusal_changes_nothing_in_the_registry(store: Store, name, trio):
    put(store, name, candidate(store, small_detector("BTC", 0)))
    before = registry_state(store, name)
    weak = candidate(store, small_detector("BTC", 1), scores=shown_scores(gain=-0.01))
    decision = put(store, name, weak)
    assert "is not above zero" in decision.reasons[0]
    assert registry_state(store, name) == before


def registry_state(store: Store, name: str) -> list[dict]:
    """All that the store holds of a registered model."""
    versions = store.client.search_model_versions(f"name = '{name}'")
    model = store.client.get_registered_model(name)
    return [dict(version) for version in versions] + [dict(model)]


def test_force_turns_reasons_into_recorded_warnings(store: Store, name):
    faulty = candidate(store, small_detector("BTC"), faults="not converged")
    decision = put(store, name, faulty, force=True)
    assert decision.promoted
    assert decision.warnings == ["forced: hard fault: not converged"]
    run = store.client.get_run(faulty)
    assert run.data.tags[tags.GATE_REASONS] == "forced: hard fault: not converged"


def test_a_dry_run_changes_nothing(store: Store, name):
    run_id = candidate(store, small_detector("BTC"))
    decision = put(store, name, run_id, dry_run=True)
    assert not decision.promoted
    assert not decision.refused
    assert champion(store.client, name) is None
    assert tags.GATE_DECISION not in store.client.get_run(run_id).data.tags


def test_a_run_that_did_not_finish_is_refused_even_by_force(store: Store, name):
    run_id = store.client.create_run(store.experiment_id).info.run_id
    assert put(store, name, run_id, force=True).reasons == ["the run is RUNNING"]
    store.client.delete_run(run_id)
    assert put(store, name, run_id, force=True).reasons == ["the run is deleted"]


def test_a_run_without_a_model_is_refused(store: Store, name):
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.set_terminated(run_id)
    assert put(store, name, run_id).reasons == ["the run holds no model"]


def test_a_model_that_fails_its_smoke_test_is_refused_and_production_stays(
    store: Store, name, trio
):
    put(store, name, trio[0])
    broken = candidate(store, small_detector("BTC", 1))
    model_id = store.client.get_run(broken).outputs.model_outputs[0].model_id
    folder = Path(store.client.get_logged_model(model_id).artifact_location.removeprefix("file://"))
    (folder / "data" / "detector.json").write_text('{"format": 99}')
    decision = put(store, name, broken, force=True)
    assert "does not answer" in decision.reasons[0]
    assert "detector format 99" in decision.reasons[0]
    assert "\n" not in decision.reasons[0]
    assert served(name) == "fp-BTC-0"
    assert len(store.client.search_model_versions(f"name = '{name}'")) == 1


def test_a_promotion_whose_model_fails_in_production_is_undone(
    store: Store, name, trio, monkeypatch
):
    put(store, name, trio[0])
    newer = candidate(store, small_detector("BTC", 1))
    monkeypatch.setattr(installation, "smoke_test_failure", lambda uri: "no answer")
    with pytest.raises(TrackingError, match="not promoted: no answer"):
        put(store, name, newer)
    assert in_production(store, name) == ["1"]
    assert served(name) == "fp-BTC-0"
    assert store.client.get_run(newer).data.tags[tags.GATE_DECISION] == "undone"


def test_promotions_at_the_same_time_leave_one_champion(store: Store, name, trio):
    threads = [threading.Thread(target=put, args=(store, name, run_id)) for run_id in trio]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert in_production(store, name) == ["3"]
    replaced = [
        store.client.get_model_version(name, v).tags.get(tags.REPLACES) for v in ("1", "2", "3")
    ]
    assert replaced == [None, "1", "2"]


def test_machines_that_share_a_server_promote_in_turn(
    store: Store, name, trio, tmp_path, monkeypatch
):
    """Every promotion has a lock file of its own, as on a machine of its own."""
    files = (tmp_path / f"{i}.lock" for i in range(3))
    monkeypatch.setattr(promotion, "sqlite_path", lambda uri: None)
    monkeypatch.setattr(promotion, "_lock_file", lambda uri: next(files))
    threads = [threading.Thread(target=put, args=(store, name, run_id)) for run_id in trio]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert in_production(store, name) == ["3"]
    replaced = [
        store.client.get_model_version(name, v).tags.get(tags.REPLACES) for v in ("1", "2", "3")
    ]
    assert replaced == [None, "1", "2"]
    assert store.client.get_registered_model(name).tags == {}


def test_a_refusal_on_a_server_leaves_no_empty_model_behind(store: Store, name, monkeypatch):
    monkeypatch.setattr(promotion, "sqlite_path", lambda uri: None)
    faulty = candidate(store, small_detector("BTC"), faults="not converged")
    assert put(store, name, faulty).refused
    assert store.client.search_registered_models(f"name = '{name}'") == []


def test_a_champion_that_is_better_stays_and_is_served(store: Store, name, trio):
    put(store, name, trio[0])
    before = registry_state(store, name)
    worse = shown_scores()
    noise = np.random.default_rng(3).normal(0.0, 0.1, len(worse))
    worse["model_score"] -= 0.02 + noise - noise[400:].mean()
    decision = put(store, name, candidate(store, small_detector("BTC", 5), scores=worse))
    assert decision.reasons[0].startswith("gain over version 1 on 600 test bars after")
    assert decision.reasons[0].endswith(": more than 0.002 worse (gate.margin)")
    assert registry_state(store, name) == before
    assert served(name) == "fp-BTC-0"


def test_rollback_goes_back_step_by_step(store: Store, name, trio):
    for run_id in trio:
        put(store, name, run_id, gate=OFF)
    for expected in (1, 0):
        back = rollback(store.client, name)
        assert (back.champion.version, back.left) == (str(expected + 1), str(expected + 2))
        assert in_production(store, name) == [back.champion.version]
        assert served(name) == f"fp-BTC-{expected}"
    with pytest.raises(TrackingError, match=r"version 1 .* nothing to roll back to"):
        rollback(store.client, name)


def test_rollback_goes_to_a_named_version(store: Store, name, trio):
    for run_id in trio:
        put(store, name, run_id, gate=OFF)
    assert rollback(store.client, name, "1").champion.version == "1"
    assert served(name) == "fp-BTC-0"
    assert rollback(store.client, name, "1").left is None
    assert rollback(store.client, name, "3").champion.version == "3"
    assert served(name) == "fp-BTC-2"
    shown = store.client.get_model_version(name, "3").tags[tags.ROLLED_BACK]
    assert shown.endswith("to version 1")
    with pytest.raises(TrackingError, match=r"no version 9 of .*: there are 1, 2, 3"):
        rollback(store.client, name, "9")


def test_after_a_rollback_the_next_takes_over_from_what_was_brought_back(store: Store, name, trio):
    put(store, name, trio[0])
    put(store, name, trio[1])
    rollback(store.client, name)
    assert put(store, name, trio[2]).version == "3"
    assert rollback(store.client, name).champion.version == "1"
    assert put(store, name, trio[1]).promoted  # a version that was rolled back may come again
    assert served(name) == "fp-BTC-1"
    assert in_production(store, name) == ["4"]


def test_there_is_nothing_to_roll_back_in_an_empty_registry(store: Store, name):
    with pytest.raises(TrackingError, match="does not exist: promote first"):
        rollback(store.client, name)


def test_an_unknown_run_is_one_line(store: Store, name):
    with pytest.raises(TrackingError) as caught:
        put(store, name, "0a1b2c")
    assert "0a1b2c" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_promotion_leaves_the_import_path_alone(store: Store, name):
    before = list(sys.path)
    put(store, name, candidate(store, small_detector("BTC")))
    assert sys.path == before


def call(main, capsys, *words: str) -> tuple[int, str]:
    """Exit status and output of a script's `main`, in this process."""
    capsys.readouterr()
    status = main(list(words))
    return status, capsys.readouterr().out


def test_the_scripts_promote_refuse_and_roll_back(store: Store, name, trio, capsys):
    where = ("--tracking-uri", store.uri, "--registry", name)
    dry = call(promote_script.main, capsys, "--run", trio[0], *where, "--dry-run")
    assert dry[0] == 0
    assert dry[1].startswith(f"would be promoted to models:/{name}/Production\n  gain over")
    for seed, run_id in enumerate(trio[:2]):
        status, shown = call(promote_script.main, capsys, "--run", run_id, *where)
        assert status == 0
        assert shown.startswith(f"promoted: models:/{name}/Production is version {seed + 1}\n")
    other = candidate(store, small_detector("DAX"))
    status, shown = call(promote_script.main, capsys, "--run", other, *where)
    assert status == 1
    assert shown.startswith("not promoted:\n  the run is of DAX but version 2")
    status, shown = call(rollback_script.main, capsys, *where)
    assert (status, shown.startswith("rolled back from version 2: ")) == (0, True)


def test_the_promote_script_takes_a_gate_by_name(store: Store, name, capsys):
    where = ("--tracking-uri", store.uri, "--registry", name)
    weak = candidate(store, small_detector("BTC"), scores=shown_scores(over_ewma=-0.01))
    for gate, status in (("strict", 1), ("default", 0)):
        done = call(promote_script.main, capsys, "--run", weak, "--gate", gate, *where)
        assert done[0] == status
        assert "EWMA Student-t on 600 test bars -0.0100" in done[1]
    assert "warning: gain over the EWMA" in done[1]


@pytest.mark.parametrize(
    ("script", "words", "line"),
    [
        (promote_script, "--run 0a1b", "error: promotion of run 0a1b: "),
        (promote_script, "--sweep none", "error: no sweep none in this store"),
        (promote_script, "--run 0a1b --gate of", "error: unknown gate 'of' (did you mean off?)"),
        (promote_script, "--run 0a1b --tracking-uri sqlite:////no/db", "error: no tracking store"),
        (rollback_script, "--registry none", "error: models:/none/Production does not exist"),
    ],
)
def test_bad_input_to_a_script_is_one_line_and_status_two(store, capsys, script, words, line):
    assert script.main(["--tracking-uri", store.uri, *words.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line)
    assert shown.err.count("\n") == 1


@pytest.mark.slow
def test_the_promote_script_runs_from_anywhere(store: Store, tmp_path):
    script = str(ROOT / "scripts" / "promote.py")
    command = [sys.executable, script, "--run", "0a1b", "--tracking-uri", store.uri]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: promotion of run 0a1b: ")


@pytest.mark.parametrize("script", [promote_script, rollback_script])
def test_help_shows_examples(script, capsys):
    with pytest.raises(SystemExit) as left:
        script.main(["--help"])
    assert left.value.code == 0
    assert re.search(r"^  hmm-(promote|registry rollback) ", capsys.readouterr().out, re.MULTILINE)


def test_a_missing_argument_is_one_line(capsys):
    with pytest.raises(SystemExit) as left:
        promote_script.main([])
    assert left.value.code == 2
    line = "error: one of the arguments --run --sweep is required (see --help)\n"
    assert capsys.readouterr().err == line


def test_every_store_has_a_lock_of_its_own(tmp_path):
    on_disk = promotion._lock_file(f"sqlite:///{tmp_path}/mlflow.db")
    assert on_disk == tmp_path / "mlflow.db-promotion.lock"
    servers = [promotion._lock_file(f"http://127.0.0.1:{port}") for port in (5000, 5001, 5000)]
    assert servers[0] == servers[2] != servers[1]
