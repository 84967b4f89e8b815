"""Promotion and rollback in a real store: who may replace whom, and what Production serves."""

import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest

import hmm_exp
from hmm_exp.config import GateConfig
from hmm_exp.errors import TrackingError
from hmm_exp.tracking import registry, tags
from hmm_exp.tracking.registry import champion, promote, rollback
from hmm_exp.tracking.store import Store
from tests.small_detector import candidate, forget_store, small_detector, store_in

ROOT = Path(__file__).resolve().parents[1]
GATE = GateConfig()
OFF = GateConfig(name="off", hard_faults=False, instrument=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for the module, making it takes seconds; every test has its own registry name."""
    yield store_in(tmp_path_factory.mktemp("store"))
    forget_store()


@pytest.fixture
def name(request) -> str:
    return request.node.name.replace("[", "_").replace("]", "")


def put(store: Store, name: str, run_id: str, **options) -> registry.Decision:
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
    detector = hmm_exp.load_detector(f"models:/{name}/Production")
    model = mlflow.pyfunc.load_model(f"models:/{name}/Production")
    assert detector.to_dict() == model.get_raw_model().to_dict() == small_detector("BTC").to_dict()
    assert champion(store.client, name).run_id == run_id


def test_a_version_says_where_it_comes_from(store: Store, name):
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


def test_the_newer_takes_over_and_the_stage_holds_it_alone(store: Store, name):
    put(store, name, candidate(store, small_detector("BTC", 0)))
    decision = put(store, name, candidate(store, small_detector("BTC", 1)))
    assert decision.version == "2"
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


def test_hard_faults_are_refused_with_every_reason_on_the_run(store: Store, name):
    put(store, name, candidate(store, small_detector("BTC", 0)))
    faulty = candidate(store, small_detector("BTC", 1), faults="not converged; state 2 is empty")
    decision = put(store, name, faulty)
    assert decision.reasons == ["hard fault: not converged", "hard fault: state 2 is empty"]
    assert in_production(store, name) == ["1"]
    run = store.client.get_run(faulty)
    assert run.data.tags[tags.GATE_DECISION] == "refused"
    assert run.data.tags[tags.GATE_REASONS] == "; ".join(decision.reasons)
    assert put(store, name, faulty, gate=OFF).promoted


def test_force_turns_reasons_into_recorded_warnings(store: Store, name):
    faulty = candidate(store, small_detector("BTC"), faults="not converged")
    decision = put(store, name, faulty, force=True)
    assert decision.promoted
    assert decision.warnings == ["forced: hard fault: not converged"]
    run = store.client.get_run(faulty)
    assert run.data.tags[tags.GATE_REASONS] == "forced: hard fault: not converged"


INSTRUMENTS = [  # champion, candidate, promoted, promoted with force
    (("synthetic", "synthetic"), ("BTC", "bars"), True, True),
    (("synthetic", "synthetic"), ("synthetic", "synthetic"), True, True),
    (("BTC", "bars"), ("BTC", "bars"), True, True),
    (("BTC", "bars"), ("BTC", "features"), True, True),
    (("BTC", "bars"), ("DAX", "bars"), False, True),
    (("BTC", "bars"), ("synthetic", "synthetic"), False, False),
]


@pytest.mark.parametrize(("old", "new", "allowed", "allowed_by_force"), INSTRUMENTS)
def test_one_instrument_replaces_another_only_by_rule(
    store: Store, name, old, new, allowed, allowed_by_force
):
    put(store, name, candidate(store, small_detector(old[0], 0), kind=old[1]))
    run_id = candidate(store, small_detector(new[0], 1), kind=new[1])
    for force, expected in ((False, allowed), (True, allowed_by_force)):
        decision = put(store, name, run_id, force=force, dry_run=True)
        assert decision.refused is not expected
        if not expected:
            assert "another registry.name" in decision.reasons[0]
            assert ("--force" in decision.reasons[0]) is allowed_by_force


def test_a_dry_run_only_says(store: Store, name):
    run_id = candidate(store, small_detector("BTC"))
    decision = put(store, name, run_id, dry_run=True)
    assert not decision.promoted
    assert not decision.refused
    assert champion(store.client, name) is None
    assert tags.GATE_DECISION not in store.client.get_run(run_id).data.tags


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_a_run_that_did_not_finish_is_refused_even_by_force(store: Store, name, status):
    run_id = candidate(store, small_detector("BTC"), status_reason="killed by a test")
    store.client.update_run(run_id, status=status)
    decision = put(store, name, run_id, force=True)
    assert decision.reasons == [f"the run is {status}: killed by a test"]


def test_a_run_without_a_model_is_refused(store: Store, name):
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.set_terminated(run_id)
    assert put(store, name, run_id).reasons == ["the run holds no model"]


def test_a_model_that_does_not_answer_is_refused_and_production_stays(store: Store, name):
    put(store, name, candidate(store, small_detector("BTC", 0)))
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


def test_a_champion_that_falls_silent_on_arrival_is_undone(store: Store, name, monkeypatch):
    put(store, name, candidate(store, small_detector("BTC", 0)))
    newer = candidate(store, small_detector("BTC", 1))
    healthy = registry._complaint
    monkeypatch.setattr(
        registry, "_complaint", lambda uri: "silent" if "Production" in uri else healthy(uri)
    )
    with pytest.raises(TrackingError, match="not promoted: silent"):
        put(store, name, newer)
    assert in_production(store, name) == ["1"]
    assert served(name) == "fp-BTC-0"


@pytest.mark.parametrize("step", ["set_model_version_tag", "_settle", "set_alias", "_complaint"])
def test_a_crash_at_any_step_leaves_a_production_that_resolves(
    store: Store, name, monkeypatch, step
):
    put(store, name, candidate(store, small_detector("BTC", 0)))
    newer = candidate(store, small_detector("BTC", 1))

    def crash(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "set_alias":
            patch.setattr(store.client, "set_registered_model_alias", crash)
        elif step.startswith("_"):
            healthy = registry._complaint
            after = {"_complaint": lambda u: crash() if "Production" in u else healthy(u)}
            patch.setattr(registry, step, after.get(step, crash))
        else:
            patch.setattr(store.client, step, crash)
        with pytest.raises(KeyboardInterrupt):
            put(store, name, newer)
    fingerprint = hmm_exp.load_detector(f"models:/{name}/Production").meta["fingerprint"]
    assert fingerprint in ("fp-BTC-0", "fp-BTC-1")
    decision = put(store, name, newer)
    assert decision.promoted or decision.noop
    assert in_production(store, name) == ["2"]
    assert served(name) == "fp-BTC-1"
    assert len(store.client.search_model_versions(f"name = '{name}'")) == 2


def test_promotions_at_the_same_time_leave_one_champion(store: Store, name):
    runs = [candidate(store, small_detector("BTC", seed)) for seed in range(3)]
    threads = [threading.Thread(target=put, args=(store, name, run_id)) for run_id in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert in_production(store, name) == ["3"]
    replaced = [
        store.client.get_model_version(name, v).tags.get(tags.REPLACES) for v in ("1", "2", "3")
    ]
    assert replaced == [None, "1", "2"]


def test_rollback_goes_back_step_by_step(store: Store, name):
    for seed in range(3):
        put(store, name, candidate(store, small_detector("BTC", seed)))
    for expected in (1, 0):
        back = rollback(store.client, name)
        assert back.version == str(expected + 1)
        assert in_production(store, name) == [back.version]
        assert served(name) == f"fp-BTC-{expected}"
    with pytest.raises(TrackingError, match=r"version 1 .* nothing to roll back to"):
        rollback(store.client, name)


def test_after_a_rollback_the_next_takes_over_from_what_was_brought_back(store: Store, name):
    runs = [candidate(store, small_detector("BTC", seed)) for seed in range(3)]
    put(store, name, runs[0])
    put(store, name, runs[1])
    rollback(store.client, name)
    assert put(store, name, runs[2]).version == "3"
    assert rollback(store.client, name).version == "1"
    assert put(store, name, runs[1]).promoted  # a version that was rolled back may come again
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


def script(store: Store, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the checkout as a user does."""
    command = [sys.executable, str(ROOT / "scripts" / words[0]), *words[1:]]
    if "--tracking-uri" not in words and "--help" not in words:
        command += ["--tracking-uri", store.uri]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_scripts_promote_refuse_and_roll_back(store: Store, name):
    runs = [candidate(store, small_detector("BTC", seed)) for seed in range(2)]
    dry = script(store, "promote.py", "--run", runs[0], "--registry", name, "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, f"would be promoted to models:/{name}/Production\n")
    for seed, run_id in enumerate(runs):
        done = script(store, "promote.py", "--run", run_id, "--registry", name)
        line = f"promoted: models:/{name}/Production is version {seed + 1}\n"
        assert (done.returncode, done.stdout) == (0, line)
    other = candidate(store, small_detector("DAX"))
    refused = script(store, "promote.py", "--run", other, "--registry", name)
    assert refused.returncode == 1
    assert refused.stdout.startswith("not promoted:\n  the run is of DAX but version 2")
    back = script(store, "rollback.py", "--registry", name)
    assert (back.returncode, "is version 1" in back.stdout) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("promote.py",), "error: one of the arguments --run --sweep is required (see --help)"),
        (("promote.py", "--run", "0a1b"), "error: promotion of run 0a1b: "),
        (("promote.py", "--sweep", "none"), "error: no sweep none in this store"),
        (("promote.py", "--run", "0a1b", "--tracking-uri", "sqlite:////no/db"), "error: no track"),
        (("rollback.py", "--registry", "none"), "error: models:/none/Production does not exist"),
    ],
)
def test_bad_input_to_a_script_is_one_line_and_status_two(store: Store, words, line):
    done = script(store, *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("promote.py", "--help"), ("rollback.py", "--help")])
def test_help_shows_examples(store: Store, words):
    done = script(store, *words)
    assert done.returncode == 0
    assert f"python scripts/{words[0]}" in done.stdout
