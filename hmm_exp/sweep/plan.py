"""Check every setting of every cell, and read the data once, before a sweep starts.

Cells are a product of choices; checking each choice once, the others at their first value, finds
a bad value at the cost of a sum. Pairs of values are checked without composing. All of it comes
before anything heavy is imported.
"""

import math
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import combinations, product
from operator import attrgetter
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hmm_exp.config import NOT_IN_RESULT, Config, SweepConfig, checked, flat, to_config
from hmm_exp.config.checks import is_setting
from hmm_exp.config.grid import MOST_CELLS, as_word, grid, has_interval, ordered
from hmm_exp.config.overrides import is_setting_word
from hmm_exp.config.unlocked import set_for_hydra, unlocked
from hmm_exp.errors import ConfigError, counted
from hmm_exp.experiment.candles import download
from hmm_exp.parallel import cores
from hmm_exp.store.address import resolve_uri, sqlite_path
from hmm_exp.sweep.child import CellError, worker
from hmm_exp.sweep.compose import CellLoader
from hmm_exp.sweep.search import Search, is_search, plan_search, set_up_sweeper
from hmm_exp.tracking import tags

_OF_USER = {
    "cell_timeout",
    "require_all",
    "objective",
}  # settings of `sweep`; the program sets the others
_IN_NAME = {"model.n_states", "model.state_grid", "covariance.type"}
_NAMED_BY = {"decision": "decision.rule"}  # setting of a group that a cell's name shows


@dataclass(frozen=True)
class SweepPlan:
    """A sweep whose settings are all valid."""

    n_cells: int  # fits to run: of a panel, those of all its symbols; of a search, its trials
    n_jobs: int  # jobs that Hydra launches, of a search at a time
    choices: dict[str, list[str]]  # words of the grid, by setting
    variations: list[Config]  # one config per variation
    first_cells: list[Config]  # one or two settings changed, in the order in which Hydra runs them
    varied: list[str]  # swept settings that `cell_name` does not show otherwise
    repeated: list[str]  # warnings about values that are named twice and run once
    job_words: tuple[str, ...] = ()  # more words for Hydra, of the program
    search: Search | None = None  # None for a grid


def plan_sweep(config: DictConfig) -> SweepPlan:
    """Check the settings of all cells and give Hydra a grid without repeated values.

    Raises ConfigError for a value that cannot work, or a grid that is too large. Hydra's own errors
    pass through.
    """
    said = _words(config)
    choices = grid(said, intervals=is_search(config))
    first = {name: words[0] for name, words in choices.items()}
    base = _compose(config, list(first.values()))
    variations, repeated = [checked(base)], []
    by_setting: list[list[Config]] = []
    for name, words in choices.items():
        distinct = {_meaning(words[0], variations[0]): words[0]}
        for word in words[1:]:
            settings = checked(_varied(config, base, first | {name: word}, word))
            if (meaning := _meaning(word, settings)) in distinct:
                repeated.append(_twice(word, distinct[meaning]))
            else:
                distinct[meaning] = word
                variations.append(settings)
        choices[name] = list(distinct.values())
        by_setting.append(variations[-len(distinct) + 1 :] if len(distinct) > 1 else [])
    swept = [name for name, words in choices.items() if len(words) > 1]
    for name in swept:
        _refuse_what_cells_share(name, as_word(choices[name]))
    named = [_NAMED_BY.get(name, name) for name in swept]
    varied = [name for name in named if is_setting(name) and name not in _IN_NAME]
    n_cells = math.prod(map(len, choices.values()))
    search, n_jobs, given = None, n_cells, dict[str, str]()
    if is_search(config):
        search = plan_search(config, variations, None if has_interval(said) else n_cells)
        n_jobs = set_up_sweeper(config, variations[0], _as_given(config, "hydra"))
        n_cells, given = search.n_trials, ordered(said)
    if n_cells > MOST_CELLS:
        raise ConfigError(f"a sweep of {n_cells:,} cells: at most {MOST_CELLS:,}; sweep in parts")
    first_cells = _first_cells(variations[0], by_setting)
    if config.hydra.sweeper.get("params"):
        set_for_hydra(config, "hydra.sweeper.params", None)
    with unlocked(config):  # the sweeper reads the cells from here
        config.hydra.overrides.task = [
            given.get(name) or as_word(values) for name, values in choices.items()
        ]
    found = variations, first_cells, varied, repeated
    return SweepPlan(n_cells, n_jobs, choices, *found, search=search)


def all_cells(config: DictConfig, choices: dict[str, list[str]]) -> list[Config]:
    """Settings of every cell of a planned grid. Hydra composes once for each choice of groups."""
    plain = [words for name, words in choices.items() if is_setting(name)]
    groups = [words for name, words in choices.items() if not is_setting(name)]
    cells = []
    for chosen in product(*groups):
        base = _compose(config, [*chosen, *(words[0] for words in plain)])
        cells += [to_config(_with_words(base, words)) for words in product(*plain)]
    return cells


def _first_cells(first: Config, by_setting: list[list[Config]]) -> list[Config]:
    """Cells with the first value of all settings but two at most, in Hydra's order.

    Values of two settings that do not go together are refused, as no cell by itself shows it.
    """
    cells, changes, stride = {0: first}, [], 1  # by place in the grid, the last setting first
    for variations in reversed(by_setting):
        here = {place * stride: one for place, one in enumerate(variations, 1)}
        changes.append({place: difference(first, one) for place, one in here.items()})
        cells |= here
        stride *= len(variations) + 1
    for some, others in combinations(changes, 2):
        for (place, one), (other_place, other) in product(some.items(), others.items()):
            cells[place + other_place] = checked(with_values(first, one | other))
    return [cells[place] for place in sorted(cells)]


def with_values(settings: Config, values: dict[str, Any]) -> Config:
    """A copy of settings with other values, by dotted name."""
    changed = deepcopy(settings)
    for name, value in values.items():
        group, _, field = name.rpartition(".")
        setattr(getattr(changed, group) if group else changed, field, value)
    return changed


def difference(first: Config, other: Config) -> dict[str, Any]:
    """What other settings hold in place of those of `first`, by dotted name."""
    usual = flat(first)
    return {name: value for name, value in flat(other).items() if value != usual[name]}


@dataclass(frozen=True)
class CheckedData:
    """The data of a sweep, once every planned combination of it is prepared."""

    digests: set[str]
    read: list[str]  # lines on what was read
    warnings: list[str]


def check_data(plan: SweepPlan) -> CheckedData:
    """Prepare every combination of data, features, timeframe and split that is planned once.

    Raises CellError when none can be prepared; one that cannot, while others can, is left to fail
    as a cell of its own.
    """
    spaces = {
        repr((cell.data, cell.features, cell.timeframe, cell.split, max(cell.state_grid))): cell
        for cell in plan.variations
    }
    digests: set[str] = set()
    read: dict[str, None] = {}
    warnings: dict[str, None] = {}
    errors = []
    for settings in spaces.values():
        download(settings.data, settings.quiet)
        try:
            known = worker().ask("prepare", settings, None, within=settings.sweep.cell_timeout)
            digests.add(known[tags.DATA_DIGEST])
            read |= dict.fromkeys(known[tags.DATA_READ].splitlines())
            warnings |= dict.fromkeys(filter(None, known.get(tags.DATA_WARNINGS, "").split("; ")))
        except CellError as error:
            errors.append(error)
    if len(errors) == len(spaces):
        raise errors[0]
    return CheckedData(digests, list(read), list(warnings))


def new_sweep_id() -> str:
    """Id of a sweep that starts now."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def announce(sweep_id: str, plan: SweepPlan, data: CheckedData, quiet: bool) -> None:
    """Print what was read, warnings, the sweep's id and its number of cells."""
    if not quiet:
        print(*data.read, sep="\n", file=sys.stderr, flush=True)
    for line in plan.repeated + data.warnings:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    if not quiet:
        cells = plan.search.in_words if plan.search else counted(plan.n_cells, "cell")
        print(f"sweep {sweep_id}: {cells}", flush=True)


def announce_opened(sweep_id: str, quiet: bool) -> None:
    """Print how to go on with a sweep that the store knows now."""
    if not quiet:
        print(f"if stopped, go on with sweep_id={sweep_id}", flush=True)


def said_of_cells(command: str) -> dict[str, set[str]]:
    """Words of a command line that decide its cells, by setting.

    Where the data is read from is left out: what is read has a digest.
    """
    others = NOT_IN_RESULT | {"hydra"}
    settings = [
        word
        for word in filter(is_setting_word, shlex.split(command))
        if re.split("[./=]", word.lstrip("+~"))[0] not in others
        and not word.startswith("data.path=")
    ]
    return {name: set(words) for name, words in grid(settings, intervals=True).items()}


def refuse_sweep_words(config: DictConfig) -> None:
    """Raise ConfigError when a single run would leave out a grid, or stray into a sweep."""
    if config.sweep_id is not None:
        raise ConfigError(f"sweep_id={config.sweep_id} goes on with a sweep: add -m and its words")
    params = config.hydra.sweeper.get("params") or {}
    if is_search(config):
        raise ConfigError("a sweeper that optimises (hydra/sweeper) runs a sweep: add -m")
    if params:
        grid = " ".join(f"{key}={value}" for key, value in params.items())
        raise ConfigError(f"the experiment holds a grid ({grid}): add -m to sweep over it")
    if config.data.kind == "panel":
        raise ConfigError(
            "data=panel is a sweep over its symbols: add -m, or train one of them with data=bars "
            "data.symbol=<name>"
        )


def refuse_own_words(settings: Config) -> None:
    """Raise ConfigError when the user sets a setting that the program sets for its cells."""
    plain = asdict(SweepConfig())
    for name, value in vars(settings.sweep).items():
        if name not in _OF_USER and value != plain[name]:
            raise ConfigError(f"sweep.{name}={value}: the program sets it; leave the word out")


def _refuse_what_cells_share(name: str, word: str) -> None:
    """Raise ConfigError for a sweep over a setting that all its cells share."""
    if name.split(".")[0] in NOT_IN_RESULT:
        why = "true fits both kinds of models" if name == "pool" else f"{name} changes no fit"
        raise ConfigError(f"{word}: one value for the whole sweep, {why}")
    if name.split(".")[0] == "selection":
        raise ConfigError(f"{word}: one value for the whole sweep, whose cells are compared by it")


def _words(config: DictConfig) -> list[str]:
    """Words of a sweep: of a grid in YAML, and of the command line, which come before them."""
    params = config.hydra.sweeper.get("params") or {}
    return [f"{key}={value}" for key, value in params.items()] + _as_given(config, "task")


def _as_given(config: DictConfig, kind: str) -> list[str]:
    """Overrides of Hydra or of the task as they were given, interpolations included."""
    words = OmegaConf.to_container(config.hydra.overrides[kind], resolve=False)
    assert isinstance(words, list)
    return list(map(str, words))


def _twice(word: str, other: str) -> str:
    same = "is named twice" if word == other else f"means the same as {other}"
    return f"{word} {same} and runs once"


def _meaning(word: str, settings: Config) -> str:
    """Identity of a value in its setting: 2 and 02 are one number of states."""
    name = word.partition("=")[0]
    return repr(attrgetter(name)(settings)) if is_setting(name) else word


def _compose(config: DictConfig, overrides: list[str]) -> DictConfig:
    loader = CellLoader(GlobalHydra.instance().config_loader().get_search_path())
    try:
        composed = loader.load_sweep_config(config, overrides)
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception as error:  # of words that Hydra does not expect
        raise ConfigError(f"Hydra cannot compose a cell: {type(error).__name__}: {error}") from None
    OmegaConf.set_readonly(composed, False)
    return composed


def _varied(config: DictConfig, base: DictConfig, words: dict[str, str], word: str) -> DictConfig:
    """The composed `base` with one word that differs from its own; `words` holds it too.

    Composing takes Hydra a tenth of a second, which a plain setting need not wait for. A choice of
    a group, and what the schema refuses, is left to it.
    """
    if is_setting(word.partition("=")[0]):
        with suppress(OmegaConfBaseException):
            return _with_words(base, [word])
    return _compose(config, list(words.values()))


def _with_words(base: DictConfig, words: Iterable[str]) -> DictConfig:
    """The composed `base` with other values of plain settings."""
    varied = OmegaConf.masked_copy(base, [str(name) for name in base if name != "hydra"])
    parser = OverridesParser.create()
    for word in words:
        OmegaConf.update(varied, word.partition("=")[0], parser.parse_override(word).value())
    return varied


_IN_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def in_this_process(config: DictConfig) -> bool:
    """Whether cells run in the main process, one after the other."""
    return config.hydra.launcher._target_ == _IN_PROCESS


def check_launcher(config: DictConfig, settings: Config) -> None:
    """Refuse what the chosen launcher cannot do here. Raises ConfigError."""
    if not _is(config, "SlurmLauncher"):
        return
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "compute=slurm: there is no sbatch here; start the sweep on a login node of the "
            "cluster, or try it on one machine with compute=submitit_local"
        )
    if sqlite_path(resolve_uri(settings.tracking.uri)) is not None:
        raise ConfigError(
            "compute=slurm: jobs on other machines cannot write to a SQLite file here; set "
            "tracking.uri or MLFLOW_TRACKING_URI to the address of a tracking server"
        )


def set_up_launcher(config: DictConfig, settings: Config, n_jobs: int) -> None:
    """Set how many jobs the launcher runs at a time, and the address that Ray listens on."""
    n_workers = settings.compute.workers or cores()
    if _is(config, "LocalLauncher") and config.hydra.sweeper.get("max_batch_size", 0) is None:
        set_for_hydra(config, "hydra.sweeper.max_batch_size", n_workers)  # else all at once
    if _is(config, "JoblibLauncher"):
        set_for_hydra(config, "hydra.launcher.n_jobs", min(n_workers, n_jobs))
    if _is(config, "RayLauncher"):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if config.hydra.launcher.ray.init.get("address") in (None, "local"):
            # Else Ray would join what RAY_ADDRESS or /tmp/ray/ray_current_cluster name.
            set_for_hydra(config, "hydra.launcher.ray.init.address", "local")
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # for one machine


def _is(config: DictConfig, launcher: str) -> bool:
    return str(config.hydra.launcher._target_).endswith(f".{launcher}")
