"""The gate's rules, on the evidence of a real run in a real store, changed piece by piece."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hmm_exp.config import GateConfig
from hmm_exp.config.overrides import hydra_words
from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.errors import ConfigError
from hmm_exp.registry.evidence import Evidence, Incumbent, NotJudged, read_evidence
from hmm_exp.registry.gate import Finding, judge, named_gate
from hmm_exp.registry.versions import Champion
from hmm_exp.tracking import tags
from tests.small_detector import (
    candidate,
    shown_regimes,
    shown_scores,
    small_detector,
)

DEFAULT, STRICT, STRICTEST, OFF = map(named_gate, ("default", "strict", "strictest", "off"))
OTHERS = {  # what the gate calls the baselines that only the strictest asks for
    "range_ewma": "the range EWMA Student-t",
    "ewma_hour": "the EWMA Student-t by hour",
    "range_ewma_hour": "the range EWMA Student-t by hour",
}


@pytest.fixture(scope="module")
def evidence(store) -> Evidence:
    """Of a run that passes every gate."""
    run_id = candidate(store, small_detector("BTC"))
    return read_evidence(store.client, store.client.get_run(run_id))


def with_scores(evidence: Evidence, scores: pd.DataFrame) -> Evidence:
    test = scores[scores["split"] == "test"].set_index("available_at")
    return replace(evidence, scores=test)


def with_states(evidence: Evidence, states: np.ndarray) -> Evidence:
    steps = np.ones(len(states), dtype=np.int64)
    return replace(evidence, states=states, steps=steps)


def incumbent(store, detector=None, **about: str) -> Incumbent:
    """A champion whose run is in the store; its version's tags as given."""
    detector = detector or small_detector("BTC", 1)
    identity = {tags.INSTRUMENT: "BTC", tags.DATA_KIND: "bars"} | about
    run_id = candidate(store, detector, scores=shown_scores())
    return Incumbent(Champion("regimes", "7", run_id, identity), detector)


def test_a_good_run_passes_the_gate(store, evidence):
    for gate in (DEFAULT, STRICT):
        verdict = judge(store.client, evidence, None, gate)
        assert verdict.of("final", "refuse", "warn") == []
        static, ewma = verdict.of("note")
        assert static.startswith("gain over the static Student-t on 600 test bars +0.0500 nats")
        assert ewma.startswith("gain over the EWMA Student-t on 600 test bars +0.0200 nats")


def test_a_gain_over_the_static_density_is_required(store, evidence):
    for gain in (-0.05, 0.001):
        weak = with_scores(evidence, shown_scores(gain=gain))
        (reason,) = judge(store.client, weak, None, DEFAULT).of("refuse")
        assert reason.startswith(f"gain over the static Student-t on 600 test bars {gain:+.4f}")
        assert reason.endswith("is not above zero")
        assert judge(store.client, weak, None, OFF).findings == []


def test_losing_to_the_ewma_is_a_warning_by_default_and_a_reason_under_strict(store, evidence):
    weak = with_scores(evidence, shown_scores(over_ewma=-0.01))
    by_default = judge(store.client, weak, None, DEFAULT)
    assert by_default.of("refuse") == []
    (warning,) = by_default.of("warn")
    assert "EWMA Student-t on 600 test bars -0.0100" in warning
    assert judge(store.client, weak, None, STRICT).of("refuse") == [warning]


def with_others(over_range: float) -> pd.DataFrame:
    """Scores with every baseline; the gain over that of ranges is given."""
    scores = shown_scores()
    own = scores["ewma_score"] + 0.02 - over_range
    return scores.assign(
        range_ewma_score=own,
        ewma_hour_score=scores["ewma_score"],
        range_ewma_hour_score=scores["ewma_score"],
    )


def test_the_strictest_gate_asks_for_a_gain_over_every_baseline(store, evidence):
    good = judge(store.client, with_scores(evidence, with_others(0.02)), None, STRICTEST)
    assert good.of("refuse", "warn") == []
    texts = good.of("note")
    for words in OTHERS.values():
        assert [text.startswith(f"gain over {words} on 600") for text in texts].count(True) == 1
    weak = with_scores(evidence, with_others(-0.01))
    (reason,) = judge(store.client, weak, None, STRICTEST).of("refuse")
    assert reason.startswith("gain over the range EWMA Student-t on 600 test bars -0.0100")
    for gate in (DEFAULT, STRICT):
        verdict = judge(store.client, weak, None, gate)
        assert len(verdict.findings) == 2
        assert verdict.of("refuse", "warn") == []


def test_the_strictest_gate_asks_nothing_of_a_baseline_that_the_data_do_not_allow(store, evidence):
    run_id = store.client.create_run(store.experiment_id).info.run_id
    why = "bars of a day and more have no hour"
    reasons = {name: why for name in OTHERS if name.endswith("hour")}
    store.client.set_tag(run_id, tags.UNSCORED, json.dumps(reasons))
    scores = with_others(0.02).assign(ewma_hour_score=np.nan, range_ewma_hour_score=np.nan)
    daily = replace(with_scores(evidence, scores), run=store.client.get_run(run_id))
    verdict = judge(store.client, daily, None, STRICTEST)
    assert verdict.of("refuse", "warn") == []
    for name in reasons:
        missing = f"no gain over {OTHERS[name]} is shown: {OTHERS[name]} cannot be fitted: {why}"
        assert missing in verdict.of("note")


def test_the_strictest_gate_refuses_a_run_whose_baselines_were_not_measured(store, evidence):
    refused = judge(store.client, evidence, None, STRICTEST).of("refuse")
    assert [text.split(" is shown")[0] for text in refused] == [
        f"no gain over {words}" for words in OTHERS.values()
    ]


def test_without_enough_scored_test_bars_nothing_is_shown(store, evidence):
    few = with_scores(evidence, shown_scores(n_test=60))
    assert judge(store.client, few, None, STRICT).of("refuse") == [
        "no gain over the static Student-t is shown: 60 test bars are scored, 100 are needed",
        "no gain over the EWMA Student-t is shown: 60 test bars are scored, 100 are needed",
    ]
    none = replace(evidence, scores=pd.DataFrame())
    (reason,) = judge(store.client, none, None, DEFAULT).of("refuse")
    assert "0 test bars are scored" in reason


NO_RETURN = "no next-bar return is known: the table has no column close_logret_current_1H"


@pytest.mark.parametrize(
    ("unscored", "static", "ewma"),
    [
        ({"return": NO_RETURN}, NO_RETURN, NO_RETURN),
        (
            {"model": "5 returns are too few"},
            "the state densities cannot be fitted: 5 returns are too few",
            "the state densities cannot be fitted: 5 returns are too few",
        ),
        ({"ewma": "no"}, "0 test bars are scored", "the EWMA Student-t cannot be fitted: no"),
        ({}, "0 test bars are scored, 100 are needed", "0 test bars are scored, 100 are needed"),
    ],
)
def test_a_gain_that_cannot_be_known_is_refused_with_its_reason(
    store, evidence, unscored, static, ewma
):
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.set_tag(run_id, tags.UNSCORED, json.dumps(unscored))
    none = replace(evidence, run=store.client.get_run(run_id), scores=pd.DataFrame())
    reasons = judge(store.client, none, None, STRICT).of("refuse")
    assert reasons[0].startswith(f"no gain over the static Student-t is shown: {static}")
    assert reasons[1].startswith(f"no gain over the EWMA Student-t is shown: {ewma}")
    assert judge(store.client, none, None, DEFAULT).of("warn") == [reasons[1]]


def test_a_missing_baseline_leaves_the_gain_over_the_other(store, evidence):
    scores = shown_scores().assign(ewma_score=np.nan)
    verdict = judge(store.client, with_scores(evidence, scores), None, DEFAULT)
    assert verdict.of("refuse") == []
    assert verdict.of("note")[0].startswith("gain over the static Student-t on 600 test bars")
    assert "EWMA" in verdict.of("warn")[0]


def test_regimes_that_never_change_on_test_are_refused(store, evidence):
    states = np.zeros(600, dtype=np.int64)
    states[100:104] = 1
    still = judge(store.client, with_states(evidence, states), None, DEFAULT)
    assert still.of("refuse") == [
        "one state holds 99.3% of 600 test rows: the other states need at least 1.0%"
    ]
    assert still.of("warn") == ["state 1 holds 0.7% of 600 test rows"]


def test_a_rare_state_is_only_a_warning(store, evidence):
    params = small_detector("BTC").params
    three = replace(
        params,
        startprob=np.full(3, 1 / 3),
        transmat=np.full((3, 3), 1 / 3),
        means=np.zeros((3, 3)),
        covars=np.ones((3, 3)),
    )
    detector = replace(evidence.detector, params=three, labels=("a", "b", "c"))
    states = np.arange(600) // 60 % 2
    verdict = judge(
        store.client, with_states(replace(evidence, detector=detector), states), None, DEFAULT
    )
    assert verdict.of("refuse") == []
    assert verdict.of("warn") == ["state 2 holds 0.0% of 600 test rows"]


def test_regimes_that_flicker_on_test_are_refused(store, evidence):
    flicker = judge(store.client, with_states(evidence, np.arange(600) % 2), None, DEFAULT)
    assert flicker.of("refuse") == [
        f"state {state} lasts 1.00 rows per visit on test: at least 1.5 are needed"
        for state in (0, 1)
    ]


ONLY_USE = replace(OFF, hard_faults=False, champion_bars=0)


@pytest.mark.parametrize(
    ("least", "dwell", "refused"),
    [(0.0, 0.0, False), (0.01, 0.0, True), (0.0, 1.5, True), (0.01, 1.5, True)],
)
def test_a_test_part_without_a_regime_is_refused_by_any_rule_of_use(
    store, evidence, least, dwell, refused
):
    gate = replace(ONLY_USE, min_occupancy=least, min_dwell=dwell)
    empty = with_states(evidence, np.empty(0, dtype=np.int64))
    verdict = judge(store.client, empty, None, gate)
    assert verdict.of("refuse") == (["no test row has a regime"] if refused else [])
    assert len(verdict.findings) == refused


def test_a_share_and_a_dwell_at_the_limit_pass(store, evidence):
    states = np.repeat([0, 1, 0, 1], [100, 25, 50, 25])  # state 1 holds .25 in visits of 25
    shown = with_states(evidence, states)

    def findings(share, dwell):
        gate = replace(ONLY_USE, min_occupancy=share, min_dwell=dwell)
        return judge(store.client, shown, None, gate).findings

    assert findings(0.25, 25.0) == []
    above = findings(0.2501, 0.0)
    assert [finding.weight for finding in above] == ["refuse", "warn"]
    assert above[0].text.startswith("one state holds 75.0% of 200 test rows")
    assert above[1].text == "state 1 holds 25.0% of 200 test rows"
    (short,) = findings(0.25, 25.5)
    assert (short.weight, short.text) == (
        "refuse",
        "state 1 lasts 25.00 rows per visit on test: at least 25.5 are needed",
    )


def test_a_model_of_one_state_is_not_refused_for_its_share(store, evidence):
    params = small_detector("BTC").params
    one = replace(
        params,
        startprob=np.ones(1),
        transmat=np.ones((1, 1)),
        means=np.zeros((1, 3)),
        covars=np.ones((1, 3)),
    )
    single = replace(evidence, detector=replace(evidence.detector, params=one, labels=("a",)))
    gate = replace(ONLY_USE, min_occupancy=0.01)
    assert judge(store.client, with_states(single, np.zeros(600, int)), None, gate).findings == []


def test_the_bound_of_a_gain_has_the_level_of_the_gate(store, evidence):
    def bound(level):
        verdict = judge(store.client, evidence, None, replace(DEFAULT, level=level))
        return float(verdict.of("note")[0].rsplit(" ", 1)[1])

    assert bound(0.05) > bound(0.025) > bound(0.01) > 0.0


def test_one_instrument_replaces_another_where_the_gate_allows_it(store, evidence):
    identity = {tags.INSTRUMENT: "DAX", tags.DATA_KIND: "bars"}
    rival = Incumbent(Champion("x", "1", None, identity), None)
    run_id = candidate(store, small_detector("BTC"))
    fresh = replace(evidence, run=store.client.get_run(run_id))
    gate = replace(DEFAULT, champion_bars=0)
    (reason,) = judge(store.client, fresh, rival, gate).of("refuse", "final")
    assert reason.startswith("the run is of BTC but version 1 in Production is of DAX")
    assert judge(store.client, fresh, rival, replace(gate, instrument=False)).of("refuse") == []


@pytest.mark.parametrize(
    ("name", "word"),
    [("ETH 1h", """data.name='"ETH 1h"'"""), ("a, b", "data.name="), ("DAX", "data.name=DAX,")],
)
def test_the_cure_for_another_file_of_one_market_can_be_typed(store, evidence, name, word):
    identity = {tags.INSTRUMENT: name, tags.DATA_KIND: "bars"}
    rival = Incumbent(Champion("x", "1", None, identity), None)
    (reason,) = judge(store.client, evidence, rival, DEFAULT).of("refuse")
    assert word in reason
    typed = reason.partition("repeat the command with ")[2].partition(", else register")[0]
    (setting,) = hydra_words(shlex.split(typed))
    assert str(OverridesParser.create().parse_override(setting).value()) == name


def test_a_champion_without_a_name_has_no_name_to_repeat(store, evidence):
    rival = Incumbent(Champion("x", "1", None, {tags.DATA_KIND: "bars"}), None)
    (reason,) = judge(store.client, evidence, rival, DEFAULT).of("refuse")
    assert "data.name" not in reason


@pytest.mark.parametrize(
    ("gain", "word"), [(0.05, "better"), (0.0, "about as well"), (-0.05, "worse")]
)
def test_the_gate_words_a_gain_by_its_interval(store, evidence, gain, word):
    shown = with_scores(evidence, shown_scores(over_ewma=gain))
    (text,) = [
        text
        for text in judge(store.client, shown, None, DEFAULT).of("warn", "note")
        if "EWMA" in text
    ]
    assert f"nats per bar ({word})" in text


def test_each_hard_fault_is_a_reason(store, evidence):
    run_id = candidate(store, small_detector("BTC"), faults="not converged; state 2 is empty")
    faulty = replace(evidence, run=store.client.get_run(run_id))
    reasons = ["hard fault: not converged", "hard fault: state 2 is empty"]
    assert judge(store.client, faulty, None, DEFAULT).of("refuse") == reasons
    assert judge(store.client, faulty, None, OFF).findings == []


def test_validation_is_never_read_and_test_is(store):
    def verdict(part: str):
        scores, regimes = shown_scores(), shown_regimes()
        scores.loc[scores["split"] == part, "model_score"] = -50.0
        regimes.loc[regimes["split"] == part, "state"] = 0
        run_id = candidate(store, small_detector("BTC"), scores=scores, regimes=regimes)
        evidence = read_evidence(store.client, store.client.get_run(run_id))
        return judge(store.client, evidence, None, STRICT).findings

    assert verdict("val") == verdict("no part")
    assert verdict("test") != verdict("no part")


INSTRUMENTS = [  # champion, candidate, weight of the finding
    (("synthetic", "synthetic"), ("BTC", "bars"), None),
    (("synthetic", "synthetic"), ("synthetic", "synthetic"), None),
    (("BTC", "bars"), ("BTC", "bars"), None),
    (("BTC", "bars"), ("BTC", "features"), None),
    (("BTC", "bars"), ("DAX", "bars"), "refuse"),
    (("BTC", "bars"), ("synthetic", "synthetic"), "final"),
]


@pytest.mark.parametrize(("old", "new", "weight"), INSTRUMENTS)
def test_one_instrument_replaces_another_only_by_rule(store, evidence, old, new, weight):
    champion = Champion("x", "1", None, {tags.INSTRUMENT: old[0], tags.DATA_KIND: old[1]})
    for name, text in ((tags.INSTRUMENT, new[0]), (tags.DATA_KIND, new[1])):
        store.client.set_tag(evidence.run.info.run_id, name, text)
    run = store.client.get_run(evidence.run.info.run_id)
    rival = Incumbent(champion, None)
    found = judge(store.client, replace(evidence, run=run), rival, DEFAULT).findings
    against = [finding for finding in found if finding.weight in ("final", "refuse")]
    assert [finding.weight for finding in against] == ([weight] if weight else [])
    if weight:
        assert "another name (registry.name, hmm-promote --registry)" in against[0].text
        assert ("--force" in against[0].text) is (weight == "refuse")
        cure = ": if both are one market, repeat the command with data.name=BTC, else register"
        assert (cure in against[0].text) is (weight == "refuse")
        still = judge(store.client, replace(evidence, run=run), rival, OFF).of("final")
        assert bool(still) is (weight == "final")


def against_champion(store, evidence, gate: GateConfig, gain: float, noise: float) -> Finding:
    """Finding about the champion for scores that differ from its own by a mean gain and noise."""
    scores = shown_scores()
    wobble = np.random.default_rng(2).normal(0.0, noise, len(scores))
    wobble[400:] -= wobble[400:].mean()
    scores["model_score"] += wobble + gain
    verdict = judge(store.client, with_scores(evidence, scores), incumbent(store), gate)
    (finding,) = [finding for finding in verdict.findings if "version 7" in finding.text]
    assert finding.text.startswith(
        "gain over version 7 on 600 test bars after the training of both "
    )
    return finding


@pytest.mark.parametrize(
    ("gain", "noise", "refused", "words"),
    [
        (-0.0007, 0.004, False, "at most 0.002 worse (gate.margin)"),
        (0.0, 0.0, False, "at most 0.002 worse (gate.margin)"),
        (0.001, 0.004, False, ": better"),
        (0.02, 0.1, False, ": better"),
        (-0.01, 0.004, True, "more than 0.002 worse (gate.margin)"),
        (0.001, 0.1, True, "it cannot be shown to be at most 0.002 worse, wait for more test bars"),
        (
            -0.001,
            0.1,
            True,
            "it cannot be shown to be at most 0.002 worse, wait for more test bars",
        ),
    ],
)
def test_a_candidate_must_be_shown_to_be_at_most_the_margin_worse(
    store, evidence, gain, noise, refused, words
):
    finding = against_champion(store, evidence, DEFAULT, gain, noise)
    assert finding.weight == ("refuse" if refused else "note")
    assert words in finding.text
    shown = "0.0000" if gain == 0.0 else f"{gain:+.4f}"
    assert f"of both {shown} nats per bar, lower bound " in finding.text


def test_the_margin_and_the_level_of_the_gate_decide(store, evidence):
    def weight(**changed: float) -> str:
        return against_champion(store, evidence, replace(DEFAULT, **changed), -0.005, 0.004).weight

    assert weight() == "refuse"
    assert weight(margin=0.007) == "note"
    assert weight(margin=0.0) == "refuse"
    near = {"margin": 0.0055}
    assert weight(**near, level=0.05) == "note"
    assert weight(margin=0.00545, level=0.01) == "refuse"


def not_compared(verdict) -> str:
    """Why there is no comparison; it is a note and blocks nothing."""
    assert verdict.of("refuse") == []
    (text,) = [text for text in verdict.of("note") if "version 7" in text]
    assert text.startswith("not compared with version 7: ")
    return text.removeprefix("not compared with version 7: ")


def test_the_gate_notes_why_it_cannot_compare(store, evidence):
    champion = incumbent(store)
    few = replace(evidence, scores=evidence.scores.iloc[:499])
    why = not_compared(judge(store.client, few, champion, DEFAULT))
    assert why.startswith("499 test bars lie after the training of both")
    assert why.endswith("at least 500 are needed")
    failing = replace(champion, detector=None)
    why = not_compared(judge(store.client, evidence, failing, DEFAULT))
    assert why == "it fails its smoke test"
    slower = replace(champion, detector=replace(champion.detector, step=pd.Timedelta(hours=4)))
    assert "bars of 4H" in not_compared(judge(store.client, evidence, slower, DEFAULT))
    gate = replace(DEFAULT, champion_bars=0)
    assert "version 7" not in str(judge(store.client, evidence, champion, gate).findings)


def test_synthetic_markets_are_compared_only_on_the_same_data(store, evidence):
    made_up = {tags.DATA_KIND: "synthetic", tags.DATA_DIGEST: "other"}
    champion = incumbent(store, **made_up)
    assert (
        not_compared(judge(store.client, evidence, champion, DEFAULT)) == "it is of another market"
    )


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_a_run_that_did_not_finish_cannot_be_judged(store, status):
    run_id = store.client.create_run(store.experiment_id, tags={tags.STATUS_REASON: "why"})
    store.client.update_run(run_id.info.run_id, status=status)
    with pytest.raises(NotJudged, match=f"the run is {status}: why"):
        read_evidence(store.client, store.client.get_run(run_id.info.run_id))


def test_gates_are_found_by_name():
    assert named_gate("default") == GateConfig()
    assert named_gate("strict") == replace(GateConfig(), name="strict", ewma_gain="refuse")
    strict = {"ewma_gain": "refuse", "other_gains": "refuse"}
    assert named_gate("strictest") == replace(GateConfig(), name="strictest", **strict)
    with pytest.raises(ConfigError, match=r"unknown gate 'strickt' \(did you mean strict\?\)"):
        named_gate("strickt")


def test_a_pool_does_not_leave_symbols_of_the_champion_without_a_model(evidence):
    def pool(*symbols: str) -> PooledDetector:
        return PooledDetector(dict.fromkeys(symbols, small_detector("BTC")))

    def found(champion: PooledDetector) -> list[Finding]:
        candidate = replace(evidence, detector=pool("A", "C"))
        version = Champion("hmm_regime.pool", "2", None, {tags.INSTRUMENT: "BTC"})
        findings = judge(None, candidate, Incumbent(version, champion), OFF).findings
        return [finding for finding in findings if "does not know" in finding.text]

    (finding,) = found(pool("A", "B", "C"))
    assert finding.weight == "refuse"
    assert "version 2 in Production also serves B, which this pool does not know" in finding.text
    assert found(pool("A")) == []
