"""The sweeper `hydra/sweeper=grid`. Hydra imports this module on every start: it stays light."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class GridSweeperConf(BasicSweeperConf):
    """The options of Hydra's basic sweeper."""

    _target_: str = "hydra_plugins.hmm_exp_sweeper.sweeper.GridSweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="hmm_exp"
)


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, which composes every cell to check it and then again to launch it.

    This one composes each choice of groups, and makes the cells from those.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take the loader that keeps what cells share, and make the launcher with it."""
        from hmm_exp.sweep.compose import CellLoader

        loader = CellLoader(hydra_context.config_loader.get_search_path())
        context = replace(hydra_context, config_loader=loader)
        super().setup(hydra_context=context, task_function=task_function, config=config)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose one cell of each choice of groups; values are checked before the sweep."""
        from hmm_exp.sweep.compose import groups_of

        first = {groups_of(list(words)): words for words in reversed(batch)}
        super().validate_batch_is_legal(list(first.values()))
