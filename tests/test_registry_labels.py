"""Labels of a new champion go on from the old one's, in what Production serves."""

from dataclasses import replace
from itertools import permutations

import mlflow
import numpy as np
import pandas as pd
import pytest

import hmm_exp
from hmm_exp.config import GateConfig
from hmm_exp.registry.labels import match_labels
from hmm_exp.registry.promotion import promote, rollback
from hmm_exp.tracking import tags
from tests.small_detector import (
    candidate,
    shown_regimes,
    small_detector,
)

GATE = GateConfig()
NAMES = ("calm", "normal", "turbulent")


def path(n_rows: int = 2000, seed: int = 0) -> np.ndarray:
    """Three states in visits of 20 rows, the first in most of them."""
    visits = np.random.default_rng(seed).choice(3, size=n_rows // 20, p=(0.6, 0.3, 0.1))
    return np.repeat(visits, 20)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_renumbered_state_keeps_its_name(order):
    old = path()
    new = np.array(order)[old]
    naming = match_labels(old, new, NAMES, "version 3")
    assert [naming.labels[order[state]] for state in range(3)] == list(NAMES)
    assert naming.story.startswith("kept from version 3 (kappa 1.00, 100.0% of 2,000")
    assert not naming.flagged


def test_labels_that_were_kept_before_are_kept_again():
    old = path()
    unusual = ("turbulent", "calm", "normal")
    assert match_labels(old, old, unusual, "version 4").labels == unusual


def test_a_match_survives_some_noise_and_not_much():
    random, old = np.random.default_rng(1), path()
    stirred = {
        share: np.where(random.random(len(old)) < share, random.integers(0, 3, len(old)), old)
        for share in (0.2, 0.9)
    }
    assert not match_labels(old, stirred[0.2], NAMES, "version 3").flagged
    weak = match_labels(old, stirred[0.9], NAMES, "version 3")
    assert weak.flagged
    assert weak.story.startswith("fresh: too weak a match with version 3 (kappa 0.")


def test_chance_is_no_match_however_common_one_state_is():
    old, new = path(seed=1), path(seed=2)
    assert np.mean(old == new) > 0.4
    assert match_labels(old, new, NAMES, "version 3").flagged


def test_a_hundred_shared_rows_are_needed():
    old = path()
    few = match_labels(old[:99], old[:99], NAMES, "version 3")
    assert few.story == "fresh: 99 rows shared with version 3, 100 are needed"
    assert few.flagged


def test_production_serves_the_old_names_under_the_new_numbers(store):
    name = "renumbered"
    first = candidate(store, small_detector("BTC", 0))
    second = candidate(
        store, small_detector("BTC", 1), regimes=shown_regimes(1 - shown_regimes()["state"])
    )
    promote(store.client, first, registry_name=name, gate=GATE)
    decision = promote(store.client, second, registry_name=name, gate=GATE)
    assert decision.naming.labels == ("turbulent", "calm")
    assert "  labels kept from version 1 (kappa 1.00" in "\n".join(decision.lines(name))
    served = hmm_exp.load_detector(f"models:/{name}/Production")
    assert served.to_dict() == small_detector("BTC", 1).to_dict() | {
        "labels": ["turbulent", "calm"]
    }
    model = mlflow.pyfunc.load_model(f"models:/{name}/Production")
    assert model.get_raw_model().labels == ("turbulent", "calm")
    run = store.client.get_run(second)
    assert run.data.tags[tags.LABELS].startswith("kept from version 1")
    assert promote(store.client, second, registry_name=name, gate=GATE).noop
    rollback(store.client, name)
    assert hmm_exp.load_detector(f"models:/{name}/Production").labels == ("calm", "turbulent")
    again = promote(store.client, second, registry_name=name, gate=GATE)
    assert again.naming.labels == ("turbulent", "calm")
    assert len(run.outputs.model_outputs) == len(store.client.get_run(second).outputs.model_outputs)


def test_another_number_of_states_gets_new_labels_and_a_warning(store):
    name = "more-states"
    old = small_detector("BTC", 0)
    single = replace(
        old,
        params=replace(
            old.params,
            startprob=np.ones(1),
            transmat=np.ones((1, 1)),
            means=old.params.means[:1],
            covars=old.params.covars[:1],
        ),
        labels=("all",),
    )
    still = candidate(store, single, regimes=shown_regimes(0))
    promote(store.client, still, registry_name=name, gate=GATE)
    newer = candidate(store, small_detector("BTC", 1))
    decision = promote(store.client, newer, registry_name=name, gate=GATE)
    assert decision.naming.labels == ("calm", "turbulent")
    assert "  warning: labels fresh: 2 states after the 1 of version 1" in decision.lines(name)
    version = store.client.get_model_version(name, "2")
    assert version.tags[tags.LABELS] == "fresh: 2 states after the 1 of version 1"


def test_a_champion_on_a_coarser_grid_is_matched_where_it_was_last_known(store):
    name = "coarser"
    fine = shown_regimes()
    coarse = fine.iloc[3::4]
    coarse = coarse.assign(state=1 - coarse["state"])
    rows = [
        candidate(store, small_detector("BTC", i), regimes=r) for i, r in enumerate((coarse, fine))
    ]
    promote(store.client, rows[0], registry_name=name, gate=GATE)
    decision = promote(store.client, rows[1], registry_name=name, gate=GATE)
    assert decision.naming.labels == ("turbulent", "calm")
    assert pd.Series(decision.naming.story).str.contains("of 997 shared rows").all()
