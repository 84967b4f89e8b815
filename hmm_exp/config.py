"""The schema of `conf/`: every setting, its type, its default and its range.

Hydra composes YAML into `Config` (types and unknown names are refused there); `checked` turns the
result into plain dataclasses and refuses what is out of range or contradictory, one line each.
Nothing here is heavy: `--help` and a typo are answered from this file alone.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hmm_exp.errors import ConfigError

DEFAULT_N_STATES = 3
LAUNCHERS = {"joblib": ("joblib", "parallel")}  # Hydra's name: the preset, the extra it is in


@dataclass
class DataConfig:
    """Where the bars come from. `kind`: synthetic, bars (OHLCV file) or features (ready table)."""

    kind: str = "synthetic"
    path: str | None = None
    name: str | None = None
    bar_stamp: str | None = None
    gaps: str = "split"
    bad_rows: str = "error"
    timestamp_column: str | None = None
    volume_column: str | None = None
    n_bars: int = 26_280
    n_regimes: int = 3
    seed: int = 7


@dataclass
class FeaturesConfig:
    """The observation vector: a named set, or columns by name."""

    name: str = "v1"
    window: int = 20
    vwap_hours: float = 720.0
    columns: list[str] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)


@dataclass
class TimeframeConfig:
    """Timeframes of the features; rows are on the finest."""

    name: str = "1H"
    timeframes: list[str] = field(default_factory=lambda: ["1H"])


@dataclass
class CovarianceConfig:
    """Covariance structure of the states."""

    type: str = "diag"


@dataclass
class ModelConfig:
    """The hidden Markov model and how it is fitted."""

    engine: str = "native"
    n_states: int | None = None
    state_grid: list[int] | None = None
    n_init: int = 10
    n_iter: int = 200
    tol: float = 1e-3
    min_covar: float = 1e-3
    random_state: int = 42
    refit: str = "train"


@dataclass
class SplitConfig:
    """Train, validation and test in time: by ratio, by dates (UTC), or by a walk forward.

    A walk forward sets its parts by either, refits every `refit_every` base bars from the end of
    train on, and so has every bar of validation and test out of sample.
    """

    kind: str = "ratio"
    train: float = 0.70
    val: float = 0.15
    test: float = 0.15
    train_start: str | None = None
    train_end: str | None = None
    val_end: str | None = None
    refit_every: int = 720
    window: int | None = None
    warm: bool = True
    refit_starts: int = 2


@dataclass
class SelectionConfig:
    """How the number of states and the sweep's winner are chosen, on train and validation only."""

    within: str = "bic"
    rule: str = "lowest"
    near_tie: float = 2.0
    elbow: float = 0.05
    cv_blocks: int = 0
    across: str = "return_gain_val"
    min_occupancy: float = 0.01


@dataclass
class GateConfig:
    """What a candidate must pass before it may replace the champion; test bars alone are read.

    `static_gain` and `ewma_gain` say what follows when a gain's lower bound, at `level`, is not
    above zero: refuse, warn or ignore. `champion_bars` are the fewest on which candidate and
    champion are compared; 0 leaves that out.
    """

    name: str = "default"
    hard_faults: bool = True
    instrument: bool = True
    min_occupancy: float = 0.01
    min_dwell: float = 1.5
    static_gain: str = "refuse"
    ewma_gain: str = "warn"
    level: float = 0.025
    champion_bars: int = 500


@dataclass
class ComputeConfig:
    """How cells are run."""

    name: str = "serial"
    threads: int | None = None
    workers: int | None = None


@dataclass
class TrackingConfig:
    """MLflow store; `uri: null` means MLFLOW_TRACKING_URI, else `mlflow.db` in this folder."""

    uri: str | None = None
    experiment: str = "hmm_exp"
    figures: bool = True
    report: bool = True
    patience: float = 120.0


@dataclass
class SweepConfig:
    """What a sweep does about its cells; the rest is set by the program when it starts.

    Attributes
    ----------
    cell_timeout
        Seconds that reading or fitting one cell may take; None for as long as it takes.
    require_all
        Whether one failed cell means that there is no winner.
    parent_run, n_cells, attempt, owner, folder
        The parent's run, the size of the grid, how many times it was started, the main process,
        and where logs and finished but unrecorded work are kept.
    varied
        Swept settings that a cell's name does not show otherwise.
    """

    cell_timeout: float | None = None
    require_all: bool = False
    parent_run: str | None = None
    n_cells: int | None = None
    attempt: int | None = None
    owner: str | None = None
    folder: str | None = None
    varied: list[str] = field(default_factory=list)


@dataclass
class RegistryConfig:
    """The registered model that the winner is promoted to."""

    name: str = "hmm_regime"


@dataclass
class Config:
    """Everything a run is made from."""

    data: DataConfig = field(default_factory=DataConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    timeframe: TimeframeConfig = field(default_factory=TimeframeConfig)
    covariance: CovarianceConfig = field(default_factory=CovarianceConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    promote: bool | None = None
    sweep_id: str | None = None

    @property
    def state_grid(self) -> list[int]:
        """Numbers of states to try in this run, ascending."""
        if self.model.state_grid is not None:
            return sorted(set(self.model.state_grid))
        return [self.model.n_states or DEFAULT_N_STATES]


@dataclass(frozen=True)
class _Choice:
    """One of a few words or numbers."""

    options: tuple[str | float, ...]

    def __call__(self, value: Any) -> str | None:
        if value in self.options:
            return None
        return f"one of {', '.join(map(str, self.options))}"


@dataclass(frozen=True)
class _Range:
    """A number between bounds; `above` leaves the lower bound out."""

    low: float
    high: float = math.inf
    above: bool = False

    def __call__(self, value: Any) -> str | None:
        fits = self.low < value <= self.high if self.above else self.low <= value <= self.high
        if fits and math.isfinite(value):
            return None
        lower = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return lower if self.high == math.inf else f"{lower} and at most {self.high:g}"


RULES: dict[str, Callable[[Any], str | None]] = {
    "data.kind": _Choice(("synthetic", "bars", "features")),
    "data.bar_stamp": _Choice(("open", "close")),
    "data.gaps": _Choice(("split", "bridge")),
    "data.bad_rows": _Choice(("error", "drop")),
    "data.n_bars": _Range(100, 10_000_000),
    "data.n_regimes": _Range(1, 5),
    "data.seed": _Range(0),
    "features.window": _Range(2, 100_000),
    "features.vwap_hours": _Range(0, above=True),
    "covariance.type": _Choice(("diag", "full", "tied", "spherical")),
    "model.n_states": _Range(1, 50),
    "model.n_init": _Range(1, 10_000),
    "model.n_iter": _Range(1, 1_000_000),
    "model.tol": _Range(0, above=True),
    "model.min_covar": _Range(0),
    "model.random_state": _Range(0, 2**32 - 1),
    "model.refit": _Choice(("train", "train_val")),
    "split.kind": _Choice(("ratio", "dates", "walk_forward")),
    "split.train": _Range(0, 1, above=True),
    "split.val": _Range(0, 1),
    "split.test": _Range(0, 1),
    "split.refit_every": _Range(1),
    "split.window": _Range(10),
    "split.refit_starts": _Range(0, 10_000),
    "model.engine": _Choice(("native", "hmmlearn")),
    "selection.within": _Choice(("bic", "aic", "hqc", "icl", "cv")),
    "selection.rule": _Choice(("lowest", "one_se", "elbow")),
    "selection.elbow": _Range(0, 1, above=True),
    "selection.cv_blocks": _Range(0, 50),
    "selection.across": _Choice(("return_gain_val", "ewma_gain_val", "return_score_val")),
    "selection.near_tie": _Range(0),
    "selection.min_occupancy": _Range(0, 0.5),
    "gate.min_occupancy": _Range(0, 0.5),
    "gate.min_dwell": _Range(0),
    "gate.static_gain": _Choice(("refuse", "warn", "ignore")),
    "gate.ewma_gain": _Choice(("refuse", "warn", "ignore")),
    "gate.level": _Choice((0.05, 0.025, 0.01)),
    "gate.champion_bars": _Range(0),
    "compute.threads": _Range(1, 4096),
    "compute.workers": _Range(1, 4096),
    "sweep.cell_timeout": _Range(0, above=True),
    "tracking.patience": _Range(0),
}


def checked(config: "DictConfig | Config") -> Config:
    """Turn a composed config into plain dataclasses and refuse what cannot work.

    Raises
    ------
    ConfigError
        On the first value out of range, contradiction or missing setting.
    """
    settings = config if isinstance(config, Config) else to_config(config)
    for dotted, rule in RULES.items():
        _check_value(settings, dotted, rule)
    for grid_value in settings.model.state_grid or []:
        if complaint := RULES["model.n_states"](grid_value):
            raise ConfigError(f"model.state_grid holds {grid_value}: must be {complaint}")
    _check_states(settings)
    _check_data(settings)
    _check_features(settings)
    _check_split(settings)
    _check_selection(settings)
    return settings


def to_config(config: DictConfig) -> Config:
    """Read a composed OmegaConf node into plain dataclasses.

    Raises
    ------
    ConfigError
        An unknown setting, also one that was forced in with `+`, or a value of the wrong type.
    """
    plain = {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in config.items()
        if key != "hydra"
    }
    known = set(flat(Config()))
    for name, _ in _walk(plain, ""):
        if name not in known:
            raise ConfigError(f"unknown setting {name}{nearest(name, known)}: --cfg job shows all")
    try:
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from None
    assert isinstance(settings, Config)
    return settings


def flat(settings: Config) -> dict[str, Any]:
    """Every setting by its dotted name, values as they are."""
    return dict(_walk(OmegaConf.to_container(OmegaConf.structured(settings)), ""))


def nearest(word: str, options: Iterable[str]) -> str:
    """Give " (did you mean X?)" when something like `word` is among the options, else nothing."""
    match = difflib.get_close_matches(word, list(options), n=1)
    return f" (did you mean {match[0]}?)" if match else ""


def composition_error(error: Exception) -> str:
    """Hydra's and OmegaConf's words on one line, with the nearest setting for an unknown one."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if choice := re.search(
        r"Could not find '(\S+)/(\S+)' Available options in '\S+': (.*?) Conf", text
    ):
        group, word, options = choice.groups()
        if word in LAUNCHERS and group == "hydra/launcher":
            preset, extra = LAUNCHERS[word]
            return f"compute={preset} needs a plugin: pip install 'hmm_exp[{extra}]'"
        return f"unknown {group} {word!r}: one of {', '.join(options.split())}"
    if unknown := re.search(
        r"Could not override '\+*([\w.]+)'|Key '\w+' not in.*?full_key: ([\w.]+)", text
    ):
        name = unknown[1] or unknown[2]
        known = [*flat(Config()), *vars(Config())]
        return f"unknown setting {name}{nearest(name, known)}: --cfg job shows them all"
    if "add --multirun" in text:
        return f"{text.split(' 1. ')[0]}: add -m to sweep over a list"
    return text.split(" full_key:")[0].split(" See https:")[0]


def conf_dir() -> Path:
    """Folder of the YAML configuration: inside an installed wheel, or beside the package."""
    inside = Path(__file__).resolve().parent / "conf"
    return inside if inside.is_dir() else inside.parent.parent / "conf"


def _walk(node: Any, prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _walk(value, f"{name}.")
        else:
            yield name, value


def _check_value(settings: Config, dotted: str, rule: Callable[[Any], str | None]) -> None:
    group, name = dotted.split(".")
    value = getattr(getattr(settings, group), name)
    if value is not None and (complaint := rule(value)):
        raise ConfigError(f"{dotted}={value}: must be {complaint}")


def _check_states(settings: Config) -> None:
    model = settings.model
    if model.n_states is not None and model.state_grid is not None:
        raise ConfigError(
            f"model.n_states={model.n_states} and model.state_grid={model.state_grid} are both "
            "set: unset one with model.state_grid=null or model.n_states=null"
        )
    if model.state_grid is not None and not model.state_grid:
        raise ConfigError("model.state_grid=[]: name at least one number of states")


def _check_data(settings: Config) -> None:
    data = settings.data
    if data.kind == "synthetic":
        if data.path is not None:
            raise ConfigError(f"data.path={data.path} is set beside data=synthetic: add data=bars")
        return
    if data.path is None:
        raise ConfigError(f"data.path is not set: data.path=<file> says where the {data.kind} are")
    if data.bar_stamp is None:
        raise ConfigError(
            "data.bar_stamp is not set: data.bar_stamp=open when the file stamps a bar's start "
            "(exchanges, TradingView), data.bar_stamp=close when it stamps the end"
        )


def _check_features(settings: Config) -> None:
    features, timeframe = settings.features, settings.timeframe
    if features.name == "columns" and not features.columns and settings.data.kind != "features":
        raise ConfigError("features=columns needs features.columns=[name_1H,...]")
    if features.name != "columns" and features.columns:
        raise ConfigError(f"features.columns is set beside features={features.name}: use columns")
    if not timeframe.timeframes:
        raise ConfigError("timeframe.timeframes=[]: name at least one timeframe")


def _check_selection(settings: Config) -> None:
    selection = settings.selection
    needs_blocks = selection.within == "cv" or selection.rule == "one_se"
    if needs_blocks and selection.cv_blocks < 2:
        raise ConfigError(
            f"selection.within={selection.within} with selection.rule={selection.rule} needs "
            "cross-validation: set selection.cv_blocks=5"
        )


def _check_split(settings: Config) -> None:
    split = settings.split
    walks = split.kind == "walk_forward"
    if split.kind == "dates" or (walks and (split.train_end or split.val_end)):
        if split.train_end is None or split.val_end is None:
            raise ConfigError(
                f"split={split.kind} needs split.train_end=... and split.val_end=... (UTC)"
            )
    else:
        _check_shares(split)
    if walks:
        _check_walk(settings)


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
            f"model.refit={settings.model.refit} is set beside split=walk_forward, whose last "
            "refit is the model: use model.refit=train"
        )
