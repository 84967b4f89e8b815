"""What Hydra and OmegaConf refuse, in one line: the word, the rule, and what would be right."""

import re

from hydra.errors import OverrideParseException
from omegaconf.errors import GrammarParseError, InterpolationResolutionError, OmegaConfBaseException

from hmm_exp.config.kinds import inside, is_setting, kind_in_words, takes_text, unknown_setting
from hmm_exp.config.words import shell_word

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
