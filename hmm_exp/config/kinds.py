"""What kind of value every setting takes, read off the types of the schema.

>>> kind_in_words("model.state_grid")
'a list of whole numbers, such as [2,3,4,5]'
"""

import difflib
from collections.abc import Iterable
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import get_args, get_type_hints

from hmm_exp.config.schema import RULES, Choice, Config, conf_dir

_IN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list[int]": "a list of whole numbers, such as [2,3,4,5]",
    "list[str]": "a list of texts, such as [a,b]",
}


def is_setting(name: str) -> bool:
    """Whether the schema knows a dotted name."""
    return name in _types()


def inside(name: str) -> str | None:
    """First setting under a name: `registry.name` of "registry"; of "_global_" the very first."""
    known = (setting for setting in _types() if f"{setting}.".startswith(f"{name}."))
    return next(iter(_types()) if name == "_global_" else known, None)


def is_group(name: str) -> bool:
    """Whether a name stands for a group of `conf/`, of which one choice is taken."""
    return "/" in name or (name.isidentifier() and (conf_dir() / name).is_dir())


def takes_text(name: str) -> bool:
    """Whether a setting is one text."""
    return _types().get(name) == "str"


def kind_in_words(name: str) -> str:
    """What a known setting takes: "a whole number", "one of split, bridge"."""
    rule = RULES.get(name)
    return str(rule) if isinstance(rule, Choice) else _IN_WORDS[_types()[name]]


def choices(group: str) -> str:
    """Names of the choices of a group of `conf/`."""
    return ", ".join(sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")))


def nearest(word: str, options: Iterable[str]) -> str:
    """Give " (did you mean X?)" when something like `word` is among the options, else nothing."""
    match = difflib.get_close_matches(word[:100], list(options), n=1)
    return f" (did you mean {match[0]}?)" if match else ""


def unknown_setting(name: str) -> str:
    """Complaint about a name that the schema does not know."""
    return (
        f"unknown setting {name}{nearest(name, [*_types(), *vars(Config())])}: --cfg job shows all"
    )


@cache
def _types() -> dict[str, str]:
    return dict(_leaves(Config))


def _leaves(node: type, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Type of every setting, without the None that it may have instead."""
    for name, kind in get_type_hints(node).items():
        if is_dataclass(kind):
            yield from _leaves(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            plain = get_args(kind)[0] if isinstance(kind, UnionType) else kind
            yield f"{prefix}{name}", plain.__name__ if isinstance(plain, type) else str(plain)
