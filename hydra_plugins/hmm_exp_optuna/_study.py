"""A study of Optuna whose trials Hydra launches."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import optuna
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Launch = Callable[..., Sequence[JobReturn]]


class Setting:
    """A setting that the study chooses: its distribution, and the words of its values."""

    def __init__(self, override: Override) -> None:
        self.name = override.get_key_element()
        # In order for a range, None for an interval.
        self.words: list[str] | None = None
        if override.is_interval_sweep():
            self.distribution = _interval(override)
        else:
            self.words = list(override.sweep_string_iterator())
            self.distribution = (
                _range(self.words)
                if override.is_range_sweep()
                else CategoricalDistribution(self.words)
            )

    def word(self, value: Any) -> str:
        """Override that gives the setting a value of the distribution."""
        if isinstance(self.distribution, CategoricalDistribution | IntDistribution):
            return f"{self.name}={value}"
        if self.words is None:
            return f"{self.name}={value:.6g}"  # more digits would only make names longer
        return f"{self.name}={min(self.words, key=lambda word: abs(float(word) - value))}"


def run(overrides: list[Override], options: dict[str, Any], launch: Launch) -> None:
    """Launch trials until there are `n_trials`, or every cell of a finite space is tried."""
    by_name = {override.get_key_element(): override for override in overrides}
    chosen = [Setting(one) for one in by_name.values() if one.is_sweep_override()]
    fixed = [one.input_line or "" for one in by_name.values() if not one.is_sweep_override()]
    space = {setting.name: setting.distribution for setting in chosen}
    study = _study(options)
    tried: set[tuple[str, ...]] = set()
    done, n_cells = 0, _size(chosen)
    while done < options["n_trials"] and len(tried) != n_cells:
        n_jobs = min(options["n_jobs"], options["n_trials"] - done)
        trials = [study.ask(space) for _ in range(n_jobs)]
        cells = [tuple(one.word(trial.params[one.name]) for one in chosen) for trial in trials]
        tried.update(cells)
        jobs = [[*fixed, *cell] for cell in cells]
        returns = launch(jobs, initial_job_idx=done)
        done += n_jobs
        for trial, result in zip(trials, returns, strict=True):
            study.tell(trial, _value(trial, result))


def _study(options: dict[str, Any]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments = dict(options["sampler"])
    sampler = getattr(optuna.samplers, arguments.pop("name"))
    name = options["study_name"]
    try:
        return optuna.create_study(
            sampler=sampler(**arguments),
            direction=options["direction"],
            storage=options["storage"],
            study_name=name,
        )
    except optuna.exceptions.DuplicatedStudyError:  # a seed would propose its trials once more
        raise HydraException(
            f"hydra.sweeper.study_name={name}: the storage has this study, choose another name"
        ) from None


def _value(trial: optuna.Trial, result: JobReturn) -> float:
    """What the job returned; minus and plus infinity are values, too."""
    value = result.return_value  # raises what the job raised
    if not isinstance(value, int | float):
        raise HydraException(f"trial {trial.number} returned {value}, which is no number")
    return float(value)


def _size(chosen: Iterable[Setting]) -> int | None:
    """Number of cells; None with an interval."""
    size = 1
    for setting in chosen:
        if setting.words is None:
            return None
        size *= len(setting.words)
    return size


def _interval(override: Override) -> BaseDistribution:
    ends: Any = override.value()
    log = "log" in ends.tags
    if isinstance(ends.start, int) and isinstance(ends.end, int):
        return IntDistribution(ends.start, ends.end, log=log)
    return FloatDistribution(ends.start, ends.end, log=log)


def _range(words: list[str]) -> BaseDistribution:
    """Numbers at equal distances; the words keep the digits that a sum of steps would lose."""
    values = sorted(map(float, words))
    low, high = values[0], values[-1]
    step = (high - low) / max(1, len(values) - 1)
    return FloatDistribution(low, high, step=step or 1.0)
