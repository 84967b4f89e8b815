"""Change a config that Hydra has composed.

with unlocked(config):
    config.hydra.overrides.task = ["model.n_states=3"]
"""

from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf, open_dict, read_write


@contextmanager
def unlocked(config: DictConfig) -> Iterator[None]:
    """Let every value change and new ones come; Hydra 1.4 locks its own node on top of all."""
    with read_write(config), open_dict(config), read_write(config.hydra), open_dict(config.hydra):
        yield


def set_for_hydra(config: DictConfig, name: str, value: str | int | None) -> None:
    """Set an option of Hydra's own, also in the words from which it composes the cells.

    Hydra 1.4 refuses a cell whose launcher or sweeper is not that of the sweep.
    """
    with unlocked(config):
        OmegaConf.update(config, name, value)
        config.hydra.overrides.hydra.append(f"{name}={'null' if value is None else value}")
