"""Put the words of a command line as Hydra reads them, and its errors on one line.

Hydra's grammar gives a meaning to `, = ( [ { ' " $` and refuses `# ~ < &` and every letter beyond
ASCII. A setting that takes a text takes any text: what the grammar cannot read is quoted here, and
so is the path of a file that exists, whatever it reads as.

>>> hydra_words(["data.volume_column=<TICKVOL>", "-m"])
['-m', 'data.volume_column="<TICKVOL>"']
"""

import argparse
import os
import re
import shlex
from functools import cache
from itertools import takewhile
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException
from omegaconf.errors import GrammarParseError, InterpolationResolutionError, OmegaConfBaseException

from hmm_exp.config.checks import (
    at_home,
    choices,
    inside,
    is_group,
    is_setting,
    kind_in_words,
    literal,
    takes_text,
    unknown_setting,
)
from hmm_exp.errors import ConfigError

QUIET = "--quiet"
_SETTING = re.compile(r"[~+]|[^-=][^=]*=")
_NAME = re.compile(r"(\+{1,2}|~)?[\w$./-]+", re.ASCII)
_DEEPEST = 200  # brackets of a word; Hydra's grammar takes 16 s to read 60,000
_GRID = "hydra.sweeper.params."
_BOUND = r"""['"]?(min|max)['"]?\s*:\s*(\d{1,4})"""
_BOUNDS = re.compile(rf"\{{\s*{_BOUND}\s*,\s*{_BOUND}\s*\}}")
_MOST_STATES = 1000  # in a list; the settings' own bound is lower
_OURS = ("hydra", "hydra.callbacks", "hydra.callbacks.sweep", "hydra.launcher", "hydra.sweeper")


def hydra_words(words: list[str]) -> list[str]:
    """Give the words in an order that argparse takes and in quotes that Hydra needs.

    `--quiet` becomes a setting. Raises ConfigError for a word that is neither a setting nor an
    option, options that exclude each other, and a value that cannot be read.
    """
    settings = [word for word in words if is_setting_word(word)]
    options = [word for word in words if not is_setting_word(word) and word != QUIET]
    found = _checked_options(options, words)
    settings = [as_hydra_reads(word) for word in settings] + ["quiet=true"] * (QUIET in words)
    return [*settings, *options] if found.info else [*options, *settings]


def is_setting_word(word: str) -> bool:
    """Whether a word sets, adds or removes a setting; others are options and their values."""
    return bool(_SETTING.match(word))


def as_hydra_reads(word: str) -> str:
    """Quote the value of a text setting where Hydra would misread it. Raises ConfigError."""
    name, _, value = word.partition("=")
    plain = name.lstrip("+~")
    if plain in _OURS or plain.startswith("hydra.callbacks.sweep.") or plain.endswith("._target_"):
        raise ConfigError(f"{word}: the program needs its own {plain}")
    if plain.startswith(_GRID):
        raise ConfigError(f"{word}: on the command line a grid is -m {word.split(_GRID)[1]}")
    if plain == "model.state_grid":
        value = _listed(value)
        word = f"{name}={value}"
    override = _parsed(word) if _NAME.fullmatch(name) else None
    if name.startswith("~") or not (takes_text(plain) or is_group(plain)):
        if override is None:
            raise _unreadable(word)
        several = override.is_sweep_override() or isinstance(override.value(), list | dict)
        if name.startswith("~") and several:
            raise ConfigError(f"{word}: what is removed has one value: write {name}")
        return word
    if is_group(plain):
        _check_choice(plain, value, override)
        return word
    return f"{name}={_text(plain, value, override)}"


def hydra_text(text: str) -> str:
    """Give a text in the quotes in which Hydra reads it as it is, whatever is in it."""
    quote = Quote.single if '"' in text else Quote.double
    return QuotedString(literal(text), quote).with_quotes()


def shell_word(name: str, text: str) -> str:
    """Word that gives a setting this text when it is typed in a shell; in quotes if needed."""
    plain = _parsed(f"{name}={text}") if shlex.quote(text) == text else None
    if plain and not plain.is_sweep_override() and plain.value() == text:
        return f"{name}={text}"
    return f"{name}={shlex.quote(hydra_text(text))}"


def _listed(value: str) -> str:
    """The list of whole numbers that `{min: 2, max: 5}` stands for; any other value as it is."""
    found = _BOUNDS.fullmatch(value)
    bounds = {found[1]: int(found[2]), found[3]: int(found[4])} if found else {}
    if len(bounds) < 2 or not bounds["min"] <= bounds["max"] <= _MOST_STATES:
        return value
    return f"[{','.join(map(str, range(bounds['min'], bounds['max'] + 1)))}]"


def _text(name: str, value: str, override: Override | None) -> str:
    """Value of a text setting as Hydra reads it."""
    if name == "data.path":
        for paths in ([value], value.split(",")):
            if all(path and os.path.exists(at_home(path)) for path in paths):  # noqa: PTH110
                return ",".join(map(hydra_text, paths))
    if override is None and "${" in value:
        raise ConfigError(f"{name}={value}: an interpolation that cannot be read; it ends with }}")
    if override is None and "," in value:
        raise ConfigError(
            f"{name}={value} cannot be read: to sweep over texts, quote each; one text with a "
            f"comma is written {shell_word(name, value)}"
        )
    if override is None or not _is_text(override):
        return hydra_text(value)
    return value


def _is_text(override: Override) -> bool:
    """Whether Hydra reads a value as text, null, or several of them to sweep over."""
    return override.is_sweep_override() or isinstance(override.value(), str | None)


def _check_choice(group: str, value: str, override: Override | None) -> None:
    """Refuse what cannot name a choice of a group; Hydra would raise a bare ValueError."""
    read = [None] if override is None else _values(override)
    if not all(isinstance(item, str | QuotedString) for item in read):
        known = choices(group)
        among = f"one of {known}" if known else "name one of its choices"
        raise ConfigError(f"unknown {group} {value!r}: {among}")


def _values(override: Override) -> list[Any]:
    """Single values of an override that may be a sweep; glob gives names by itself."""
    value: Any = override.value()
    if override.is_sweep_override():
        return value.list if override.is_choice_sweep() and hasattr(value, "list") else ["glob"]
    if override.key_or_group == "experiment" and isinstance(value, list):
        return value  # Hydra composes them one after the other
    return [value]


def _unreadable(word: str) -> ConfigError:
    """Describe a word that Hydra's grammar cannot read, by what its setting takes."""
    name, _, value = word.partition("=")
    plain = name.lstrip("+~")
    if not _NAME.fullmatch(name):
        return ConfigError(f"{word!r} is no setting: write name=value, such as model.n_states=3")
    if is_setting(plain):
        kind = kind_in_words(plain)
        if "texts" in kind:
            kind += f'; other characters need quotes: {plain}=\'["a b","<c>"]\''
        return ConfigError(f"{word}: must be {kind}")
    if plain.startswith("hydra."):
        return ConfigError(f"{word} cannot be read; a text is quoted: {shell_word(name, value)}")
    return ConfigError(unknown_setting(plain))


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _parsed(word: str) -> Override | None:
    """Parse a word by Hydra's grammar; None where that cannot read it."""
    if max(map(word.count, "[{(")) > _DEEPEST:
        return None
    try:
        return _parser().parse_override(word)
    except Exception:  # ANTLR's, Python's on too many digits or too deep a nesting
        return None


def _checked_options(options: list[str], words: list[str]) -> argparse.Namespace:
    """Read options as Hydra will. Raises ConfigError."""

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message} (see --help, --hydra-help)")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    found, others = parser.parse_known_args(options)
    if unknown := [word for word in others if word.startswith("-")]:
        refuse(f"unknown option {unknown[0]}")
    if strays := found.overrides + others:
        raise _stray(words, strays)
    modes = {"-m": found.multirun, "--run": found.run, "--cfg": found.cfg, "--info": found.info}
    modes |= {"--shell-completion": found.shell_completion, "--hydra-help": found.hydra_help}
    if len(both := [name for name, given in modes.items() if given]) > 1:
        refuse(f"{' and '.join(both)} exclude each other")
    for name, given in (("--resolve", found.resolve), ("--package", found.package)):
        if given and not found.cfg:
            refuse(f"{name} goes with --cfg job")
    if found.cfg == "job" and not inside(found.package or "_global_"):
        refuse(f"--package {found.package}: no such group of settings")
    if found.experimental_rerun:
        refuse("--experimental-rerun would unpickle a file: give the command's words again")
    if found.config_name:
        refuse("--config-name: settings start from config.yaml; --config-dir adds choices of yours")
    return found


def _stray(words: list[str], strays: list[str]) -> ConfigError:
    """Explain words that are neither settings nor options, such as the rest of a file's name."""
    place = words.index(strays[0])
    name, equals, value = words[place - 1].partition("=") if place else ("", "", "")
    advice = "see --help"
    rest = " ".join([value, *takewhile(lambda word: word in strays, words[place:])])
    if equals and takes_text(name):
        advice = f"a value with blanks is quoted, {shell_word(name, rest)}"
    elif equals and value.startswith(("{", "[")):
        advice = f"a value with blanks is quoted, {shlex.quote(f'{name}={rest}')}"
    return ConfigError(f"{strays[0]!r} is neither a setting (name=value) nor an option: {advice}")


LAUNCHERS = {  # Hydra's name: the preset, the extra it is in
    "joblib": ("joblib", "parallel"),
    "submitit_slurm": ("slurm", "slurm"),
    "submitit_local": ("submitit_local", "slurm"),
    "ray": ("ray", "ray"),
}
_CHOICE = re.compile(r"Could not find '(.*)' Available options in '(.*?)': (.*?) Conf")
_UNKNOWN = re.compile(r"Could not override '\+*([^']*)'|Key '\w+' not in.*?full_key: ([\w.]+)")
_MERGING = "Error merging override "
_LIST = re.compile(r"Ambiguous value for argument '(([^=]*)=(.*))' 1\. ")
_SWEEP = re.compile(r"Sweep parameters '(.*)' requires")


def composition_error(error: Exception) -> str:
    """Hydra's and OmegaConf's words on one line, with the nearest setting for an unknown one."""
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read: quote a text that holds other characters"
    root = error.__cause__ or error
    for one in (error, root):
        if isinstance(one, InterpolationResolutionError | GrammarParseError):
            return _interpolation(one)
    if str(error).startswith(_MERGING):
        return _wrong(str(error).removeprefix(_MERGING), root)
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if found := _CHOICE.search(text):
        return _choice(*found.groups())
    if unknown := _UNKNOWN.search(text):
        return unknown_setting(unknown[1] or unknown[2])
    if several := _LIST.search(text):
        return _several(*several.groups())
    if sweep := _SWEEP.search(text):
        return f"{sweep[1]}: add -m to sweep"
    return re.split(" full_key:| See https:| Config search path:", text)[0]


def _choice(path: str, group: str, options: str) -> str:
    word = path.removeprefix(f"{group}/")
    if word == "optuna" and group == "hydra/sweeper":
        return "hydra/sweeper=optuna needs Optuna: pip install 'hmm_exp[optuna]'"
    if word in LAUNCHERS and group == "hydra/launcher":
        preset, extra = LAUNCHERS[word]
        return f"compute={preset} needs a plugin: pip install 'hmm_exp[{extra}]'"
    return f"unknown {group} {word!r}: one of {', '.join(options.split())}"


def _wrong(word: str, cause: BaseException) -> str:
    """A value that the schema does not take."""
    name = word.partition("=")[0].lstrip("+")
    if is_setting(name):
        return f"{word}: must be {kind_in_words(name)}"
    if first := inside(name):
        return f"{word}: {name} holds settings, such as {first}"
    return f"{word}: {str(cause).splitlines()[0]}"


def _several(word: str, name: str, value: str) -> str:
    """Values with commas in a single run."""
    if takes_text(name):
        return f"{word}: add -m to sweep; a text with a comma is {shell_word(name, value)}"
    return f"{word}: add -m to sweep over a list"


def _interpolation(error: BaseException) -> str:
    """An interpolation such as ${oc.env:HOME} that leads nowhere or cannot be read."""
    where = error.full_key if isinstance(error, OmegaConfBaseException) else None
    reason = (
        str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ")
    )
    if isinstance(error, GrammarParseError):
        reason = "an interpolation that cannot be read"
    return f"{where}: {reason}" if where else reason
