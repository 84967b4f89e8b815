"""The manual is complete, builds strictly and fetches nothing; the texts are plain."""

import ast
import html
import json
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import hmm_exp
from hmm_exp.config import Config, flat
from tests.conftest import ROOT

SET_BY_THE_PROGRAM = {
    f"sweep.{name}" for name in ("parent_run", "n_cells", "attempt", "owner", "folder", "varied")
}
DIALECT = re.compile(
    r"\b(?:said|told|speaks?|spoken|held\s+(?:to|against)|beside)\b", flags=re.IGNORECASE
)
MOST_DIALECT = 60
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
    """A setting's line is its comment in `conf/`."""
    page = (site / "reference" / "settings.html").read_text()
    rows = dict(re.findall(r"<td><code>([\w.]+)</code></td>(.*?)</tr>", page, flags=re.DOTALL))
    assert set(rows) == set(flat(Config())) - SET_BY_THE_PROGRAM
    silent = [name for name, row in rows.items() if re.search(r"<td></td>\s*$", row)]
    assert silent == [], "no comment in conf/ explains them"
    assert "at least 1 and at most 10000" in rows["model.n_init"]


@pytest.mark.slow
def test_every_command_and_every_public_name_is_in_the_reference(site):
    page = text_of(site, "reference/commands.html")
    for name in ("hmm-train", "hmm-apply", "hmm-monitor", "hmm-promote", "hmm-report"):
        assert f"{name} " in page
    api = (site / "reference" / "api.html").read_text()
    for name in hmm_exp.__all__:
        anchor = "hmm_exp.figures" if name == "figures" else f"hmm_exp.{name}"
        assert name == "__version__" or f'id="{anchor}' in api or f'.{name}"' in api, name


@pytest.mark.slow
def test_commands_that_are_only_shown_have_the_options_they_are_shown_with(site):
    """Commands that cannot run here, such as one for the crontab; test_readme runs the others."""
    page = html.unescape(text_of(site, "reference/commands.html"))
    pages = "".join(path.read_text() for path in sorted((ROOT / "docs").glob("how-to/*.md")))
    shown = re.findall(r"^(hmm-[a-z]+) (.*)$", pages, flags=re.MULTILINE)
    assert len(shown) >= 5
    for name, words in shown:
        part = page.partition(f"usage: {name}")[2].partition("usage: ")[0] or page
        for option in re.findall(r"--[a-z-]+", words.partition(" -- ")[0]):
            assert option in part, f"{name} {words}"


@pytest.mark.slow
def test_every_module_has_its_line_in_the_layout(site):
    assert "<td><code>sweep</code></td>" in (site / "reference" / "layout.html").read_text()
    page = html.unescape(text_of(site, "reference/layout.html"))
    for path in modules():
        room = path.parent.relative_to(ROOT)
        part = page.partition(f"\n{room}\N{PILCROW SIGN}")[2]
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        words = [re.findall(r"\w+", text) for text in (docstring.splitlines()[0], part)]
        assert path.name in part, path
        assert " ".join(words[0]) in " ".join(words[1]), path


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


def modules() -> list[Path]:
    return sorted(p for p in (ROOT / "hmm_exp").rglob("*.py") if p.name != "__init__.py")


def test_texts_of_the_package_are_in_plain_words():
    """A few uses are exact (a process is told to stop); most have a plainer word."""
    found = [
        f"{path.relative_to(ROOT)}:{line} {match[0]}"
        for path in sorted((ROOT / "hmm_exp").rglob("*.py"))
        for line, text in texts(path)
        for match in DIALECT.finditer(text)
    ]
    assert len(found) <= MOST_DIALECT, "\n".join([f"{len(found)} dialect words", *found])


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings, string constants and comments of a module, each with its first line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
