"""Sweep, judge, promote and serve Gaussian hidden Markov models of market regimes.

detector = hmm_exp.load_detector("models:/hmm_regime/Production")
regimes = detector.filter(bars)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hmm_exp.detector import Detector
    from hmm_exp.tracking.loading import load_detector

__all__ = ["Detector", "__version__", "load_detector"]
__version__ = "0.1.0"

# Fetched on first use, so that `--help` and a typo are answered without pandas and numba.
_HOMES = {"Detector": "hmm_exp.detector", "load_detector": "hmm_exp.tracking.loading"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
