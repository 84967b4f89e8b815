"""The manual: built strictly, complete, and with nothing that is fetched from elsewhere."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hmm_exp
from hmm_exp.config import Config, flat
from tests.conftest import ROOT

SET_BY_THE_PROGRAM = {
    f"sweep.{name}" for name in ("parent_run", "n_cells", "attempt", "owner", "folder", "varied")
}
RECORD = (ROOT / "docs" / "reference" / "record.md").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The manual as CI builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def text_of(site: Path, page: str) -> str:
    return re.sub(r"<[^>]+>", "", (site / page).read_text())


@pytest.mark.slow
def test_the_site_fetches_nothing_from_elsewhere(site):
    loads = r"<(?:script|img|iframe|source)[^>]+src=\"?https?:|<link[^>]+href=\"?https?:"
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not re.search(loads, page.read_text()), page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?https?:", sheet.read_text()), sheet.name


@pytest.mark.slow
def test_every_setting_has_its_row_with_a_line(site):
    """A setting's line is the comment beside it in `conf/`."""
    page = (site / "reference" / "settings.html").read_text()
    rows = dict(re.findall(r"<td><code>([\w.]+)</code></td>(.*?)</tr>", page, flags=re.DOTALL))
    assert set(rows) == set(flat(Config())) - SET_BY_THE_PROGRAM
    silent = [name for name, row in rows.items() if re.search(r"<td></td>\s*$", row)]
    assert silent == [], "no comment in conf/ says what they are"
    assert "at least 1 and at most 10000" in rows["model.n_init"]


@pytest.mark.slow
def test_every_command_and_every_public_name_is_in_the_reference(site):
    said = text_of(site, "reference/commands.html")
    for name in ("hmm-train", "hmm-apply", "hmm-monitor", "hmm-promote", "hmm-report"):
        assert f"{name} " in said
    api = (site / "reference" / "api.html").read_text()
    for name in hmm_exp.__all__:
        anchor = "hmm_exp.figures" if name == "figures" else f"hmm_exp.{name}"
        assert name == "__version__" or f'id="{anchor}' in api or f'.{name}"' in api, name


@pytest.mark.slow
def test_commands_that_are_only_shown_have_the_options_they_are_shown_with(site):
    """What cannot run here, such as a command for the crontab; the others run in test_readme."""
    said = html.unescape(text_of(site, "reference/commands.html"))
    pages = "".join(path.read_text() for path in sorted((ROOT / "docs").glob("how-to/*.md")))
    shown = re.findall(r"^(hmm-[a-z]+) (.*)$", pages, flags=re.MULTILINE)
    assert len(shown) >= 5
    for name, words in shown:
        part = said.partition(f"usage: {name}")[2].partition("usage: ")[0] or said
        for option in re.findall(r"--[a-z-]+", words.partition(" -- ")[0]):
            assert option in part, f"{name} {words}"


@pytest.mark.slow
def test_every_picture_has_its_place(site):
    gallery = (site / "evidence" / "gallery.html").read_text()
    pictures = sorted(path.name for path in (ROOT / "docs" / "images" / "gallery").glob("*.png"))
    assert len(pictures) >= 12
    assert all(f"gallery/{name}" in gallery for name in pictures)
    assert sum(path.stat().st_size for path in (ROOT / "docs").rglob("*.png")) < 1_500_000


@pytest.mark.slow
def test_the_notebook_is_a_page(site):
    page = (site / "tutorial" / "notebook.html").read_text()
    assert "filtered" in page
    assert page.count("notebook_") >= 2


def test_the_notebook_is_committed_with_outputs_that_name_no_machine():
    text = (ROOT / "docs" / "notebooks" / "quickstart.ipynb").read_text()
    outputs = [cell["outputs"] for cell in json.loads(text)["cells"] if "outputs" in cell]
    assert all(outputs)
    assert len(text) < 400_000
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)


def test_every_metric_of_a_run_is_in_the_record(small_config):
    """`docs/reference/record.md` names metrics in patterns such as `log_lik_{train,val,test}`."""
    small_config.model.n_states, small_config.model.state_grid = None, [2, 3]
    small_config.selection.cv_blocks = 2
    result = hmm_exp.run(hmm_exp.prepare(hmm_exp.checked(small_config)))
    known = re.compile("|".join(patterns()))
    assert [name for name in result.metrics if not known.fullmatch(name)] == []
    assert not known.fullmatch("a_metric_of_no_run")


def patterns() -> list[str]:
    """Regular expressions of the names in the first column of the table of metrics."""
    table = RECORD.partition("## Metrics")[2].partition("## Files")[0]
    names = re.findall(
        r"`([^`]+)`", " ".join(line.split("|")[1] for line in table.splitlines() if "|" in line)
    )
    free = {"gain": r"\w+_gain", "column": r"\w+"}
    suffixes = [name for name in names if name.startswith("_")]
    names = [name for name in names if not name.startswith("_")]
    names += [
        name.removesuffix("_error") + end for name in names if "{gain}" in name for end in suffixes
    ]

    def choice(match: re.Match) -> str:
        return f"(?:{free.get(match[1], match[1].replace(',', '|'))})"

    return [re.sub(r"\{([\w,]+)\}", choice, name) for name in names]
