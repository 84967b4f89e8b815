"""The settings that a config uses: the others mean nothing with its choices.

>>> "split.refit_every" in used(Config())  # it belongs to a walk forward
False
"""

from typing import Any

from hmm_exp.config.schema import OF_EXCHANGES, OF_PANELS, Config, flat

_FILES, _SETS = ("bars", "features", "panel"), ("v1", "v2", "v1v2", "range", "returns")
_OF_FILES = "path bar_stamp gaps bad_rows timestamp_column volume_column calendar"
# A setting that decides, its values, and the settings that only these values use. `selection` is
# not here: the choice of a winner reads its whole rule from a run. The windows of feature sets are
# not here either: a sweep compares sets, and a param that one cell lacks looks like a difference.
USED_WITH: list[tuple[str, tuple[Any, ...], list[str]]] = [
    ("data.kind", ("synthetic",), ["data.n_bars", "data.n_regimes", "data.seed"]),
    ("data.kind", _FILES, [f"data.{name}" for name in _OF_FILES.split()]),
    ("data.kind", ("bars",), ["data.symbol", *(f"data.{name}" for name in OF_EXCHANGES)]),
    ("data.kind", ("bars", "panel"), ["data.symbol_column"]),
    ("data.kind", ("panel",), [*(f"data.{name}" for name in OF_PANELS), "gate.fdr"]),
    ("features.name", ("columns",), ["features.columns"]),
    ("features.name", _SETS, ["timeframe.name", "timeframe.timeframes"]),  # columns name theirs
    ("split.train_end", (None,), ["split.train", "split.val", "split.test"]),
    ("split.kind", ("ratio", "dates"), ["model.refit"]),
    ("split.kind", ("walk_forward",), ["split.refit_every", "split.window", "split.warm"]),
    ("split.kind", ("walk_forward",), ["split.refit_starts"]),
    ("split.warm", (True,), ["split.refit_starts"]),
    ("decision.rule", ("hysteresis",), ["decision.enter", "decision.leave"]),
    ("decision.rule", ("min_bars",), ["decision.min_bars"]),
]


def used(settings: Config) -> dict[str, Any]:
    """Every setting that has a value and that the choices of this config use, by dotted name."""
    values = flat(settings)
    unused = {
        name for decides, uses, names in USED_WITH if values[decides] not in uses for name in names
    }
    return {
        name: value
        for name, value in values.items()
        if name not in unused and value is not None and value != []
    }
