"""Plan a panel: its symbols, its configurations, and the jobs among which they are dealt.

A job holds some symbols with all configurations. Hydra composes every configuration once, in the
main process, and one job each: nothing is composed per symbol.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from omegaconf import DictConfig

from hmm_exp.config import RULES, Config, checked
from hmm_exp.config.grid import as_word
from hmm_exp.config.overrides import hydra_text
from hmm_exp.config.unlocked import unlocked
from hmm_exp.errors import ConfigError, DataError, HmmExpError, one_line
from hmm_exp.market.panel import PanelSymbol, registry_part, symbols_of
from hmm_exp.parallel import cores
from hmm_exp.sweep.child import CellError, worker
from hmm_exp.sweep.plan import (
    CheckedData,
    SweepPlan,
    all_cells,
    difference,
    plan_sweep,
    with_values,
)
from hmm_exp.tracking import tags

MOST_SYMBOLS = 16  # of a job: a job that is lost costs that much
_ROUNDS = 4  # jobs of a process at least, so that all of them end at about the same time
_PLACE = "{symbol}"
_SHOWN = 6  # symbols named in a line


@dataclass(frozen=True)
class PanelPlan:
    """A panel whose settings are all valid."""

    sweep: SweepPlan  # its jobs, as those of any sweep
    symbols: list[PanelSymbol]
    settings: Config  # of the first configuration; its registry name holds `{symbol}`
    configurations: list[Config]

    def check_data(self, plan: SweepPlan) -> CheckedData:
        """Read the first symbol that can be read, with every feature set, timeframe and split.

        Other symbols are read by their jobs, each once. Raises DataError when none can be read.
        """
        errors: list[HmmExpError] = []
        for one in self.symbols:
            try:
                read, warnings = _read(plan, one)
            except CellError as error:
                errors.append(error)
                continue
            worker().work_ahead([])
            named = [f"{one.symbol}: {text}" for text in warnings]
            return CheckedData(set(), [self.line, *read], named)
        if len(errors) > 1:
            first = f"{self.symbols[0].symbol}: {errors[0]}"
            raise DataError(f"none of {len(errors):,} symbols can be read, the first is {first}")
        raise DataError(str(errors[0]))

    @property
    def line(self) -> str:
        """What there is to read, in one line."""
        names = [one.symbol for one in self.symbols]
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        found = f"{len(names):,} symbol{'s' * (len(names) > 1)} in {self.settings.data.path}"
        return f"{found}: {', '.join(names[:_SHOWN])}{more}"


def plan_panel(config: DictConfig) -> PanelPlan:
    """Check the settings of all configurations, find the symbols, and give Hydra the jobs.

    Raises
    ------
    ConfigError
        A value cannot work, the data are swept, or the name of the models has no `{symbol}`.
    DataError
        There is no symbol, or two of one name.
    """
    plan = plan_sweep(config)
    if plan.search is not None:
        raise ConfigError(
            f"data=panel with hydra/sweeper={plan.search.sweeper}: all symbols share one grid; "
            "leave the sweeper out, or search on one symbol (data=bars data.symbol=<name>)"
        )
    for name, words in plan.choices.items():
        if len(words) > 1:
            _check_swept(name, as_word(words))
    settings = checked(plan.variations[0])
    settings.registry.name = name_template(settings.registry.name)
    symbols = symbols_of(settings.data)
    _check_names(settings.registry.name, symbols)
    if settings.pool and any(one.symbol == tags.POOL for one in symbols):
        raise ConfigError(
            f"symbol {tags.POOL} has the name of the model of all symbols: leave it out by "
            f"data.exclude=[{tags.POOL}], or set pool=false"
        )
    cells = all_cells(config, plan.choices)
    jobs = _dealt(list(enumerate(symbols)), _n_jobs(settings, len(symbols)))
    words = [f"sweep.symbols={','.join(hydra_text(_packed(job)) for job in jobs)}"]
    words += [f"sweep.configurations={hydra_text(_changes(cells))}"]
    words += [f"registry.name={hydra_text(settings.registry.name)}"]
    with unlocked(config):  # Hydra reads the grid from here
        config.hydra.overrides.task = [values[0] for values in plan.choices.values()]
        config.registry.name = settings.registry.name
    sweep = replace(
        plan,
        n_cells=len(cells) * len(symbols),
        n_jobs=len(jobs),
        job_words=tuple(words),
    )
    return PanelPlan(sweep, symbols, settings, cells)


def name_template(name: str) -> str:
    """Name of the registered models of a panel, with `{symbol}`. Raises ConfigError without it."""
    if name == Config().registry.name:
        return f"{name}.{_PLACE}"
    if _PLACE not in name:
        raise ConfigError(
            f"registry.name={name}: every symbol has a model of its own: "
            f"registry.name={name}.{_PLACE}"
        )
    return name


def model_name(template: str, symbol: str) -> str:
    """Name of the registered model of a symbol; characters that MLflow cannot hold are escaped.

    >>> model_name("hmm_regime.{symbol}", "BTC/USDT")
    'hmm_regime.BTC~2FUSDT'
    """
    return template.replace(_PLACE, registry_part(symbol))


def escaped(template: str, symbols: Sequence[PanelSymbol]) -> list[str]:
    """A line on symbols whose registered models have other names; empty without any."""
    others = [one.symbol for one in symbols if registry_part(one.symbol) != one.symbol]
    if not others:
        return []
    first = f"{others[0]} is registered as {model_name(template, others[0])}"
    more = f", and so {len(others) - 1:,} more symbols" if len(others) > 1 else ""
    return [f"{first}{more}: MLflow cannot hold every character in a name"]


@dataclass(frozen=True)
class Job:
    """What one job of a panel runs."""

    settings: Config  # of the first configuration
    symbols: list[tuple[int, PanelSymbol]]  # with their numbers in the panel, from 0
    configurations: list[Config]

    @classmethod
    def of(cls, settings: Config) -> "Job":
        """The job that the settings of a Hydra job describe."""
        changes = json.loads(str(settings.sweep.configurations))
        symbols = [
            (number, PanelSymbol(*place))
            for number, *place in json.loads(str(settings.sweep.symbols))
        ]
        return cls(settings, symbols, [with_values(settings, values) for values in changes])

    def cells_of(self, one: PanelSymbol, parent_run: str) -> list[Config]:
        """Settings of the cells of a symbol, whose runs are children of `parent_run`."""
        draws_all = self.settings.plots == "all"
        name = model_name(self.settings.registry.name, one.symbol)
        return [
            replace(
                cell,
                pool=False,
                data=one.settings(cell.data),
                registry=replace(cell.registry, name=name),
                tracking=replace(cell.tracking, figures=cell.tracking.figures and draws_all),
                sweep=replace(
                    cell.sweep,
                    parent_run=parent_run,
                    n_cells=len(self.configurations),
                    symbols=None,
                    configurations=None,
                    symbol=one.symbol,
                ),
            )
            for cell in self.configurations
        ]


def _check_swept(name: str, word: str) -> None:
    """Raise ConfigError for a sweep over the data, which are of the whole panel."""
    if name.split(".")[0] == "data":
        raise ConfigError(
            f"{word}: a panel reads its symbols once; name all of them in data.path, "
            "such as 'lake/*.parquet'"
        )


def _read(plan: SweepPlan, one: PanelSymbol) -> tuple[list[str], list[str]]:
    """Lines on what was read of a symbol, and warnings."""
    spaces = {
        repr((cell.features, cell.timeframe, cell.split, max(cell.state_grid))): cell
        for cell in plan.variations
    }
    read: dict[str, None] = {}
    warnings: dict[str, None] = {}
    for cell in spaces.values():
        settings = replace(cell, data=one.settings(cell.data))
        known = worker().ask("prepare", settings, None, within=cell.sweep.cell_timeout)
        read |= dict.fromkeys(known[tags.DATA_READ].splitlines())
        warnings |= dict.fromkeys(filter(None, known.get(tags.DATA_WARNINGS, "").split("; ")))
    return list(read), list(warnings)


def _check_names(template: str, symbols: Sequence[PanelSymbol]) -> None:
    rule = RULES["registry.name"]
    for one in symbols:
        if model_name(template, one.symbol) not in rule:
            raise ConfigError(
                f"symbol {one_line(one.symbol, 60)}: its registered model must be {rule}; leave it "
                "out by data.exclude, or choose a shorter registry.name"
            )


def _n_jobs(settings: Config, n_symbols: int) -> int:
    """Number of jobs: enough for all processes, of at most `MOST_SYMBOLS` symbols each."""
    processes = settings.compute.workers or cores()
    wanted = _ROUNDS * processes if processes > 1 else 1
    return min(n_symbols, max(wanted, math.ceil(n_symbols / MOST_SYMBOLS)))


def _dealt(symbols: list[tuple[int, PanelSymbol]], n_jobs: int) -> list[list]:
    """The symbols in turn to every job: neighbours, often of one kind, come to different ones."""
    return [symbols[place::n_jobs] for place in range(n_jobs)]


def _packed(job: Sequence[tuple[int, PanelSymbol]]) -> str:
    return json.dumps([[number, *asdict(one).values()] for number, one in job])


def _changes(cells: Sequence[Config]) -> str:
    return json.dumps([difference(cells[0], cell) for cell in cells])
