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
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from mkdocs.exceptions import PluginError

import hmm_exp
import hmm_exp.train  # registers the schema
from hmm_exp.config import Config, conf_dir, flat, to_config
from tests.conftest import OF_HYDRA, ROOT

SET_BY_THE_PROGRAM = {
    f"sweep.{name}"
    for name in (
        *("parent_run", "n_cells", "attempt", "owner", "folder", "varied"),
        *("configurations", "symbols", "symbol", "search", "n_possible"),
    )
}
DIALECT = re.compile(
    r"\b(?:said|told|speaks?|spoken|held\s+(?:to|against)|beside)\b", flags=re.IGNORECASE
)
MOST_DIALECT = 60
RECORD = (ROOT / "docs" / "reference" / "record.md").read_text()
# A formula in plain letters: an index, a root, a power, a sum, or an indented line of code.
PLAIN_FORMULA = re.compile(
    r"\b[a-zA-Z]_[a-z0-9]+\b|\bsqrt\b|√|∑|[²³]|[a-z)]\^|^ {4,}\S.*",
    flags=re.MULTILINE,
)


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


@pytest.fixture(scope="module")
def settings(site) -> dict[str, list[str]]:
    """Cells of each setting's row: type, default, range, line."""
    page = (site / "reference" / "settings.html").read_text()
    rows = re.findall(r"<td><code>([\w.]+)</code></td>(.*?)</tr>", page, flags=re.DOTALL)
    return {
        name: [
            html.unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall("<td>.*?</td>", row)
        ]
        for name, row in rows
    }


@pytest.mark.slow
def test_the_line_of_a_setting_that_may_be_null_explains_null(settings):
    silent = [
        name
        for name, (kind, _, _, line) in settings.items()
        if "null" in kind and not re.search(r"\bnull\b", line)
    ]
    assert silent == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice",
    [
        *("data=bars", "data=features_csv", "split=dates", "split=walk_forward", "selection=cv"),
        *("gate=off", "gate=strict", "compute=slurm", "compute=ray", "compute=joblib"),
    ],
)
def test_the_default_of_each_setting_is_that_of_the_composed_choice(settings, choice):
    """The page states a default for the choices without any word, then those that differ."""
    group = choice.partition("=")[0]
    with initialize_config_dir(str(conf_dir()), **OF_HYDRA):
        composed = {
            words: flat(to_config(compose("config", [words]))) for words in (choice, "quiet=true")
        }
    for name, (_, default, _, line) in settings.items():
        if name.partition(".")[0] == group and not line.startswith("set by the choice"):
            first, *others = default.split("; ")
            special = [
                text.partition(" with ")[0]
                for text in others
                if choice in text.split(" with ")[1].split(", ")
            ]
            for shown, words in ((first, "quiet=true"), ((special or [first])[0], choice)):
                assert composed[words][name] == yaml.safe_load(shown), name


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
def test_every_formula_is_drawn_on_every_page(site):
    """As MathML in the page itself; code may hold dollars and backslashes."""
    drawn = {}
    for page in site.rglob("*.html"):
        text = page.read_text()
        drawn[page.relative_to(site).as_posix()] = text.count("<math")
        prose = re.sub(r"<(pre|code|script|style).*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"\\[(\[a-zA-Z]|\$[^$]{1,60}\$", prose), page.name
    for name in ("bic", "states", "yardstick", "look-ahead"):
        assert drawn[f"explanation/{name}.html"] >= 3, name
    assert drawn["reference/api.html"] >= 8


def test_no_page_writes_a_formula_in_plain_letters():
    found = [
        f"{page.relative_to(ROOT)}: {match[0]}"
        for page in sorted((ROOT / "docs").glob("*/*.md"))
        for match in PLAIN_FORMULA.finditer(prose_of(page.read_text()))
    ]
    assert found == []


def test_every_work_that_a_page_cites_is_in_the_sources():
    sources = " ".join((ROOT / "docs" / "sources.md").read_text().split())
    cited = re.compile(r"(?:\(| & )([A-Z]\w+) \(?(\d{4})|([A-Z]\w+) and others\s\(?(\d{4})")
    for page in sorted((ROOT / "docs").glob("*/*.md")):
        for match in cited.finditer(" ".join(page.read_text().split())):
            author, year = filter(None, match.groups())
            assert re.search(rf"{author}[^*]*\({year}\)", sources), f"{page.name}: {match[0]}"


def prose_of(page: str) -> str:
    """A page without fenced code, formulas and links."""
    page = re.sub(r"^```.*?^```|^\$\$.*?^\$\$", "", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"^:::.*\n(?: +.*\n)*", "", page, flags=re.MULTILINE)
    return re.sub(r"`[^`]*`|\$[^$\n]+\$|\]\([^)]*\)", "", page)


@pytest.mark.parametrize("tex", [r"\unknown{x}", "x_{1", "a & b", r"\frac{1}", "x^2^3"])
def test_a_formula_that_is_not_valid_stops_the_build(tex):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="explanation/bic.md"))
    marked = '<p><span class="arithmatex">\\({}\\)</span></p>'.format
    assert "<math><mi>x</mi></math>" in formulas().on_page_content(marked("x"), page)
    with pytest.raises(PluginError, match=r"explanation/bic.md: formula \$") as error:
        formulas().on_page_content(marked(html.escape(tex)), page)
    assert tex in str(error.value)


def formulas():
    """The hook that draws formulas, as MkDocs loads it."""
    spec = spec_from_file_location("formulas", ROOT / "docs" / "tools" / "formulas.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["1280-light", "390-dark"])
def tab(browser, request):
    """A tab for files; no console error, and nothing is fetched from elsewhere."""
    width, scheme = request.param
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: complaints.append(request.url))
    yield page
    context.close()
    assert [text for text in complaints if not text.startswith(("file:", "data:"))] == []


@pytest.mark.slow
def test_search_works_on_pages_opened_from_disk(site, tab):
    tab.goto((site / "how-to" / "live.html").as_uri())
    if tab.viewport_size["width"] < 1000:
        tab.click("label.md-header__button[for=__search]")
    tab.locator(".md-search__input").press_sequentially("DNS rebinding")
    first = tab.locator(".md-search-result__item a").first
    first.wait_for(timeout=60_000)
    first.click()
    tab.wait_for_url("**/how-to/team-server.html*")
    assert "A store for a team" in tab.locator("h1").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["explanation/yardstick", "explanation/bic", "tutorial/own-bars", "reference/api"]
)
def test_formulas_have_a_place_on_the_page_and_the_page_does_not_scroll_sideways(site, tab, page):
    tab.goto((site / f"{page}.html").as_uri())
    boxes = tab.evaluate(
        "[...document.querySelectorAll('math')].map(m => [m.getBoundingClientRect().width, "
        "m.getBoundingClientRect().height])"
    )
    assert boxes
    assert all(width > 4 and height > 4 for width, height in boxes)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


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


def test_the_backtest_of_the_notebook_does_not_look_ahead_and_pays_for_each_change():
    cells = json.loads((ROOT / "docs" / "notebooks" / "quickstart.ipynb").read_text())["cells"]
    (cell,) = [
        text for text in map("".join, (c["source"] for c in cells)) if "def backtest" in text
    ]
    names = {"pd": pd}
    exec(cell.partition("\n\n\n")[0], names)
    rng = np.random.default_rng(3)
    close, invested = pd.Series(rng.uniform(90, 110, 60)), pd.Series(rng.random(60) < 0.5)
    returns = names["backtest"](close, invested, 0.01)
    position, wealth = 0.0, []
    for i in range(60):
        wanted = float(invested[i - 1]) if i else 0.0
        earned = wanted * (close[i] / close[i - 1] - 1) if i else 0.0
        wealth.append(earned - 0.01 * abs(wanted - position))
        position = wanted
    np.testing.assert_allclose(returns, wealth, atol=1e-15)
    later_close, later = close.copy(), invested.copy()
    later_close[40:], later[40:] = 5.0, ~later[40:]
    assert returns[:40].equals(names["backtest"](later_close, later, 0.01)[:40])


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
