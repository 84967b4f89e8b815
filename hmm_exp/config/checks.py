"""Check a composed config, and describe the value that every setting takes.

>>> kind_in_words("model.state_grid")
'a list of whole numbers, such as [2,3,4,5]'
"""

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import is_dataclass
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hmm_exp.config.rules import OneOf
from hmm_exp.config.schema import (
    OF_EXCHANGES,
    OF_PANELS,
    RULES,
    Config,
    DataConfig,
    SplitConfig,
    conf_dir,
    flat,
    walk,
)
from hmm_exp.errors import ConfigError
from hmm_exp.files import stem_of

_IN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list[int]": "a list of whole numbers, such as [2,3,4,5]",
    "list[str]": "a list of texts, such as [a,b]",
}


def is_setting(name: str) -> bool:
    """Whether the schema knows a dotted name."""
    return name in _types()


def inside(name: str) -> str | None:
    """First setting under a name: `registry.name` of "registry"; of "_global_" the very first."""
    known = (setting for setting in _types() if f"{setting}.".startswith(f"{name}."))
    return next(iter(_types()) if name == "_global_" else known, None)


def is_group(name: str) -> bool:
    """Whether a name stands for a group of `conf/`, of which one choice is taken."""
    return "/" in name or (name.isidentifier() and (conf_dir() / name).is_dir())


def takes_text(name: str) -> bool:
    """Whether a setting is one text."""
    return _types().get(name) == "str"


def kind_in_words(name: str) -> str:
    """What a known setting takes: "a whole number", "one of split, bridge"."""
    rule = RULES.get(name)
    return str(rule) if isinstance(rule, OneOf) else _IN_WORDS[_types()[name]]


def choices(group: str) -> str:
    """Names of the choices of a group of `conf/`."""
    return ", ".join(sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")))


def nearest(word: str, options: Iterable[str]) -> str:
    """Give " (did you mean X?)" when something like `word` is among the options, else nothing."""
    known = {option.lower(): option for option in options}
    match = difflib.get_close_matches(word[:100].lower(), known, n=1)
    return f" (did you mean {known[match[0]]}?)" if match else ""


def unknown_setting(name: str) -> str:
    """Complaint about a name that the schema does not know."""
    return (
        f"unknown setting {name}{nearest(name, [*_types(), *vars(Config())])}: --cfg job shows all"
    )


@cache
def _types() -> dict[str, str]:
    return dict(_leaves(Config))


def _leaves(node: type, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Type of every setting, without the None that it may have instead."""
    for name, kind in get_type_hints(node).items():
        if is_dataclass(kind):
            yield from _leaves(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            plain = get_args(kind)[0] if isinstance(kind, UnionType) else kind
            yield f"{prefix}{name}", plain.__name__ if isinstance(plain, type) else str(plain)


def checked(config: "DictConfig | Config") -> Config:
    """Turn a composed config into plain dataclasses and refuse what cannot work.

    Raises
    ------
    ConfigError
        On the first value out of range, contradiction or missing setting.
    """
    settings = config if isinstance(config, Config) else to_config(config)
    _check_texts(settings)
    _check_ranges(settings)
    _check_states(settings)
    _check_emission(settings)
    _check_data(settings)
    _check_features(settings)
    _check_split(settings)
    _check_selection(settings)
    _check_decision(settings)
    _check_workers(settings)
    if settings.pool:
        check_pool(settings)
    return settings


def to_config(config: DictConfig) -> Config:
    """Read a composed OmegaConf node into plain dataclasses.

    Raises ConfigError for an unknown setting, also one that was forced in with `+`, or a value of
    the wrong type.
    """
    plain = {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in config.items()
        if key != "hydra"
    }
    for name, _ in walk(plain):
        if not is_setting(name):
            if name in vars(Config()):  # null instead of a group
                raise ConfigError(
                    f"{name}=null: {name} holds settings; leave the word out for the defaults"
                )
            raise ConfigError(unknown_setting(name))
    try:
        settings = _typed(config) or OmegaConf.to_object(
            OmegaConf.merge(_schema(), _literal(plain))
        )
    except OmegaConfBaseException as error:
        name, reason = error.full_key or "", str(error).splitlines()[0]
        kind = f"{name}: must be {kind_in_words(name)}: " if is_setting(name) else ""
        raise ConfigError(kind + reason) from None
    assert isinstance(settings, Config)
    for name, value in flat(settings).items():
        if isinstance(value, list) and any(isinstance(part, (list, dict)) for part in value):
            raise ConfigError(f"{name}={value}: must be {kind_in_words(name)}")
    data = settings.data
    if data.exchange is not None and data.symbol is not None:
        stem = stem_of(f"{data.exchange}-{data.symbol}-{data.timeframe}")
        data.path = data.path or f"bars/{stem}.parquet"
        data.name = data.name or data.symbol
    if data.path is not None:
        data.path = at_home(data.path)
    return settings


def _typed(config: DictConfig) -> Config | None:
    """Settings of a node that has the types of the schema: composing it has checked every value."""
    usual = vars(Config())
    groups = {name: value for name, value in usual.items() if is_dataclass(value)}
    if OmegaConf.get_type(config) is not Config or any(
        OmegaConf.get_type(config, name) is not type(group) for name, group in groups.items()
    ):
        return None
    values: dict[str, Any] = {name: config[name] for name in usual}
    return Config(**values | {name: OmegaConf.to_object(values[name]) for name in groups})


def at_home(path: str) -> str:
    """Path of a file that exists; else the path with `~` as the home folder."""
    return path if os.path.exists(path) else os.path.expanduser(path)  # noqa: PTH110, PTH111


def literal(text: str) -> str:
    """Give a text in which OmegaConf finds no interpolation `${...}` and gives it back as it is."""
    return re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", text)


def _literal(node: Any) -> Any:
    """Escape resolved values, so that a merge does not resolve them again."""
    if isinstance(node, dict):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literal(value) for value in node]
    return literal(node) if isinstance(node, str) else node


@cache
def _schema() -> DictConfig:
    """The schema as a node that is merged into, never changed: making one takes 8 ms."""
    return OmegaConf.structured(Config)


def _check_texts(settings: Config) -> None:
    """Refuse characters that break terminals, tables and stores."""
    for name, value in flat(settings).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and {"Cc", "Cs"} & set(map(unicodedata.category, text)):
                raise ConfigError(
                    f"{name}={text!r}: holds control characters or bytes that are not UTF-8"
                )


def _check_ranges(settings: Config) -> None:
    for dotted, rule in RULES.items():
        value = attrgetter(dotted)(settings)
        if value is not None and value not in rule:
            raise ConfigError(f"{dotted}={value}: must be {rule}")


def _check_states(settings: Config) -> None:
    model = settings.model
    if model.n_states is not None and model.state_grid is not None:
        raise ConfigError(
            f"model.n_states={model.n_states} and model.state_grid={model.state_grid} are both "
            "set: unset one with model.state_grid=null or model.n_states=null"
        )


def _check_emission(settings: Config) -> None:
    """Refuse Student-t states where they do not exist."""
    if settings.model.emission != "student_t":
        return
    if settings.covariance.type not in ("diag", "full"):
        raise ConfigError(
            f"model.emission=student_t with covariance={settings.covariance.type}: must be diag "
            "or full"
        )
    if settings.model.engine != "native":
        raise ConfigError(
            f"model.emission=student_t with model.engine={settings.model.engine}: must be native"
        )


def _check_data(settings: Config) -> None:
    data = settings.data
    if settings.plots == "winner" and data.kind != "panel":
        raise ConfigError(f"plots=winner is set with data={data.kind}: it is for data=panel")
    _check_exchange(data)
    check_symbols(data)
    if data.kind == "synthetic":
        if data.path is not None:
            raise ConfigError(f"data.path={data.path} is set with data=synthetic: add data=bars")
        if data.calendar is not None:
            raise ConfigError(
                f"data.calendar={data.calendar} with data=synthetic: that market never closes; "
                "add data=bars"
            )
        return
    if data.path is None:
        what = "symbols" if data.kind == "panel" else data.kind
        raise ConfigError(f"data.path is not set: data.path=<file> says where the {what} are")
    if data.bar_stamp is None:
        raise ConfigError(
            "data.bar_stamp is not set: data.bar_stamp=open when the file stamps a bar's start "
            "(exchanges, TradingView), data.bar_stamp=close when it stamps the end"
        )


def check_pool(settings: Config) -> None:
    """Refuse settings that one model of many symbols cannot follow. Raises ConfigError."""
    if settings.pool and settings.data.kind != "panel":
        raise ConfigError(f"pool=true is set with data={settings.data.kind}: it is for data=panel")
    if settings.split.kind == "walk_forward":
        raise ConfigError("split=walk_forward: a pool is fitted once; use split=ratio or dates")
    if settings.model.refit != "train":
        raise ConfigError(
            f"model.refit={settings.model.refit}: a pool serves its train fit; use "
            "model.refit=train"
        )
    if settings.selection.cv_blocks:
        raise ConfigError(
            f"selection.cv_blocks={settings.selection.cv_blocks}: a pool is not cross-validated; "
            "use selection=default or next_return"
        )


def _check_exchange(data: DataConfig) -> None:
    """Refuse settings of a download without an exchange, or that lack or contradict one."""
    is_set = [name for name in OF_EXCHANGES if getattr(data, name) is not None]
    if is_set and data.kind != "bars":
        name = is_set[0]
        raise ConfigError(
            f"data.{name}={getattr(data, name)} is set with data={data.kind}: add data=ccxt"
        )
    if not is_set:
        return
    for name, example in (("exchange", "binance"), ("symbol", "BTC/USDT"), ("since", "2020-01-01")):
        if getattr(data, name) is None:
            raise ConfigError(f"data.{name} is not set: data=ccxt needs it (data.{name}={example})")
    if data.timeframe is None:
        raise ConfigError(f"data.exchange={data.exchange} needs data.timeframe: add data=ccxt")
    if data.bar_stamp != "open" or data.symbol_column is not None:
        raise ConfigError(
            f"data.exchange={data.exchange}: a download stamps the open and holds one symbol; "
            "leave data.bar_stamp and data.symbol_column to data=ccxt"
        )


def check_symbols(data: DataConfig) -> None:
    """Refuse settings of symbols that this kind of data does not read, or that conflict.

    Raises ConfigError.
    """
    is_set = [name for name in (*OF_PANELS, "symbol", "symbol_column") if getattr(data, name)]
    for name in is_set:
        reader = "panel" if name in OF_PANELS else "bars"
        if data.kind != reader and not (name == "symbol_column" and data.kind == "panel"):
            raise ConfigError(
                f"data.{name}={getattr(data, name)} is set with data={data.kind}: add data={reader}"
            )
    if data.kind == "bars" and data.symbol_column and not data.symbol:
        raise ConfigError(f"data.symbol_column={data.symbol_column} needs data.symbol=<name>")
    if data.kind == "panel" and data.name:
        raise ConfigError(
            f"data.name={data.name} is set with data=panel: each symbol names itself; "
            "data.symbol_pattern finds the name in that of a file"
        )
    if data.symbol_pattern is not None:
        _check_pattern(data.symbol_pattern, data.symbol_column)


def _check_pattern(pattern: str, column: str | None) -> None:
    if column is not None:
        raise ConfigError(
            f"data.symbol_pattern={pattern} and data.symbol_column={column} are both set: a symbol "
            "is named by its file or by a column"
        )
    try:
        n_groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"data.symbol_pattern={pattern}: not a regular expression: {error}"
        ) from None
    if n_groups != 1:
        raise ConfigError(
            f"data.symbol_pattern={pattern}: {n_groups} groups; one pair of ( ) marks the symbol"
        )


def _check_features(settings: Config) -> None:
    features, timeframe = settings.features, settings.timeframe
    if features.name == "columns" and not features.columns and settings.data.kind != "features":
        raise ConfigError("features=columns needs features.columns=[name_1H,...]")
    if features.name != "columns" and features.columns:
        raise ConfigError(f"features.columns is set with features={features.name}: use columns")
    if not timeframe.timeframes:
        raise ConfigError("timeframe.timeframes=[]: name at least one timeframe")


def _check_selection(settings: Config) -> None:
    selection = settings.selection
    needs_blocks = selection.within == "cv" or selection.rule == "one_se"
    if needs_blocks and not selection.cv_blocks:
        raise ConfigError(
            f"selection.within={selection.within} with selection.rule={selection.rule} needs "
            "cross-validation: set selection.cv_blocks=5"
        )


def _check_decision(settings: Config) -> None:
    decision = settings.decision
    if not decision.leave < decision.enter < 1.0:  # at 1 no state is ever entered
        raise ConfigError(
            f"decision.leave={decision.leave} and decision.enter={decision.enter}: leave must be "
            "below enter, and enter below 1"
        )


def _check_workers(settings: Config) -> None:
    """Refuse a number of workers where the launcher does not read it."""
    compute = settings.compute
    if compute.name == "ray" and settings.data.kind == "panel":
        return  # it deals the symbols to so many workers
    if compute.name in ("serial", "ray") and compute.workers not in (1, None):
        raise ConfigError(
            f"compute.workers={compute.workers} is set with compute={compute.name}, which does not "
            "read it: use compute=joblib, slurm or submitit_local"
        )


def _check_split(settings: Config) -> None:
    split = settings.split
    walks = split.kind == "walk_forward"
    if split.like and not split.train_end:
        raise ConfigError(f"split.like={split.like}: must be one run for all cells")
    _check_dates(split)
    if split.kind == "dates" or (walks and (split.train_end or split.val_end)):
        if split.train_end is None or split.val_end is None:
            raise ConfigError(
                f"split={split.kind} needs split.train_end=... and split.val_end=... (UTC)"
            )
    else:
        _check_shares(split)
    if walks:
        _check_walk(settings)


def _check_dates(split: SplitConfig) -> None:
    """Refuse dates that would not be looked at."""
    dates = {name: getattr(split, name) for name in ("train_start", "train_end", "val_end")}
    said = [f"split.{name}={text}" for name, text in dates.items() if text is not None]
    if said and split.kind == "ratio":
        raise ConfigError(f"{', '.join(said)} with split=ratio: add split=dates")
    if split.train_start and not (split.train_end and split.val_end):
        raise ConfigError(f"{said[0]} needs split.train_end=... and split.val_end=... (UTC)")


def _check_shares(split: SplitConfig) -> None:
    total = split.train + split.val + split.test
    if abs(total - 1.0) > 1e-9:
        raise ConfigError(
            f"split.train={split.train} + split.val={split.val} + split.test={split.test} "
            f"= {total:g}: must sum to 1"
        )


def _check_walk(settings: Config) -> None:
    split = settings.split
    if split.val == 0.0 and split.val_end is None:
        raise ConfigError("split.val=0: a walk forward chooses on its validation part")
    if settings.model.refit != "train":
        raise ConfigError(
            f"model.refit={settings.model.refit} is set with split=walk_forward, whose last "
            "refit is the model: use model.refit=train"
        )
