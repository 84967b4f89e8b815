"""What the page of a panel reads from the store, its words, and which page the command makes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import TrackingError
from hmm_exp.report.__main__ import main
from hmm_exp.report.log import read_any, report_line
from hmm_exp.report.panel import PanelSubject, read_panel
from hmm_exp.report.panel_page import CODES, closes, panel_page
from hmm_exp.report.panel_words import regimes_now, summary
from hmm_exp.tracking import tags
from tests.small_panel import (
    EVIL,
    SWEEP,
    mixed_panel,
    panel_subject,
    store_panel,
    symbol_days,
)

NAMES = ("000001", "NA", "1e5", "True", "null")  # texts, whatever they look like


@pytest.fixture(scope="module")
def written() -> PanelSubject:
    panel = mixed_panel()
    more = panel_subject({name: symbol_days([0, 1, 1], 2) for name in NAMES})
    return replace(
        panel,
        symbols=pd.concat([panel.symbols, more.symbols], ignore_index=True),
        days=panel.days | more.days,
        cells=pd.concat([panel.cells, more.cells], ignore_index=True),
    )


@pytest.fixture(scope="module")
def panel_run(store, written, tmp_path_factory) -> str:
    return store_panel(store.client, written, tmp_path_factory.mktemp("files"), store.experiment_id)


@pytest.fixture(scope="module")
def read(store, panel_run) -> PanelSubject:
    return read_panel(store.client, "latest")


def test_a_panel_is_read_as_it_was_written(read, written):
    assert [*read.symbols["symbol"]] == [*written.symbols["symbol"]]
    numbers = ["K", "gain_val", "gain_test", "p_value", "q_by", "probability", "cells"]
    np.testing.assert_allclose(read.symbols[numbers], written.symbols[numbers])
    texts = ["status", "winner", "promoted", "reason", "model", "version", "regime", "since"]
    pd.testing.assert_frame_equal(read.symbols[texts], written.symbols[texts], check_dtype=False)
    assert set(read.days) == set(written.days) == set(written.symbols["symbol"]) - {"none"}
    for name, days in written.days.items():
        found = read.days[name]
        assert found.labels == days.labels
        for part in ("day", "close", "regime", "split"):
            np.testing.assert_array_equal(getattr(found, part), getattr(days, part))
    assert read.verdicts[EVIL] == written.verdicts[EVIL]
    assert [*read.cells["symbol"]] == [*written.cells["symbol"]]
    assert read.fdr == 0.05


def test_the_command_and_the_end_of_a_sweep_choose_the_page_of_a_panel(
    store, panel_run, tmp_path, capsys
):
    assert isinstance(read_any(store.client, SWEEP[:9]), PanelSubject)
    line = report_line(store, SWEEP)
    assert line.startswith("report: ")
    assert panel_run in line
    page = tmp_path / "page.html"
    uri = ["--tracking-uri", store.uri]
    assert main(["--sweep", "latest", "--output", str(page), *uri]) == 0
    assert f"panel {SWEEP}" in page.read_text()
    symbol = read_panel(store.client, SWEEP).symbols["run"].iloc[0]
    capsys.readouterr()
    assert main(["--run", symbol, *uri]) == 2
    assert f"symbol K1 of a panel: use --sweep {SWEEP}" in capsys.readouterr().err


def test_a_sweep_of_one_symbol_and_a_panel_without_its_table_are_no_panels(store):
    for kind, why in ((None, "has one symbol"), ("3", "did not end")):
        sweep_id = f"20260101-000000-{why[:3].strip()}"
        known = {tags.KIND: "sweep", tags.SWEEP_ID: sweep_id}
        known |= {tags.N_SYMBOLS: kind} if kind else {}
        store.client.create_run(store.experiment_id, tags=known)
        with pytest.raises(TrackingError, match=why):
            read_panel(store.client, sweep_id)


def words(subject: PanelSubject) -> str:
    found = summary(subject, regimes_now(subject))
    answers = [f"{one.answer} {' '.join(one.sentences)}" for one in found.answers]
    return "\n".join([found.headline, *answers])


def test_symbols_are_counted_by_where_they_are_now():
    groups = {name: one.group for name, one in regimes_now(mixed_panel()).items()}
    assert groups["K1"] == "single"
    assert groups["unknown"] == groups["none"] == "unknown"
    assert groups["before"] == "ended"
    days = {f"S{k}": symbol_days([k], 3) for k in range(3)}
    found = regimes_now(panel_subject(days))
    assert [one.group for one in found.values()] == ["calm", "between", "turbulent"]
    assert [one.position for one in found.values()] == [0.0, 0.5, 1.0]


def test_a_symbol_ends_only_where_others_go_on_for_two_weeks():
    def group(gap: int) -> str:
        last = symbol_days([1] * (10 + gap), 2)
        days = {"A": symbol_days([0] * 10, 2), "B": last}
        return regimes_now(panel_subject(days))["A"].group

    assert group(14) == "calm"
    assert group(15) == "ended"


def test_the_headline_counts_promotions_and_turbulence():
    days = {f"S{k}": symbol_days([k % 2], 2) for k in range(40)}
    won = {"promoted": "yes"}
    panel = panel_subject(days, S0=won, S1=won, S2={"promoted": "already"})
    text = words(panel)
    assert text.startswith("3 of 40 symbols promoted, 20 of 40 in the most turbulent regime now")
    assert "3 of 40 promoted at a false discovery rate of 5 %" in text
    assert "1 of them were in Production before" in text
    assert "Of 3 symbols promoted, expect fewer than one to be luck" in text
    many = panel_subject(days, **dict.fromkeys(days, won))
    assert "expect about 2 to be luck" in words(many)
    assert words(panel_subject(days)).startswith("None of 40 symbols promoted")
    assert "No model is better than luck beyond doubt" in words(panel_subject(days))
    kept_back = panel_subject(days, S0={"q_bh": 0.01}, S1={"q_bh": 0.03})  # promote=false
    assert "The models of 2 symbols are better than luck, and none is" in words(kept_back)


def test_the_answers_name_gains_symbols_without_a_winner_and_those_without_a_run():
    days = {"A": symbol_days([0], 2), "B": symbol_days([1], 2), "C": None}
    panel = panel_subject(days, A={"gain_test": 0.03}, B={"gain_test": -0.01})
    panel.main.data.tags[tags.N_SYMBOLS] = "5"
    panel.main.data.tags[tags.VERDICT] = "1 of 2 forecast better\nregimes now: vol-0 1"
    text = words(panel)
    assert "+0.0100 nats per bar on test, median" in text
    assert "quartiles 0.0000 and +0.0200, above zero for 1 of 2 symbols" in text
    assert "Without a winner: C." in text
    assert "2 symbols left no run." in text
    assert "1 of 2 forecast better." in text
    assert "regimes now" not in text


def test_without_a_gain_in_the_gate_there_is_no_rate_and_no_expected_share():
    days = {"A": symbol_days([0], 2), "B": symbol_days([1], 2)}
    text = words(replace(panel_subject(days, A={"promoted": "yes"}), fdr=None))
    assert "false discovery rate" not in text
    assert "expect" not in text


@pytest.mark.parametrize("n_symbols", [0, 1, 2])
def test_small_panels_have_a_page(n_symbols):
    days = {f"S{k}": symbol_days([0, 1, 2, 1]) for k in range(n_symbols)}
    if n_symbols:
        html = panel_page(panel_subject(days))
        assert "of 1 symbols" not in html
        assert "No day is unusual" in html
    html = panel_page(panel_subject({**days, "none": None}))
    assert "Without a winner: none." in html


@pytest.mark.parametrize(
    "values",
    [
        [20_000.0, 70_000.5, 31.25],
        [-1.0, 0.0, 3.0],
        [5.0, 5.0],
        [1e-9, np.nan, 2e-9],
        [np.nan, np.nan],
    ],
)
def test_closes_come_back_from_their_steps(values):
    import base64
    import zlib

    packed = closes(np.array(values, dtype=np.float32))
    steps = np.frombuffer(zlib.decompress(base64.b64decode(packed["steps"])), "<u2")
    codes = np.cumsum(steps.astype(np.int64)) % (CODES + 2)
    found = packed["low"] + codes / CODES * (packed["high"] - packed["low"])
    found = np.where(codes > CODES, np.nan, np.exp(found) if packed["log"] else found)
    np.testing.assert_allclose(found, values, rtol=2e-4, atol=1e-4 if not packed["log"] else 0)
    assert packed["log"] == (np.nanmin([*values, np.inf]) > 0 and np.isfinite(values).any())


def test_a_winner_that_is_not_promoted_is_loaded_from_its_run_and_others_from_production():
    html = panel_page(mixed_panel())
    assert 'hmm_exp.load_detector(\\"models:/hmm_regime.2/Production\\")' in html
    assert f'hmm_exp.load_detector(\\"runs:/{"a" * 32}\\")' in html
