"""Compose the cells of a sweep, once for each choice of groups.

Hydra reads and merges two dozen files for a cell, which takes a tenth of a second. Cells that
choose the same groups differ by plain settings alone, such as `model.n_states=3`, and Hydra sets
those in a copy of what it composed for the first of them.
"""

from copy import deepcopy
from functools import cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from hmm_exp.config.checks import is_group, is_setting

_composed: dict[tuple, DictConfig] = {}  # by all that decides it; a process runs one sweep


class CellLoader(ConfigLoaderImpl):
    """Hydra's loader of configs, which gives the same configs and keeps what cells share."""

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        """Config of a cell: as composed for its choice of groups, with its plain settings."""
        names = {word: word.partition("=")[0] for word in sweep_overrides}
        if not all(is_setting(name) or is_group(name) for name in names.values()):
            return super().load_sweep_config(master_config, sweep_overrides)
        config = deepcopy(self._of_groups(master_config, groups_of(sweep_overrides)))
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        overrides = [_parsed(word) for word in sweep_overrides]
        plain = [one for one in overrides if is_setting(names[str(one.input_line)])]
        self._apply_overrides_to_config(plain, config)
        config.hydra.overrides.task = sweep_overrides
        if not OmegaConf.is_interpolation(config.hydra.job, "override_dirname"):  # before Hydra 1.4
            config.hydra.job.override_dirname = _joined(overrides, config.hydra.job.config)
        return config

    def _of_groups(self, master_config: DictConfig, groups: tuple[str, ...]) -> DictConfig:
        given = OmegaConf.to_container(master_config.hydra.overrides.hydra)  # nothing resolved
        assert isinstance(given, list)
        name = master_config.hydra.job.config_name
        key = (str(self.config_search_path), name, *given, None, *groups)
        if key not in _composed:
            _composed[key] = super().load_sweep_config(master_config, list(groups))
        return _composed[key]


def groups_of(words: list[str]) -> tuple[str, ...]:
    """Words that are no plain setting: they choose what Hydra composes from."""
    return tuple(word for word in words if not is_setting(word.partition("=")[0]))


def _joined(overrides: list[Override], job: DictConfig) -> str:
    """What Hydra offers as the name of a folder of a cell."""
    text = job.override_dirname
    kept = [str(one.input_line) for one in overrides if one.key_or_group not in text.exclude_keys]
    return text.item_sep.join(sorted(kept)).replace("=", text.kv_sep)


@cache
def _parsed(word: str) -> Override:
    return OverridesParser.create().parse_override(word)
