"""Every setting of `conf/`: its type, its default and its range.

Nothing here is heavy: `--help` and a typo are answered without NumPy.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hmm_exp.config.objectives import OBJECTIVES
from hmm_exp.config.rules import Each, Name, OneOf, Range, Text

DEFAULT_N_STATES = 3


@dataclass
class DataConfig:
    """Where the bars come from.

    `kind`: synthetic, bars (OHLCV file), features (ready table) or panel (bars of many symbols).
    """

    kind: str = "synthetic"
    path: str | None = None
    name: str | None = None
    bar_stamp: str | None = None
    gaps: str = "split"
    bad_rows: str = "error"
    timezone: str = "UTC"
    timestamp_column: str | None = None
    volume_column: str | None = None
    calendar: str | None = None
    symbol: str | None = None
    symbol_column: str | None = None
    symbol_pattern: str | None = None
    symbols: list[str] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    exchange: str | None = None
    timeframe: str | None = None
    since: str | None = None
    until: str | None = None
    url: str | None = None
    n_bars: int = 26_280
    n_regimes: int = 3
    seed: int = 7


@dataclass
class FeaturesConfig:
    """The observation vector: a named set, or columns by name."""

    name: str = "v1"
    window: int = 20
    vwap_hours: float = 720.0
    season: str = "none"
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

    emission: str = "gaussian"
    engine: str = "native"
    n_states: int | None = None
    state_grid: list[int] | None = None
    n_init: int = 10
    n_iter: int = 1000
    tol: float = 1e-3
    min_covar: float = 1e-3
    random_state: int = 42
    refit: str = "train"


@dataclass
class SplitConfig:
    """Train, validation and test in time: by ratio, by dates (UTC), or by a walk forward.

    `like` names a recorded run, whose dates are used: the program sets them when it starts.
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
    like: str | None = None
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
class DecisionConfig:
    """How the filtered probabilities of a bar become the regime that a user acts on.

    `enter` and `leave` are of `rule="hysteresis"`, `min_bars` of `rule="min_bars"`.
    """

    rule: str = "hysteresis"
    enter: float = 0.9
    leave: float = 0.1
    min_bars: int = 3


@dataclass
class GateConfig:
    """What a candidate must pass before it may replace the champion; test bars alone are read.

    `static_gain`, `ewma_gain` and `other_gains` say what follows when a gain's lower bound, at
    `level`, is not above zero: refuse, warn or ignore. `champion_bars` are the fewest on which
    candidate and champion are compared; 0 leaves that out. `margin`, nats per bar, is how much
    worse than the champion a candidate may be. In a panel `fdr`, the expected share of false
    promotions, takes the place of `level`.
    """

    name: str = "default"
    hard_faults: bool = True
    instrument: bool = True
    min_occupancy: float = 0.01
    min_dwell: float = 1.5
    static_gain: str = "refuse"
    ewma_gain: str = "warn"
    other_gains: str = "ignore"
    level: float = 0.025
    fdr: float = 0.05
    champion_bars: int = 500
    margin: float = 0.002


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
    objective
        What a cell returns to a sweeper that optimises, such as Optuna's: one of `OBJECTIVES`.
    search, n_possible
        Name of such a sweeper, None for a grid; and the number of cells among which it chooses,
        None where a setting has an interval.
    parent_run, n_cells, attempt, owner, folder
        The parent's run, the size of the grid, how many times it was started, the main process,
        and where logs and finished but unrecorded work are kept.
    varied
        Swept settings that a cell's name does not show otherwise.
    configurations, symbols
        Of a job of a panel, as JSON: what each configuration changes in the job's settings, by
        dotted name; and number, name, path and column of its symbols.
    symbol
        Of a cell of a panel.
    """

    cell_timeout: float | None = None
    require_all: bool = False
    objective: str = "return_gain_val"
    search: str | None = None
    n_possible: int | None = None
    parent_run: str | None = None
    n_cells: int | None = None
    attempt: int | None = None
    owner: str | None = None
    folder: str | None = None
    varied: list[str] = field(default_factory=list)
    configurations: str | None = None
    symbols: str | None = None
    symbol: str | None = None


@dataclass
class RegistryConfig:
    """The registered model that the winner is promoted to; in a panel `{symbol}` is in its name."""

    name: str = "hmm_regime"


@dataclass
class StrategyConfig:
    """The strategy table: delays in bars, and the cost of a trade one way in basis points."""

    cost_bp: float = 10.0
    delays: list[int] = field(default_factory=lambda: [1, 5])


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
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    cache: bool = True
    plots: str | None = None
    pool: bool = False
    promote: bool | None = None
    quiet: bool = False
    sweep_id: str | None = None

    @property
    def state_grid(self) -> list[int]:
        """Numbers of states to try in this run, ascending."""
        if self.model.state_grid is not None:
            return sorted(set(self.model.state_grid))
        return [self.model.n_states or DEFAULT_N_STATES]


OF_EXCHANGES = ("exchange", "timeframe", "since", "until", "url")  # settings of data=ccxt alone
RULES: dict[str, OneOf | Range | Each | Text] = {
    "data.kind": OneOf(("synthetic", "bars", "features", "panel")),
    "data.path": Text(4096),
    "data.name": Text(200),
    "data.timestamp_column": Text(1000),
    "data.volume_column": Text(1000),
    "data.calendar": Text(100),
    "data.symbol": Text(200),
    "data.symbol_column": Text(1000),
    "data.symbol_pattern": Text(1000),
    **{f"data.{name}": Text(1000, without="@") for name in OF_EXCHANGES},  # no user and password
    "data.bar_stamp": OneOf(("open", "close")),
    "data.gaps": OneOf(("split", "bridge")),
    "data.bad_rows": OneOf(("error", "drop")),
    "data.n_bars": Range(100, 10_000_000),
    "data.n_regimes": Range(1, 5),
    "data.seed": Range(0),
    "features.window": Range(2, 100_000),
    "features.vwap_hours": Range(0, 100_000, above=True),
    "features.season": OneOf(("none", "hour")),
    "covariance.type": OneOf(("diag", "full", "tied", "spherical")),
    "model.n_states": Range(1, 50),
    "model.state_grid": Each(Range(1, 50)),
    "model.n_init": Range(1, 10_000),
    "model.n_iter": Range(1, 1_000_000),
    "model.tol": Range(0, above=True),
    "model.min_covar": Range(0),
    "model.random_state": Range(0, 2**32 - 1),
    "model.refit": OneOf(("train", "train_val")),
    "split.kind": OneOf(("ratio", "dates", "walk_forward")),
    "split.train": Range(0, 1, above=True),
    "split.val": Range(0, 1),
    "split.test": Range(0, 1),
    "split.like": Name(64, "/'"),
    "split.refit_every": Range(1),
    "split.window": Range(10),
    "split.refit_starts": Range(0, 10_000),
    "model.emission": OneOf(("gaussian", "student_t")),
    "model.engine": OneOf(("native", "hmmlearn")),
    "selection.within": OneOf(("bic", "aic", "hqc", "icl", "cv", "bic_next")),
    "selection.rule": OneOf(("lowest", "one_se", "elbow")),
    "selection.elbow": Range(0, 1, above=True),
    "selection.cv_blocks": Range(2, 50, or_zero=True),
    "selection.across": OneOf(("return_gain_val", "ewma_gain_val", "return_score_val")),
    "selection.near_tie": Range(0),
    "selection.min_occupancy": Range(0, 0.5),
    "decision.rule": OneOf(("argmax", "hysteresis", "min_bars")),
    "decision.enter": Range(0, 1, above=True),
    "decision.leave": Range(0, 1, above=True),
    "decision.min_bars": Range(1, 100_000),
    "gate.min_occupancy": Range(0, 0.5),
    "gate.min_dwell": Range(0),
    "gate.static_gain": OneOf(("refuse", "warn", "ignore")),
    "gate.ewma_gain": OneOf(("refuse", "warn", "ignore")),
    "gate.other_gains": OneOf(("refuse", "warn", "ignore")),
    "gate.level": OneOf((0.05, 0.025, 0.01)),
    "gate.champion_bars": Range(0),
    "gate.margin": Range(0),
    "gate.fdr": Range(0, 0.5, above=True),
    "plots": OneOf(("all", "winner")),
    "compute.threads": Range(1, 4096),
    "compute.workers": Range(1, 4096),
    "sweep.cell_timeout": Range(0, above=True),
    "sweep.objective": OneOf(tuple(OBJECTIVES)),
    "strategy.cost_bp": Range(0, 1000),
    "strategy.delays": Each(Range(1, 1000), distinct=True),
    "tracking.experiment": Name(256),  # the column of MLflow's table
    "tracking.patience": Range(0),
    "registry.name": Name(256, "/:'?"),  # a quote breaks MLflow's search, ? its URIs
    "sweep_id": Name(100, "/'"),
}


OF_PANELS = ("symbol_pattern", "symbols", "include", "exclude")  # settings of data=panel alone

# First parts of the names of settings that cannot change what a run fits.
NOT_IN_RESULT = {
    *("gate", "compute", "tracking", "registry", "sweep"),
    *("cache", "plots", "pool", "promote", "quiet", "sweep_id"),
}


def flat(settings: Config) -> dict[str, Any]:
    """Every setting by its dotted name, values as they are."""
    return dict(walk(asdict(settings)))


def walk(node: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Leaves of nested mappings, each with its dotted name."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from walk(value, f"{name}.")
        else:
            yield name, value


def conf_dir() -> Path:
    """Folder of the YAML configuration: inside an installed wheel, or beside the package."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
