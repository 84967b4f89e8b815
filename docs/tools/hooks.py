"""Pages of the manual that are made while it is built, so that they cannot go stale.

    reference/settings.md    from the schema and from the comments in `conf/`
    reference/commands.md    from the command lines' own help
    evidence/gallery.md      from the pictures in `docs/images/gallery/`
    tutorial/notebook.md     from `docs/notebooks/quickstart.ipynb`

MkDocs calls `on_files`.
"""

import base64
import contextlib
import io
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from hmm_exp.config import RULES, Config, conf_dir, flat
from hmm_exp.config.help import help_text
from hmm_exp.config.schema import OneOf

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
GALLERY = ROOT / "docs" / "images" / "gallery"
CAPTIONS = {
    "price": "The price, coloured by the regime that was known at each bar.",
    "probabilities": "Filtered probabilities; the least certain bars are the interesting ones.",
    "recovered": "Planted against recovered regimes; only a synthetic market can show this.",
    "criteria": "Every criterion over the number of states, each above its own lowest.",
    "bic": "A sweep's BIC, a panel for each observation space: it compares inside one only.",
    "transition_matrix": "Transition probabilities per bar.",
    "state_means": "Means and spreads of the features in every state, in standard deviations.",
    "dwell_times": "How long visits last, against the geometric law that the model assumes.",
    "next_bar_return": "What the bar *after* each state did, on train and on test.",
    "cumulative_gain": "Gain over the two baselines through time: steady, or one lucky month?",
    "residuals": "Forecast residuals: on the diagonal and without memory where the model is right.",
    "convergence": "Every start's climb; the more of them end together, the better.",
    "drift": "A walk forward: what the states meant from one refit to the next.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages: dict[str, str | bytes] = {
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "evidence/gallery.md": gallery_page(),
    }
    pages |= notebook_pages()
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def settings_page() -> str:
    """Every setting that a user sets: type, default, range, one line."""
    told, defaults = comments(), flat(Config()) | chosen()
    lines = [
        "# Settings",
        "",
        "Given on the command line as `name=value`, or in an experiment file. A group's choice, "
        "such as `split=walk_forward`, sets several at once; the files of all choices are below "
        "each table. A default is that of the choice made when nothing is said. A typo, an unknown "
        "choice or a value out of range is one line before any work starts.",
        "",
    ]
    for group in fields(Config):
        names = [name for name in defaults if name.partition(".")[0] == group.name]
        rows = [setting_row(name, told[name], defaults[name]) for name in names if name in told]
        if rows:
            head = ["| setting | type | default | range | |", "|---|---|---|---|---|"]
            lines += [f"## {group.name}", "", *head, *rows, "", *choices_of(group.name)]
    return "\n".join(lines)


def comments() -> dict[str, str]:
    """What `conf/` says beside each setting that it holds, by dotted name; "" where nothing."""
    known, found = set(flat(Config())), dict[str, str]()
    choices = sorted(conf_dir().glob("*/*.yaml"), key=lambda path: (path.stem != "default", path))
    for path in [conf_dir() / "config.yaml", *choices]:
        prefix = "" if path.name == "config.yaml" else f"{path.parent.name}."
        for name, text in commented_settings(path.read_text(), prefix):
            if name in known:
                found[name] = found.get(name) or text
    return found


def commented_settings(text: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Settings of one YAML file, each with its comment, or with nothing."""
    section = ""
    for line in text.splitlines():
        if match := re.match(r"( *)(\w+):([^#]*)(?:# *(.*))?$", line):
            indent, name, value, comment = match.groups()
            section = section if indent else ""
            yield f"{prefix}{section}{name}", comment or ""
            if not value.strip():
                section = f"{name}."


def chosen() -> dict[str, Any]:
    """Values of the choices that are made when nothing is said."""
    values: dict[str, Any] = {}
    for entry in yaml.safe_load((conf_dir() / "config.yaml").read_text())["defaults"]:
        if isinstance(entry, dict):
            ((group, choice),) = entry.items()
            path = conf_dir() / group / f"{choice}.yaml"
            if path.is_file() and not group.startswith("override"):
                content = yaml.safe_load(path.read_text()) or {}
                values |= {f"{group}.{name}": value for name, value in content.items()}
    return values


def setting_row(name: str, told: str, default: Any) -> str:
    """One setting as a row of a table."""
    shown = "null" if default is None else json.dumps(default).strip('"')
    rule = RULES.get(name, "")
    if isinstance(rule, OneOf):  # the comment names them too
        told = told.removeprefix(" | ".join(map(str, rule.options))).lstrip(":; ")
    cells = (f"`{name}`", type_of(name), f"`{shown}`", str(rule), told)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def type_of(name: str) -> str:
    """The type of a setting in words."""
    owner: Any = Config
    *groups, last = name.split(".")
    for group in groups:
        owner = get_type_hints(owner)[group]
    hint = str(get_type_hints(owner)[last]).replace("<class '", "").replace("'>", "")
    words = {"int": "integer", "float": "number", "str": "text", "bool": "true or false"}
    words |= {"None": "null", "list[str]": "list of texts", "list[int]": "list of integers"}
    return " or ".join(words[part] for part in hint.split(" | "))


def choices_of(group: str) -> list[str]:
    """The files of a group, folded."""
    lines = []
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        lines += [f'??? note "{group}={path.stem}"', "    ```yaml"]
        lines += [f"    {line}" for line in path.read_text().splitlines()]
        lines += ["    ```", ""]
    return lines


def commands_page() -> str:
    """What every command says of itself."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    lines = [
        "# Commands",
        "",
        "Installed with the package; in a checkout `scripts/` holds the same under longer names, "
        "and `hmm-train` is also `python -m hmm_exp.train`.",
        "",
    ]
    for name, where in declared.items():
        module, function = where.split(":")
        if find_spec(module.removesuffix(".__main__")) is None:
            continue
        lines += [f"## {name}", "", "```text", help_of(module, function).rstrip(), "```", ""]
    return "\n".join(lines)


def help_of(module: str, function: str) -> str:
    """What a command prints for --help."""
    if module == "hmm_exp.train":
        return help_text()
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
        getattr(import_module(module), function)(["--help"])
    return said.getvalue()


def gallery_page() -> str:
    """Every picture with what to look for."""
    lines = [
        "# Gallery",
        "",
        "Figures as the program makes them: the winner of the [first sweep](../tutorial/"
        "first-sweep.md) on the synthetic market, the figures of that sweep, `drift` from a walk "
        "forward, and `criteria` from a run with `model.state_grid` and `selection=cv`. `make "
        "gallery` makes them anew. A regime has one colour everywhere, light blue when calm to "
        "dark red when turbulent; grey and ink are for all that is no regime.",
        "",
    ]
    names = [path.stem for path in GALLERY.glob("*.png")]
    order = [name for name in CAPTIONS if name in names]
    for name in order + sorted(set(names) - set(order)):
        title, told = name.replace("_", " "), CAPTIONS.get(name, "")
        lines += [f"## {title}", "", told, "", f"![{title}](../images/gallery/{name}.png)", ""]
    return "\n".join(lines)


def notebook_pages() -> dict[str, str | bytes]:
    """The notebook as a page, and its pictures."""
    pages: dict[str, str | bytes] = {}
    lines: list[str] = []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        text = "".join(cell["source"])
        lines += [text, ""] if cell["cell_type"] == "markdown" else ["```python", text, "```", ""]
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"tutorial/notebook_{len(pages)}.png"
                pages[name] = base64.b64decode("".join(data["image/png"]))
                lines += [f"![Figure]({name.partition('/')[2]})", ""]
            else:
                lines += ["```text", "".join(data["text/plain"]).rstrip(), "```", ""]
    title, rest = lines[0].split("\n", 1)
    where = "The notebook [quickstart.ipynb](../notebooks/quickstart.ipynb), as it ran.\n"
    pages["tutorial/notebook.md"] = "\n".join([title, "", where, rest, *lines[1:]])
    return pages
