"""What to compute: feature columns, their timeframes and the lengths of their windows.

>>> Recipe.of_set("v1", ["1H", "4H"]).columns[:2]
('close_logret_current_1H', 'close_logret_current_4H')
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandas as pd

from hmm_exp.config import RULES, nearest
from hmm_exp.config.patterns import selected
from hmm_exp.errors import ConfigError, ModelError
from hmm_exp.market.bars import OHLCV, timeframe_step
from hmm_exp.market.options import check_timezone
from hmm_exp.stored.fields import Fields

HOUR = pd.Timedelta(hours=1)
_DAY = pd.Timedelta(days=1)
LONGEST_WINDOW = 1_000_000  # bars; a stream keeps two numbers for each
_MOST_DIGITS = 5  # of a timeframe: more days than pandas can count in nanoseconds are not far


@dataclass(frozen=True)
class Feature:
    """One kind of column.

    Attributes
    ----------
    template
        Name without the timeframe; `{w}` stands for the window.
    set_name
        "v1", "v2" or "range".
    lookback
        From the window and the VWAP's window to the number of bars one value is made from.
    uses
        The columns of a bar that it is made from.
    seasonal
        Whether `features.season` takes the mean of the hour from it.
    """

    template: str
    set_name: str
    lookback: Callable[[int, int], int]
    uses: frozenset[str]
    seasonal: bool = False

    def column(self, window: int, timeframe: str) -> str:
        """Full column name, such as `close_parkinson_20_4H`."""
        return f"{self.template.format(w=window)}_{timeframe}"


# The order is that of `kernel.advance`, of the columns of a set, and of the documentation.
_CLOSE, _VOLUME, _RANGE = frozenset({"close"}), frozenset({"volume"}), frozenset({"high", "low"})
_TYPICAL = _RANGE | _CLOSE | _VOLUME  # what a VWAP is made from
FEATURES = (
    Feature("close_logret_current", "v1", lambda w, vwap: 2, _CLOSE),
    Feature("log_volume_delta_current", "v1", lambda w, vwap: 2, _VOLUME, seasonal=True),
    Feature("close_parkinson_{w}", "v1", lambda w, vwap: w, _RANGE),
    Feature("close_ret_zscore_{w}", "v2", lambda w, vwap: w + 1, _CLOSE),
    Feature("volume_rvol_{w}", "v2", lambda w, vwap: w, _VOLUME),
    Feature("close_over_vwap", "v2", lambda w, vwap: vwap, _TYPICAL),
    Feature("close_log_ratio_vwap", "v2", lambda w, vwap: vwap, _TYPICAL),
    Feature("high_low_range_pct_current", "v2", lambda w, vwap: 1, _RANGE | {"open"}),
    Feature("close_open_pct_current", "v2", lambda w, vwap: 1, _CLOSE | {"open"}),
    Feature("log_range_current", "range", lambda w, vwap: 1, _RANGE, seasonal=True),
)

_LOG_RANGE = len(FEATURES) - 1


def _features_of(*set_names: str) -> tuple[Feature, ...]:
    return tuple(feature for feature in FEATURES if feature.set_name in set_names)


SETS = {
    "returns": FEATURES[:1],
    "v1": _features_of("v1"),
    "v2": _features_of("v2"),
    "v1v2": _features_of("v1", "v2"),
    "range": _features_of("range"),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the values of a feature table, beside the bars.

    Attributes
    ----------
    columns
        Full names, in the order of the table.
    timeframes
        As listed; the finest decides the rows.
    window
        Bars in the windows of Parkinson volatility, z-score and relative volume.
    vwap_hours
        Length of the VWAP's window; in bars of a timeframe the whole ones that fit.
    season
        Zone in whose hours the bars of `seasonal` columns are grouped, see `season`; None for
        columns as they are.

    Raises
    ------
    ConfigError
        On an unknown column or timeframe, one given twice, a window that holds too few bars, or a
        season of columns that have none.
    """

    columns: tuple[str, ...]
    timeframes: tuple[str, ...]
    window: int = 20
    vwap_hours: float = 720.0
    season: str | None = None

    def __post_init__(self) -> None:
        _check_timeframes(self.timeframes)
        _check_windows(self)
        _check_columns(self)
        _check_vwap(self)
        _check_season(self)

    @classmethod
    def of_set(
        cls, name: str, timeframes: Sequence[str], window: int = 20, vwap_hours: float = 720.0
    ) -> "Recipe":
        """Columns of one of `SETS`: by feature, then by timeframe as listed."""
        if name not in SETS:
            raise ConfigError(
                f"unknown feature set {name!r}{nearest(name, SETS)}: one of {', '.join(SETS)}"
            )
        columns = (
            feature.column(window, timeframe) for feature in SETS[name] for timeframe in timeframes
        )
        return cls(tuple(columns), tuple(timeframes), window, vwap_hours)

    @classmethod
    def of_columns(
        cls, columns: Sequence[str], window: int = 20, vwap_hours: float = 720.0
    ) -> "Recipe":
        """Columns by name, in the order given; the timeframes are those of their suffixes."""
        timeframes = dict.fromkeys(filter(None, map(column_timeframe, columns)))
        # With no timeframe to be read at all, any will do to name the nearest column.
        return cls(tuple(columns), tuple(timeframes) or ("1H",), window, vwap_hours)

    def by_hour(self, zone: str) -> "Recipe":
        """The same columns with a season by the hours of a zone, where one of them can have it."""
        seasonal = any(FEATURES[index].seasonal for _, index in self.sources())
        return replace(self, season=zone) if seasonal else self

    @property
    def seasonal(self) -> list[int]:
        """Places of the columns that are used less the mean of their hour."""
        places = [index for _, index in self.sources()] if self.season else []
        return [column for column, index in enumerate(places) if FEATURES[index].seasonal]

    @property
    def titles(self) -> tuple[str, ...]:
        """Names of the columns as the model uses them, for tables and figures."""
        seasonal = set(self.seasonal)
        return tuple(
            f"{name} less hour mean" if column in seasonal else name
            for column, name in enumerate(self.columns)
        )

    @property
    def grid(self) -> str:
        """The finest timeframe: one row for each of its bars."""
        return min(self.timeframes, key=timeframe_step)

    def vwap_window(self, timeframe: str) -> int:
        """Length of the VWAP's window in bars of `timeframe`, at least 1."""
        return max(math.floor(self.vwap_hours / (timeframe_step(timeframe) / HOUR) + 1e-9), 1)

    def sources(self) -> list[tuple[str, int]]:
        """For every column its timeframe and the place of its feature in `FEATURES`."""
        known = _known_columns(self.timeframes, self.window)
        return [known[column] for column in self.columns]

    @property
    def repeats(self) -> int:
        """Rows that share one value of the coarsest log range, 1 where none is coarser than rows.

        Repeated values are no new evidence, so BIC cannot choose a number of states there.
        """
        steps = [timeframe_step(name) for name, index in self.sources() if index == _LOG_RANGE]
        return max(steps, default=timeframe_step(self.grid)) // timeframe_step(self.grid)

    @property
    def overlaps(self) -> bool:
        """Whether rows share bars: a column of windows, or of a coarser timeframe than the rows."""
        return any(
            timeframe != self.grid or not FEATURES[index].template.endswith("_current")
            for timeframe, index in self.sources()
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of bars that the features use, and the close, by which they are judged."""
        used = {"close"}.union(*(FEATURES[index].uses for _, index in self.sources()))
        return tuple(name for name in OHLCV if name in used)

    def uses(self, column: str) -> frozenset[str]:
        """Columns of bars that one of the features is made from."""
        return FEATURES[self.sources()[self.columns.index(column)][1]].uses

    def warmup(self, base_step: pd.Timedelta) -> int:
        """Bars of length `base_step` needed before the bar that closes the first complete row.

        The worst case over where in its bins the data begin: a row that has this many gapless
        bars before it is complete, and is what a longer history would give. Every gap in a
        timeframe's window costs the z-score one more of its bars.
        """
        grid = _bars_per_bin(self.grid, base_step)
        return max(
            _base_bars(_bars_per_bin(timeframe, base_step), grid, self._lookback(timeframe)) - 1
            for timeframe in self.timeframes
        )

    def _lookback(self, timeframe: str) -> int:
        """Bars of `timeframe` that its longest feature among the columns is made from."""
        vwap = self.vwap_window(timeframe)
        used = [index for source, index in self.sources() if source == timeframe]
        return max((FEATURES[index].lookback(self.window, vwap) for index in used), default=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a recipe without a season does not name it."""
        values = {key: _plain(value) for key, value in asdict(self).items()}
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Inverse of `to_dict`. Raises ModelError when `values` is not its work."""
        stored = Fields(values, "recipe")
        stored.only([field.name for field in fields(cls) if field.name != "season"], ["season"])
        try:
            return cls(
                stored.texts("columns"),
                stored.texts("timeframes"),
                stored.whole("window", least=2),
                stored.number("vwap_hours", above=0.0),
                stored.text("season") if "season" in stored else None,
            )
        except (ConfigError, ValueError, OverflowError) as error:  # a timeframe of 10^12 days
            raise ModelError(f"recipe: {error}") from None


def column_timeframe(column: str) -> str | None:
    """Timeframe that a column's suffix names: "4H" of `close_over_vwap_4H`, None without one."""
    match = re.search(rf"_(\d{{1,{_MOST_DIGITS}}}(?:min|H|D))$", column)
    return match[1] if match else None


def select_columns(
    names: Sequence[str], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[str]:
    """Columns that the patterns of features.include and features.exclude leave; see `selected`."""
    return selected(names, include, exclude, "features", "column")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _known_columns(timeframes: Iterable[str], window: int) -> dict[str, tuple[str, int]]:
    return {
        feature.column(window, timeframe): (timeframe, index)
        for index, feature in enumerate(FEATURES)
        for timeframe in timeframes
    }


def _bars_per_bin(timeframe: str, base_step: pd.Timedelta) -> int:
    return max(1, -(-timeframe_step(timeframe) // base_step))


def _base_bars(per_bin: int, per_row: int, n_bins: int) -> int:
    """Base bars that hold `n_bins` whole bins known at the last row, wherever they begin.

    Worst case: the data end just before the next row, and the last row lies as far behind the
    edge of a bin as rows (every `per_row`) and bins (every `per_bin`) can.
    """
    return n_bins * per_bin + (per_bin - math.gcd(per_bin, per_row)) + (per_row - 1)


def _check_timeframes(timeframes: Sequence[str]) -> None:
    if not timeframes:
        raise ConfigError("no timeframe is given: name at least one, such as 1H")
    seen: dict[pd.Timedelta, str] = {}
    for timeframe in timeframes:
        if sum(map(str.isdigit, timeframe)) > _MOST_DIGITS:
            raise ConfigError(f"unknown timeframe {timeframe}: at most 99999 of a unit, as 99999D")
        step = timeframe_step(timeframe)
        if step in seen:
            raise ConfigError(f"timeframes {seen[step]} and {timeframe} are the same")
        seen[step] = timeframe


def _check_windows(recipe: Recipe) -> None:
    if not isinstance(recipe.window, int) or recipe.window not in RULES["features.window"]:
        rule = RULES["features.window"]
        raise ConfigError(f"features.window={recipe.window}: must be a whole number, {rule}")
    if recipe.vwap_hours not in RULES["features.vwap_hours"]:
        rule = RULES["features.vwap_hours"]
        raise ConfigError(f"features.vwap_hours={recipe.vwap_hours}: must be {rule}")
    for timeframe in recipe.timeframes:
        if recipe.vwap_hours > LONGEST_WINDOW * (timeframe_step(timeframe) / HOUR):
            raise ConfigError(
                f"features.vwap_hours={recipe.vwap_hours:g} is more than {LONGEST_WINDOW:,} bars "
                f"of {timeframe}"
            )


def _check_vwap(recipe: Recipe) -> None:
    """Refuse a window without a bar where a column uses it."""
    for column, (timeframe, index) in zip(recipe.columns, recipe.sources(), strict=True):
        shortest = timeframe_step(timeframe) / HOUR
        if "vwap" in FEATURES[index].template and recipe.vwap_hours < shortest - 1e-9:
            raise ConfigError(
                f"features.vwap_hours={recipe.vwap_hours:g} is shorter than one bar of "
                f"{timeframe}, which {column} needs: at least {shortest:g}"
            )


def _check_columns(recipe: Recipe) -> None:
    if not recipe.columns:
        raise ConfigError("no feature column is given")
    known = _known_columns(recipe.timeframes, recipe.window)
    for column in recipe.columns:
        if column not in known:
            raise ConfigError(
                f"unknown feature column {column!r}{nearest(column, known)}: a name is that of a "
                f"feature and a timeframe, such as close_parkinson_{recipe.window}_1H with "
                f"features.window={recipe.window}"
            )
        if recipe.columns.count(column) > 1:
            raise ConfigError(f"feature column {column!r} is given twice")


def _check_season(recipe: Recipe) -> None:
    if recipe.season is None:
        return
    check_timezone(recipe.season)
    if not recipe.seasonal:
        raise ConfigError("features.season=hour: no column is a log range or a log volume")
    sources = recipe.sources()
    for column in recipe.seasonal:
        if timeframe_step(sources[column][0]) >= _DAY:
            name = recipe.columns[column]
            raise ConfigError(
                f"features.season=hour: {name} is of bars of a day or longer, which have no hour: "
                f"features.exclude=[{name}] or features.season=none"
            )
