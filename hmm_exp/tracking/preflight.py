"""Before a sweep starts: every setting of every cell is checked, and the data is read once.

Cells are a product of choices; checking each choice once, the others at their first value, finds
a bad value at the cost of a sum. Settings are checked before anything heavy is imported.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hmm_exp.config import Config, checked
from hmm_exp.errors import ConfigError, HmmExpError


@dataclass(frozen=True)
class Plan:
    """A sweep whose settings are all valid: its number of cells and one config per variation."""

    n_cells: int
    variations: list[Config]


def plan_sweep(config: DictConfig) -> Plan:
    """Check the settings of all cells. Raises ConfigError, or what Hydra raises on composing."""
    choices = _choices(config)
    variations = [checked(_compose(config, overrides)) for overrides in _variations(choices)]
    return Plan(math.prod(len(words) for words in choices), variations)


def check_data(plan: Plan) -> None:
    """Prepare every combination of data, features, timeframe and split that is planned once.

    Raises
    ------
    DataError, FitError
        When none can be prepared. One that cannot, beside others that can, is left to fail as a
        cell of its own.
    """
    from hmm_exp.experiment.prepare import prepare

    spaces = {_space_key(settings): settings for settings in plan.variations}
    errors = []
    for settings in spaces.values():
        try:
            prepare(settings)
        except HmmExpError as error:
            errors.append(error)
    if len(errors) == len(spaces):
        raise errors[0]


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


def _space_key(settings: Config) -> str:
    parts = (settings.data, settings.features, settings.timeframe, settings.split)
    return repr((parts, max(settings.state_grid)))
