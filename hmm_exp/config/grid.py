"""The grid of a sweep: for every setting of a command line the words that cells are made from.

>>> grid(["model.n_states=range(2,5)", "features=v1"])
{'model.n_states': ['model.n_states=2', 'model.n_states=3', 'model.n_states=4'],
 'features': ['features=v1']}
"""

import glob
import math
from decimal import Decimal
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from omegaconf.errors import OmegaConfBaseException

from hmm_exp.config.checks import at_home, is_setting, kind_in_words
from hmm_exp.config.overrides import hydra_text
from hmm_exp.errors import ConfigError

MOST_CELLS = 10_000  # Hydra composes each before the first runs


def grid(words: list[str], intervals: bool = False) -> dict[str, list[str]]:
    """Write out sweeps; a later word of a setting takes the place of an earlier one.

    Raises ConfigError for a sweep without values, with too many, or with none that can be listed.
    With `intervals`, for a search, an interval is written out as its two ends.
    """
    return {
        override.get_key_element(): _words(override, intervals)
        for override in _overrides(words, intervals)
    }


def ordered(words: list[str]) -> dict[str, str]:
    """Ranges and intervals as they were given, by setting: what a search can use the order of."""
    return {
        override.get_key_element(): override.input_line or ""
        for override in _overrides(words, intervals=True)
        if override.is_range_sweep() or override.is_interval_sweep()
    }


def has_interval(words: list[str]) -> bool:
    """Whether a setting takes every value of an interval."""
    return any(override.is_interval_sweep() for override in _overrides(words, intervals=True))


def _overrides(words: list[str], intervals: bool) -> list[Override]:
    """Overrides of a command line, of each setting the last."""
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    parser = OverridesParser.create(loader)
    overrides = parser.parse_overrides(words)
    if intervals:
        overrides = [_in_whole_numbers(one, parser) for one in overrides]
    return list({override.get_key_element(): override for override in overrides}.values())


def _in_whole_numbers(override: Override, parser: OverridesParser) -> Override:
    """An interval of whole numbers where the setting takes those; Hydra's own is of all numbers."""
    if not override.is_interval_sweep():
        return override
    _check_interval(override)  # quoted as it was given
    name, _, interval = (override.input_line or "").partition("=")
    if not is_setting(name) or kind_in_words(name) != "a whole number":
        return override
    return parser.parse_override(f"{name}=int({interval})")


def as_word(words: list[str]) -> str:
    """One word that sweeps over the values of several of the same setting."""
    name = words[0].partition("=")[0]
    return f"{name}={','.join(word.partition('=')[2] for word in words)}"


def _words(override: Override, intervals: bool) -> list[str]:
    name = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{name}={override.get_value_element_as_str()}"]
    values = _ends(override) if intervals and override.is_interval_sweep() else _values(override)
    if not values:
        raise ConfigError(f"{override.input_line}: no value to sweep over")
    if len(values) > MOST_CELLS:
        raise _too_many(override.input_line or name)
    return [f"{name}={value}" for value in values]


def _values(override: Override) -> list[str]:
    """Values of a sweep as Hydra reads them, at most one more than may be."""
    word, sweep = override.input_line or "", override.value()
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{word}: name the values to sweep, such as 1,2,3 or range(1,4); an interval is for "
            "a search, hydra/sweeper=optuna"
        )
    if isinstance(sweep, Glob) and override.key_or_group == "data.path":
        return [hydra_text(path) for path in _files(sweep)]
    if isinstance(sweep, RangeSweep):
        _check_range(sweep, word)
    try:
        return list(islice(override.sweep_string_iterator(), MOST_CELLS + 1))
    except OmegaConfBaseException:  # a sweep in a sweep
        raise ConfigError(f"{word}: a value to sweep over is itself a sweep") from None


def _ends(override: Override) -> list[str]:
    """Ends of an interval, which are checked for all values between them."""
    ends = override.value()
    assert isinstance(ends, IntervalSweep)
    return [str(ends.start or 0), str(ends.end or 0)]


def _check_interval(override: Override) -> None:
    """Refuse an interval that does not go from a number to a higher one."""
    ends = override.value()
    assert isinstance(ends, IntervalSweep)
    if not -math.inf < (ends.start or 0) < (ends.end or 0) < math.inf:
        words = "from a lower to a higher number, such as interval(10,60)"
        raise ConfigError(f"{override.input_line}: {words}")


def _files(pattern: Glob) -> list[str]:
    """Files that match, by name."""
    found = {path for text in pattern.include for path in glob.glob(at_home(text))}  # noqa: PTH207
    left = [path for path in found if not any(fnmatch(path, text) for text in pattern.exclude)]
    return sorted(path for path in left if Path(path).is_file())


def _check_range(sweep: RangeSweep, word: str) -> None:
    """Refuse a range that does not end, or only after very many values."""
    try:
        size = (Decimal(sweep.stop or 0) - Decimal(sweep.start or 0)) / Decimal(sweep.step)
        if size <= MOST_CELLS:
            return
    except ArithmeticError:  # a step of 0, nan
        raise ConfigError(f"{word}: must be a range such as range(2,6), 6 left out") from None
    raise _too_many(word)


def _too_many(word: str) -> ConfigError:
    return ConfigError(f"{word}: a sweep has at most {MOST_CELLS:,} cells")
