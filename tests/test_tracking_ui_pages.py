"""Views, descriptions and links of sweeps and versions in the MLflow UI."""

import html
import json
import re

import pandas as pd
import pytest
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag
from mlflow.utils.validation import _validate_metric_name

from hmm_exp.tracking import tags
from hmm_exp.tracking.ui import (
    GAIN_COLUMNS,
    HISTORY,
    LONGEST,
    history_key,
    in_a_line,
    plain,
    run_path,
    sweep_page,
    sweep_view,
    version_page,
)

GAINS = dict.fromkeys(GAIN_COLUMNS)
PARAMS = {"split.kind": "ratio", "selection.within": "bic", "selection.across": "return_gain_val"}


def run(name: str = "a", space: str = "v1@1H#1", status: str = "FINISHED", **params: str) -> Run:
    """A run as the store gives it."""
    kept = PARAMS | {"features.name": space.split("@")[0], "covariance.type": "diag"} | params
    known = {tags.CELL: name, tags.SWEEP_ID: "s1", tags.OBSERVATION_SPACE: space}
    info = RunInfo(name * 4, "7", "me", status, 0, 1, "active")
    return Run(
        info,
        RunData(
            metrics=[Metric("bic", 1.0, 0, 0)],
            params=[Param(*item) for item in kept.items()],
            tags=[RunTag(*item) for item in known.items()],
        ),
    )


def test_one_space_is_ranked_by_its_criterion():
    view = sweep_view("s1", [run("a"), run("b"), run("c", space="", status="FAILED")])
    assert (view["orderByKey"], view["orderByAsc"]) == ("tags.`rank`", True)
    assert view["selectedColumns"][:2] == ["tags.`rank`", "metrics.`bic`"]
    assert "tags.sweep_id = 's1'" in view["searchFilter"]
    assert "bic" in [chart.get("metricKey") for chart in view["compareRunCharts"]]


def test_what_cannot_be_compared_by_a_criterion_is_ranked_by_the_yardstick():
    spaces = sweep_view("s1", [run("a"), run("b", space="v2@1H#2")])
    walks = sweep_view("s1", [run("a", **{"split.kind": "walk_forward"})])
    for view in (spaces, walks):
        assert view["selectedColumns"][:2] == ["tags.`rank`", "metrics.`return_gain_val_mnat`"]
    shown = [chart.get("metricKey") for chart in spaces["compareRunCharts"]]
    assert "bic" not in shown
    assert [key for key in shown if key and HISTORY in key] == [
        f"{HISTORY}/v1-1H-1",
        f"{HISTORY}/v2-1H-2",
    ]


def test_no_convergence_chart_joins_two_spaces():
    """Also where two names differ only in what a metric's name cannot hold."""
    spaces = ["v1@1H#ab", "v1@1H+4H#ab", "v1@1H#ac", "v1@4H#ab"]
    keys = [history_key(space) for space in spaces]
    assert len(set(keys)) == len(spaces)
    for key in keys:
        _validate_metric_name(key)


def test_only_settings_that_vary_are_axes():
    view = sweep_view("s1", [run("a"), run("b", space="v2@1H#2")])
    assert view["compareRunCharts"][0]["selectedParams"] == ["features.name"]


MANY = [run(f"{n}", space=f"v1v2@1min+15min+1H+4H+1D#{n:06x}") for n in range(40)]


@pytest.mark.parametrize("cells", [[], [run("a"), run("b", space="v2@1H#2")], MANY])
def test_a_view_fits_into_a_tag(cells):
    assert len(json.dumps(sweep_view("20240101-000000-abcd", cells))) <= LONGEST


def test_a_sweep_says_who_won_why_and_links_there():
    table = pd.DataFrame(
        [{"cell": "a", "K": 3.0, "bic": 5.0, "val_ll/bar": 1.0, **GAINS, "gain_ewma": 0.1}]
    ).assign(eligible="yes", run="aaaa")
    page = sweep_page(run("p"), run("a"), table, ["a has the lowest BIC", "promoted"], True)
    assert page.startswith(f"**a** wins: [its run]({run_path('7', 'aaaa')})")
    assert "- a has the lowest BIC\n- promoted" in page
    assert "`report.html`" in page
    assert "| 3 | 5.0 | +1.0000 |  | +0.1000 |  |  |  | yes |" in page
    without = sweep_page(run("p"), None, None, ["none is eligible"], False)
    assert without.startswith("**No winner.**")
    assert "report.html" not in without


HOSTILE = (
    "[x](javascript:1) **b** <img src=x onerror=alert(1)> | a\n# `c` ~~d~~ __e__ ![f](g) &lt; $h$"
)


def test_a_name_is_no_markdown_and_no_html_and_reads_the_same():
    shown = plain(HOSTILE)
    assert not set("[]()<>*|`~_!\n$") & set(shown)
    assert html.unescape(shown) == " ".join(HOSTILE.split())
    assert plain("a\x1b[2Jb\x00") == "a &#91;2Jb"
    assert plain("btc 1h, 4 states: -0.5 %") == "btc 1h, 4 states: -0.5 %"


def test_names_from_outside_stand_in_pages_as_plain_text():
    about = {tags.CELL: HOSTILE, tags.INSTRUMENT: HOSTILE, tags.LABELS: HOSTILE}
    about |= {tags.GATE_REASONS: HOSTILE, tags.GATE: "default", tags.SWEEP_ID: "s1"}
    version = version_page(run("a"), about, {"bic": "1.5"})
    row = {"cell": HOSTILE, "K": 3.0, "bic": 5.0, "val_ll/bar": 1.0, **GAINS}
    table = pd.DataFrame([row]).assign(eligible=HOSTILE, run="aaaa")
    winner = run("a")
    winner.data.tags.update({tags.CELL: HOSTILE, tags.REGIME_NOW: HOSTILE})
    sweep = sweep_page(run("p"), winner, table, [HOSTILE], False)
    for page in (version, sweep):
        assert "img src" in page
        assert not re.search(r"javascript:1\)|<|~|[^#]`c|!\[", page)
        assert page.count("](") == page.count("](#/experiments/")
    rows = [line for line in sweep.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} == {11}
    assert in_a_line(version).startswith("[x](javascript:1) **b** <img")


def test_a_version_says_what_it_is_and_what_the_gate_found():
    about = {
        tags.CELL: "v1@1H diag K=3",
        tags.INSTRUMENT: "btc",
        tags.SWEEP_ID: "s1",
        tags.GATE: "default",
        tags.GATE_REASONS: "first; second",
        tags.LABELS: "fresh: the first version",
    }
    page = version_page(run("a"), about, {"bic": "1.5"})
    assert in_a_line(page) == "v1@1H diag K=3 on btc, run aaaa of sweep s1"
    assert "| bic | 1.5 |" in page
    assert "- first\n- second" in page
    assert "Labels fresh" in page
    assert in_a_line(None) == ""
