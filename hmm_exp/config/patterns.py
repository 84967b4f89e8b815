"""Select names by patterns: columns of a feature table, symbols of a panel.

>>> selected(["BTC", "ETH", "ETHW"], ["ETH*"], ["*W"], "data", "symbol")
['ETH']
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from hmm_exp.config.checks import nearest
from hmm_exp.errors import ConfigError


def selected(
    names: Sequence[str], include: Sequence[str], exclude: Sequence[str], group: str, noun: str
) -> list[str]:
    """Names that match a pattern of `include` (all when empty) and none of `exclude`.

    Patterns are globs and respect case; the order of `names` is kept. `group` is the group of the
    settings `include` and `exclude`, `noun` is what a name stands for.

    Raises
    ------
    ConfigError
        When a pattern matches nothing, or nothing is left.
    """
    for option, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    f"{group}.{option} pattern {pattern!r} matches no {noun}"
                    f"{nearest(pattern, names)}"
                )
    left = [
        name
        for name in names
        if (not include or _matches(name, include)) and not _matches(name, exclude)
    ]
    if not left:
        raise ConfigError(f"{group}.include and {group}.exclude leave no {noun}")
    return left


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
