"""Sweep, judge, promote and serve hidden Markov models of market regimes.

detector = hmm_exp.load_detector("models:/hmm_regime/Production")
regimes = detector.filter(bars)

What `__all__` lists, and what those objects return, is public and changes only with a line in the
changelog. Every other module may change at any time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hmm_exp.version import __version__

if TYPE_CHECKING:
    from hmm_exp import figures
    from hmm_exp.causality import check_causality
    from hmm_exp.config import Config, checked
    from hmm_exp.detector.detector import Detector
    from hmm_exp.detector.panel_stream import PanelStream
    from hmm_exp.detector.pooled import PooledDetector
    from hmm_exp.detector.stream import Stream
    from hmm_exp.errors import HmmExpError
    from hmm_exp.experiment.prepare import prepare
    from hmm_exp.experiment.run import run
    from hmm_exp.features.build import build_features
    from hmm_exp.features.lookbacks import build_lookbacks, latest_observation
    from hmm_exp.features.recipe import Recipe
    from hmm_exp.hmm.estimator import GaussianHMM, StudentTHMM
    from hmm_exp.market.bars import Bars
    from hmm_exp.market.load import read_bars
    from hmm_exp.market.synthetic import make_market
    from hmm_exp.registry.detectors import load_detectors
    from hmm_exp.serving.load import load_detector

__all__ = [
    "Bars",
    "Config",
    "Detector",
    "GaussianHMM",
    "HmmExpError",
    "PanelStream",
    "PooledDetector",
    "Recipe",
    "Stream",
    "StudentTHMM",
    "__version__",
    "build_features",
    "build_lookbacks",
    "check_causality",
    "checked",
    "figures",
    "latest_observation",
    "load_detector",
    "load_detectors",
    "make_market",
    "prepare",
    "read_bars",
    "run",
]

# Fetched on first use, so that `--help` and a typo are answered without pandas and numba.
_HOMES = {
    "Bars": "market.bars",
    "Config": "config",
    "Detector": "detector.detector",
    "PooledDetector": "detector.pooled",
    "GaussianHMM": "hmm.estimator",
    "StudentTHMM": "hmm.estimator",
    "HmmExpError": "errors",
    "Recipe": "features.recipe",
    "PanelStream": "detector.panel_stream",
    "Stream": "detector.stream",
    "build_features": "features.build",
    "build_lookbacks": "features.lookbacks",
    "check_causality": "causality",
    "checked": "config",
    "latest_observation": "features.lookbacks",
    "load_detector": "serving.load",
    "load_detectors": "registry.detectors",
    "make_market": "market.synthetic",
    "prepare": "experiment.prepare",
    "read_bars": "market.load",
    "run": "experiment.run",
}


def __getattr__(name: str) -> Any:
    if name == "figures":  # a module
        return import_module("hmm_exp.figures")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"hmm_exp.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
