"""A sweep whose cells are chosen by a sweeper that optimises, such as Optuna's.

    python -m hmm_exp.train -m hydra/sweeper=optuna 'model.n_states=choice(2,3,4)' ...

The sweeper proposes cells, Hydra launches them, and each returns its `sweep.objective`. All else is
as in a grid: the same runs, the same choice of the winner, the same gate.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hmm_exp.config import Config
from hmm_exp.config.grid import MOST_CELLS
from hmm_exp.config.objectives import ACROSS_SPACES, OBJECTIVES, reads_validation
from hmm_exp.config.unlocked import set_for_hydra
from hmm_exp.errors import ConfigError, counted
from hmm_exp.parallel import cores
from hmm_exp.tracking import tags

_GRIDS = {
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.hmm_exp_sweeper.sweeper.GridSweeper",
}
_N_TRIALS = ("n_trials", "optim.budget", "ax_config.max_trials")  # in Optuna's, Nevergrad's, Ax's


@dataclass(frozen=True)
class Search:
    """A search whose settings are all valid."""

    sweeper: str
    n_trials: int
    n_possible: int | None  # cells among which it chooses; None where a setting has an interval
    objective: str

    @property
    def in_words(self) -> str:
        """What the search does, for the first line."""
        among = f" among {counted(self.n_possible, 'cell')}" if self.n_possible else ""
        trials = counted(self.n_trials, "trial")
        return f"{self.sweeper} chooses {trials}{among} by {self.objective}"


def is_search(config: DictConfig) -> bool:
    """Whether the sweeper chooses the cells, and does not run a grid."""
    return str(config.hydra.sweeper._target_) not in _GRIDS


def plan_search(config: DictConfig, variations: list[Config], n_possible: int | None) -> Search:
    """Check the settings of a search. Raises ConfigError."""
    name = str(config.hydra.runtime.choices.get("hydra/sweeper"))
    _check_objective(variations)
    found = (OmegaConf.select(config.hydra.sweeper, option) for option in _N_TRIALS)
    n_trials = next((number for number in found if number is not None), None)
    if n_trials is None:
        raise ConfigError(f"hydra/sweeper={name} has no number of trials: use hydra/sweeper=optuna")
    if not 1 <= n_trials <= MOST_CELLS:
        raise ConfigError(
            f"a search of {n_trials:,} trials: at least 1, at most {MOST_CELLS:,} "
            "(hydra.sweeper.n_trials)"
        )
    return Search(name, int(n_trials), n_possible, variations[0].sweep.objective)


def set_up_sweeper(config: DictConfig, settings: Config, given: list[str]) -> int:
    """Set the options of Optuna's sweeper that follow from ours; gives the trials at a time.

    The direction is that of the objective. A seed makes the same trials of the same results, so
    that a search that was killed goes on as it would have. `given` are the user's words for Hydra.
    Raises ConfigError for the direction of another objective.
    """
    sweeper = config.hydra.sweeper
    said = {word.partition("=")[0] for word in given}
    objective = settings.sweep.objective
    direction = "maximize" if OBJECTIVES[objective] else "minimize"
    if "hydra.sweeper.direction" in said and _direction(sweeper.direction) != direction:
        raise ConfigError(
            f"hydra.sweeper.direction={_direction(sweeper.direction)}: sweep.objective={objective} "
            f"is better when it is {'higher' if OBJECTIVES[objective] else 'lower'}; leave the "
            "direction out"
        )
    if sweeper.get("n_jobs", 1) < 1:
        raise ConfigError(f"hydra.sweeper.n_jobs={sweeper.n_jobs}: must be at least 1")
    n_jobs = settings.compute.workers or cores()
    if "direction" in sweeper:
        set_for_hydra(config, "hydra.sweeper.direction", direction)
    if "n_jobs" in sweeper and "hydra.sweeper.n_jobs" not in said:
        set_for_hydra(config, "hydra.sweeper.n_jobs", n_jobs)
    if OmegaConf.select(sweeper, "sampler.seed", default=0) is None:
        set_for_hydra(config, "hydra.sweeper.sampler.seed", settings.model.random_state)
    return int(sweeper.get("n_jobs", n_jobs))


def value_of(objective: str, metrics: Mapping[str, float], about: Mapping[str, str]) -> float:
    """Value of a finished cell, by its metrics and its tags; the worst with a hard fault."""
    if objective not in metrics or tags.FAULTS in about:
        return worst(objective)
    return float(metrics[objective])


def worst(objective: str) -> float:
    """Value of a failed cell: minus infinity, or infinity where lower is better."""
    return -math.inf if OBJECTIVES[objective] else math.inf


def caveat(about: Mapping[str, str], n_tried: int) -> str:
    """What a search does to the reality check, in words, by the tags of the sweep's own run.

    Nothing where all possible cells were tried, or the objective never read validation.
    """
    objective, n_possible = about.get(tags.SEARCH, ""), about.get(tags.N_POSSIBLE)
    if not objective or not reads_validation(objective) or n_possible == str(n_tried):
        return ""
    return (
        f"the search chose its cells by {objective} on the bars of the reality check, whose "
        "probability of luck is therefore too low"
    )


def _check_objective(variations: list[Config]) -> None:
    """Refuse an objective that cannot compare these cells, or that they do not have."""
    first, objective = variations[0], variations[0].sweep.objective
    spaces = {repr((one.data, one.features, one.timeframe, one.split)) for one in variations}
    if objective not in ACROSS_SPACES and len(spaces) > 1:
        raise ConfigError(
            f"sweep.objective={objective} compares cells of one observation space: search one "
            f"data, features, timeframe and split, or use {ACROSS_SPACES[0]}"
        )
    if objective == "cv" and any(not one.selection.cv_blocks for one in variations):
        raise ConfigError("sweep.objective=cv needs cross-validation: set selection.cv_blocks=5")
    if not reads_validation(objective) and first.split.kind == "walk_forward":
        raise ConfigError(
            f"sweep.objective={objective} is of one fit, and split=walk_forward makes many: use "
            f"{ACROSS_SPACES[0]}"
        )


def _direction(value: Any) -> str:
    return str(getattr(value, "name", value))
