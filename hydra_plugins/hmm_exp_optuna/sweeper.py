"""The sweeper and its options. Hydra imports this module on every start, so Optuna comes later."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig


@dataclass
class SamplerConf:
    """A sampler of `optuna.samplers`, and its arguments; a `_target_` would import it too early."""

    name: str = MISSING
    seed: int | None = None


@dataclass
class RandomConf(SamplerConf):
    """Independent draws."""

    name: str = "RandomSampler"


@dataclass
class TPEConf(SamplerConf):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), after random first trials."""

    name: str = "TPESampler"
    n_startup_trials: int = 10
    n_ei_candidates: int = 24
    multivariate: bool = False
    constant_liar: bool = False


@dataclass
class OptunaConf:
    """Options of the sweeper, as in hydra-optuna-sweeper."""

    _target_: str = "hydra_plugins.hmm_exp_optuna.sweeper.OptunaSweeper"
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    sampler: SamplerConf = MISSING
    direction: str = "minimize"
    storage: str | None = None
    study_name: str | None = None
    n_trials: int = 20
    n_jobs: int = 1
    params: dict[str, str] | None = None


if find_spec("optuna") and not find_spec("hydra_plugins.hydra_optuna_sweeper"):
    _store = ConfigStore.instance().store
    _store(group="hydra/sweeper", name="optuna", node=OptunaConf)
    _store(group="hydra/sweeper/sampler", name="tpe", node=TPEConf)
    _store(group="hydra/sweeper/sampler", name="random", node=RandomConf)


class OptunaSweeper(Sweeper):
    """Launches the trials that a study of Optuna proposes, `n_jobs` at a time."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what `sweep` needs, and make the launcher."""
        from hydra.core.plugins import Plugins

        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run all trials."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from hydra_plugins.hmm_exp_optuna import _study

        assert self.hydra_context is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        params = [f"{name}={value}" for name, value in (self.options["params"] or {}).items()]
        overrides = OverridesParser.create(loader).parse_overrides([*params, *arguments])
        _study.run(overrides, self.options, self.launcher.launch)
