"""Before a sweep starts: every setting of every cell is checked, and the data is read once.

Cells are a product of choices; checking each choice once, the others at their first value, finds
a bad value at the cost of a sum. Settings are checked before anything heavy is imported.
"""

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from hmm_exp.config import NOT_IN_RESULT, Config, checked, flat
from hmm_exp.errors import ConfigError
from hmm_exp.tracking import tags
from hmm_exp.tracking.isolation import CellError, worker

_IN_NAME = {"model.n_states", "model.state_grid", "covariance.type"}


@dataclass(frozen=True)
class Plan:
    """A sweep whose settings are all valid.

    Attributes
    ----------
    n_cells
        Size of the grid.
    variations
        One config per variation.
    varied
        Swept settings that `cell_name` does not show otherwise.
    """

    n_cells: int
    variations: list[Config]
    varied: list[str]


def plan_sweep(config: DictConfig) -> Plan:
    """Check the settings of all cells. Raises ConfigError, or what Hydra raises on composing."""
    choices = _choices(config)
    first, *others = _variations(choices)
    base = _compose(config, first)
    variations = [checked(base)]
    variations += [checked(_varied(config, base, first, words)) for words in others]
    swept = [words[0].split("=")[0] for words in choices if len(words) > 1]
    known = set(flat(Config()))
    varied = [name for name in swept if name in known and name not in _IN_NAME]
    return Plan(math.prod(len(words) for words in choices), variations, varied)


def check_data(plan: Plan) -> tuple[set[str], list[str]]:
    """Prepare every combination of data, features, timeframe and split that is planned once.

    Returns
    -------
    Digests of the data that was read, and warnings about them.

    Raises
    ------
    CellError
        When none can be prepared. One that cannot, beside others that can, is left to fail as a
        cell of its own.
    """
    spaces = {_space_key(settings): settings for settings in plan.variations}
    digests: set[str] = set()
    warnings: dict[str, None] = {}
    errors = []
    for settings in spaces.values():
        try:
            known = worker().ask("prepare", settings, None, within=settings.sweep.cell_timeout)
            digests.add(known[tags.DATA_DIGEST])
            warnings |= dict.fromkeys(filter(None, known.get(tags.DATA_WARNINGS, "").split("; ")))
        except CellError as error:
            errors.append(error)
    if len(errors) == len(spaces):
        raise errors[0]
    return digests, list(warnings)


def replace_grid(config: DictConfig) -> None:
    """Take out of a grid in YAML what the command line says itself: Hydra would do both."""
    params = config.hydra.sweeper.get("params") or {}
    said = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    with read_write(config), open_dict(config):
        for key in {override.get_key_element() for override in said} & set(params):
            del config.hydra.sweeper.params[key]


def said_of_cells(command: str) -> dict[str, set[str]]:
    """What a command line says of its cells: the words of each setting that can change them.

    Where the data is read from is left out: what is read has a digest.
    """
    settings = [word for word in shlex.split(command) if re.match(r"[~+]|[^-=][^=]*=", word)]
    parsed = OverridesParser.create().parse_overrides(settings)
    said = {override.get_key_element(): set(_words(override)) for override in parsed}
    others = NOT_IN_RESULT | {"hydra"}
    return {
        key: words
        for key, words in said.items()
        if re.split("[./]", key.lstrip("+~"))[0] not in others and key != "data.path"
    }


def refuse_sweep_words(config: DictConfig) -> None:
    """Raise ConfigError when a single run would leave out a grid, or stray into a sweep."""
    if config.sweep_id is not None:
        raise ConfigError(f"sweep_id={config.sweep_id} goes on with a sweep: add -m and its words")
    params = config.hydra.sweeper.get("params") or {}
    if params:
        grid = " ".join(f"{key}={value}" for key, value in params.items())
        raise ConfigError(f"the experiment holds a grid ({grid}): add -m to sweep over it")


def _choices(config: DictConfig) -> list[list[str]]:
    """For every override its list of `key=value` words, one word when it is not swept."""
    params = config.hydra.sweeper.get("params") or {}
    words = [f"{key}={value}" for key, value in params.items()]
    words += list(config.hydra.overrides.task)
    parsed = OverridesParser.create().parse_overrides(words)
    by_key = {override.get_key_element(): _words(override) for override in parsed}
    return list(by_key.values())


def _words(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: name the values to sweep, such as {key}=1,2,3")
    return [f"{key}={word}" for word in override.sweep_string_iterator()]


def _variations(choices: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yield the first words of all, then each other word with the rest at their first."""
    first = [words[0] for words in choices]
    yield first
    for place, words in enumerate(choices):
        for word in words[1:]:
            yield [*first[:place], word, *first[place + 1 :]]


def _compose(config: DictConfig, overrides: list[str]) -> DictConfig:
    loader = GlobalHydra.instance().config_loader()
    hydra_words = list(config.hydra.overrides.hydra)
    composed = loader.load_configuration(
        config_name=config.hydra.job.config_name,
        overrides=hydra_words + overrides,
        run_mode=RunMode.RUN,
    )
    OmegaConf.set_readonly(composed, False)
    return composed


def _varied(config: DictConfig, base: DictConfig, first: list[str], words: list[str]) -> DictConfig:
    """The composed `base` with the one word that differs from its own.

    Composing takes Hydra a tenth of a second, which a plain setting need not wait for. A choice of
    a group, and what the schema refuses, is left to it.
    """
    (word,) = set(words) - set(first)
    key, _, value = word.partition("=")
    if key in flat(Config()):
        varied = OmegaConf.masked_copy(base, [str(name) for name in base if name != "hydra"])
        with suppress(OmegaConfBaseException):
            OmegaConf.update(varied, key, yaml.safe_load(value))
            return varied
    return _compose(config, words)


def _space_key(settings: Config) -> str:
    parts = (settings.data, settings.features, settings.timeframe, settings.split)
    return repr((parts, max(settings.state_grid)))
