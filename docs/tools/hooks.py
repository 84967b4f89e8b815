"""Generate the pages of the manual that come from code, on each build.

    reference/settings.md    from the schema and from the comments in `conf/`
    reference/commands.md    from the command lines' own help
    reference/layout.md      from the README's table of rooms and the docstring of each module
    evidence/gallery.md      from the pictures in `docs/images/gallery/`
    tutorial/notebook.md     from `docs/notebooks/quickstart.ipynb`

MkDocs calls `on_files`.
"""

import ast
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
from hmm_exp.config.rules import OneOf

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
GALLERY = ROOT / "docs" / "images" / "gallery"
SET_BY_CHOICE = "set by the choice"
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
    "strategy": "Wealth and drawdown of simple strategies on test, against buy and hold.",
    "residuals": "Forecast residuals: diagonal and without autocorrelation if the model is right.",
    "convergence": "Log-likelihood of each EM start; the more starts end together, the better.",
    "drift": "A walk forward: the parameters of the states at each refit.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages: dict[str, str | bytes] = {
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "reference/layout.md": layout_page(),
        "evidence/gallery.md": gallery_page(),
    }
    pages |= notebook_pages()
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def settings_page() -> str:
    """Every setting that a user sets: type, default, range, one line."""
    notes, schema, chosen = comments(), flat(Config()), chosen_words()
    lines = [
        "# Settings",
        "",
        "Set them on the command line as `name=value`, or in an experiment file. A word such as "
        "`split=walk_forward` takes a *choice*, a file that sets several settings of its group at "
        "once; the files are below each table. Without any word the program takes "
        f"{', '.join(f'`{word}`' for word in chosen)}. The column *default* starts with the value "
        "under these choices, and names the choices that set another one. `null` means that a "
        "setting has no value, and its line gives the consequence. A typo, an unknown choice, a "
        "value out of range or two settings that exclude each other stop the program with one line "
        "before any work starts.",
        "",
    ]
    rows: dict[str, list[str]] = {}
    for group in fields(Config):
        values = values_by_choice(group.name, schema, chosen)
        for name in schema:
            if name in notes and name.partition(".")[0] == group.name:
                section = group.name if "." in name else "Without a group"
                rows.setdefault(section, []).append(setting_row(name, notes[name], values))
    for section, table in rows.items():
        head = ["| setting | type | default | range | |", "|---|---|---|---|---|"]
        lines += [f"## {section}", "", *head, *table, "", *choices_of(section)]
    return "\n".join(lines)


def comments() -> dict[str, str]:
    """The comment in `conf/` on each setting, by dotted name; "" without a comment."""
    known, found = set(flat(Config())), dict[str, str]()
    choices = sorted(conf_dir().glob("*/*.yaml"), key=lambda path: (path.stem != "default", path))
    for path in [conf_dir() / "config.yaml", *choices]:
        prefix = "" if path.name == "config.yaml" else f"{path.parent.name}."
        for name, text in commented_settings(path.read_text(), prefix):
            if name in known:
                found[name] = found.get(name) or text
    return found


def commented_settings(text: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Settings of one YAML file, each with its comment or ""."""
    section = ""
    for line in text.splitlines():
        if match := re.match(r"( *)(\w+):([^#]*)(?:# *(.*))?$", line):
            indent, name, value, comment = match.groups()
            section = section if indent else ""
            yield f"{prefix}{section}{name}", comment or ""
            if not value.strip():
                section = f"{name}."


def chosen_words() -> list[str]:
    """The choices that hold without any word, such as `data=synthetic`."""
    entries = yaml.safe_load((conf_dir() / "config.yaml").read_text())["defaults"]
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    return [f"{group}={choice}" for group, choice in pairs if choice and " " not in group]


def values_by_choice(
    group: str, schema: dict[str, Any], chosen: list[str]
) -> dict[str, dict[str, Any]]:
    """Values of a group's settings under each of its choices, those of `chosen` first.

    A group without a folder has one choice, "".
    """
    found = {}
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        content = yaml.safe_load(path.read_text()) or {}
        own = content.get(group, {}) if "defaults" in content else content
        values = {f"{group}.{name}": value for name, value in own.items()}
        found[f"{group}={path.stem}"] = schema | values
    return dict(sorted(found.items(), key=lambda item: item[0] not in chosen)) or {"": schema}


def setting_row(name: str, note: str, values: dict[str, dict[str, Any]]) -> str:
    """One setting as a row of a table."""
    rule = RULES.get(name, "")
    if isinstance(rule, OneOf):  # the comment names them too
        note = note.removeprefix(" | ".join(map(str, rule.options))).lstrip(":; ")
    cells = (f"`{name}`", type_of(name), default_of(name, note, values), str(rule), note)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def default_of(name: str, note: str, values: dict[str, dict[str, Any]]) -> str:
    """The default, and the choices that set another value."""
    by_value: dict[str, list[str]] = {}
    for choice, settings in values.items():
        value = settings[name]
        shown = "null" if value is None else json.dumps(value).strip('"')
        by_value.setdefault(shown, []).append(f"`{choice}`")
    first, *others = by_value
    if note.startswith(SET_BY_CHOICE):
        return f"`{first}`"
    return "; ".join([f"`{first}`", *(f"`{v}` with {', '.join(by_value[v])}" for v in others)])


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
    """The help text of every command."""
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
    """The text that a command prints for --help."""
    if module == "hmm_exp.train":
        return help_text()
    printed = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(printed):
        getattr(import_module(module), function)(["--help"])
    return printed.getvalue()


def layout_page() -> str:
    """The rooms of the package, and one line for each module."""
    rooms = re.findall(r"^\|(?: room \||---| `).*", (ROOT / "README.md").read_text(), re.MULTILINE)
    names = re.findall(r"^\| `(\w+)`", "\n".join(rooms), re.MULTILINE)
    lines = [
        "# Layout of the code",
        "",
        "The package is built in floors, from the bottom to the top of this table. A room imports "
        "only from floors below its own.",
        "",
        *rooms,
        "",
        "Each line below is the first paragraph of the module's docstring.",
        "",
    ]
    package = ROOT / "hmm_exp"
    folders = [folder for name in names for folder in folders_of(package / name)]
    for folder in [package, *folders, ROOT / "scripts", ROOT / "benchmarks"]:
        files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        if files:
            rows = [f"| `{path.name}` | {summary(path)} |" for path in files]
            lines += [f"## {folder.relative_to(ROOT)}", "", "| file | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def folders_of(room: Path) -> list[Path]:
    """A room's folder and those in it; nothing for a room of one file."""
    return (
        [room, *sorted(path.parent for path in room.glob("*/__init__.py"))] if room.is_dir() else []
    )


def summary(path: Path) -> str:
    """First paragraph of a module's docstring, in one line."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def gallery_page() -> str:
    """Every picture with its caption."""
    lines = [
        "# Gallery",
        "",
        "These figures come from the winner of the [first sweep](../tutorial/first-sweep.md) on "
        "the synthetic market and from the sweep itself. `drift` comes from a walk forward, and "
        "`criteria` from a run with `model.state_grid` and `selection=cv`. `make gallery` renews "
        "them. A regime has the same colour in every figure, from light blue (calm) to dark red "
        "(turbulent); everything else is grey or black.",
        "",
    ]
    names = [path.stem for path in GALLERY.glob("*.png")]
    order = [name for name in CAPTIONS if name in names]
    for name in order + sorted(set(names) - set(order)):
        title, caption = name.replace("_", " "), CAPTIONS.get(name, "")
        lines += [f"## {title}", "", caption, "", f"![{title}](../images/gallery/{name}.png)", ""]
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
