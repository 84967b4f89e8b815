"""kill -9 at every step of a promotion and a rollback: Production resolves, the next mends it."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hmm_exp
from hmm_exp.config import GateConfig
from hmm_exp.registry.evidence import model_id
from hmm_exp.registry.promotion import promote, rollback
from hmm_exp.registry.versions import Versions
from hmm_exp.tracking import tags
from tests.small_detector import candidate, forget_store, small_detector, store_in

ROOT = Path(__file__).resolve().parents[1]
PROMOTION = [  # in the order they are done, with what Production serves then
    ("create_model_version", "before", "old"),
    ("create_model_version", "after", "old"),
    ("transition_model_version_stage", "before", "old"),
    ("transition_model_version_stage", "after", "new"),
    ("set_registered_model_alias", "before", "new"),
    ("set_registered_model_alias", "after", "new"),
    ("log_batch", "before", "new"),
    ("set_model_version_tag", "before", "new"),
    ("set_model_version_tag", "after", "new"),
]
ROLLBACK = [
    ("transition_model_version_stage", "after", "old"),
    ("set_registered_model_alias", "after", "old"),
]
NEXT = {"promote": range(len(PROMOTION)), "other": (1, 3), "rollback": (1, 3)}

pytestmark = pytest.mark.slow


def registry_of(kind: str, at: int, after: str = "") -> str:
    return f"{kind}-{at}-{after}"


@pytest.fixture(scope="module")
def killed(tmp_path_factory, empty_store):
    """A store with a registry for every kill and what follows it, and its three runs."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    store = store_in(folder)
    runs = [candidate(store, small_detector("BTC", seed)) for seed in range(3)]
    jobs = []
    for after, places in NEXT.items():
        for at in places:
            name = registry_of("promotion", at, after)
            put(store, name, runs[0], None)
            jobs.append({"name": name, "run": runs[1], **step_of(PROMOTION, at)})
    for at in range(len(ROLLBACK)):
        name = registry_of("rollback", at)
        put(store, name, runs[1], put(store, name, runs[0], None))
        jobs.append({"name": name, "run": None, **step_of(ROLLBACK, at)})
    jobs.append({"name": "first", "run": runs[0], **step_of(PROMOTION, 3)})
    command = [sys.executable, "-m", "tests.killed_promotion", store.uri, json.dumps(jobs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout) == [signal.SIGKILL] * len(jobs), done.stderr
    yield store, runs
    forget_store()


def step_of(steps: list, at: int) -> dict[str, str]:
    step, when, _ = steps[at]
    return {"step": step, "when": when}


def put(store, name: str, run_id: str, replaces: str | None) -> str:
    """A version in Production without asking the gate."""
    run, versions = store.client.get_run(run_id), Versions(store.client, name)
    copied = (tags.INSTRUMENT, tags.DATA_KIND, tags.FINGERPRINT)
    about = {tag: run.data.tags[tag] for tag in copied}
    about |= {tags.REPLACES: replaces} if replaces else {}
    number = str(versions.create(model_id(run), run_id, about, "").version)
    versions.settle(number)
    return number


def served(name: str) -> str:
    """What the stage and the alias serve, which has to be the same; by its fingerprint."""
    found = {
        hmm_exp.load_detector(f"models:/{name}{place}").meta["fingerprint"]
        for place in ("/Production", "@production")
    }
    assert len(found) == 1
    return found.pop()


def stage_serves(name: str) -> str:
    fingerprint = hmm_exp.load_detector(f"models:/{name}/Production").meta["fingerprint"]
    return {"fp-BTC-0": "old", "fp-BTC-1": "new"}[fingerprint]


def unfinished(store, name: str) -> list[str]:
    """Versions that are still marked as started, and every stage that holds more than one."""
    versions = Versions(store.client, name).all()
    started = [v.version for v in versions if v.tags.get(tags.PROMOTION) == tags.STARTED]
    staged = [v.version for v in versions if v.current_stage == "Production"]
    return started + staged[1:]


@pytest.mark.parametrize("at", NEXT["promote"])
def test_promoting_again_completes_a_killed_promotion(killed, at):
    store, runs = killed
    name = registry_of("promotion", at, "promote")
    assert stage_serves(name) == PROMOTION[at][2]
    decision = promote(store.client, runs[1], registry_name=name, gate=GateConfig())
    assert decision.noop or decision.promoted
    cut_off = 0 < at < len(PROMOTION) - 1
    assert bool(decision.repaired) is cut_off
    assert served(name) == "fp-BTC-1"
    assert unfinished(store, name) == []
    assert Versions(store.client, name).champion().replaces == "1"
    assert store.client.get_run(runs[1]).data.tags[tags.GATE_DECISION] == "promoted"


@pytest.mark.parametrize("at", NEXT["other"])
def test_promoting_another_run_first_repairs_a_killed_promotion(killed, at):
    store, runs = killed
    name = registry_of("promotion", at, "other")
    decision = promote(store.client, runs[2], registry_name=name, gate=GateConfig())
    word = "undid" if PROMOTION[at][2] == "old" else "completed"
    assert decision.repaired == [f"{word} an interrupted promotion: version 2"]
    assert served(name) == "fp-BTC-2"
    assert unfinished(store, name) == []
    replaced = "1" if word == "undid" else "2"
    assert Versions(store.client, name).champion().replaces == replaced


@pytest.mark.parametrize("at", NEXT["rollback"])
def test_rolling_back_undoes_only_the_killed_promotion(killed, at):
    store, _ = killed
    name = registry_of("promotion", at, "rollback")
    back = rollback(store.client, name)
    assert len(back.repaired) == 1
    assert (back.champion.version, served(name)) == ("1", "fp-BTC-0")
    assert unfinished(store, name) == []


@pytest.mark.parametrize("at", range(len(ROLLBACK)))
def test_a_killed_rollback_is_completed_and_not_repeated(killed, at):
    store, _ = killed
    name = registry_of("rollback", at)
    assert stage_serves(name) == ROLLBACK[at][2]
    if at == 0:
        assert rollback(store.client, name).left is None
    assert served(name) == "fp-BTC-0"
    assert unfinished(store, name) == []


def test_a_first_promotion_that_was_killed_is_completed(killed):
    store, runs = killed
    assert stage_serves("first") == "old"
    decision = promote(store.client, runs[0], registry_name="first", gate=GateConfig())
    assert decision.noop
    assert decision.lines("first")[0] == "completed an interrupted promotion: version 1"
    assert served("first") == "fp-BTC-0"
