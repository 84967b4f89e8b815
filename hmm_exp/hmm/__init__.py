"""Hidden Markov models with Gaussian or Student-t states: fitting, inference, health.

>>> from hmm_exp.hmm import GaussianHMM
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hmm_exp.hmm.estimator import GaussianHMM

__all__ = ["GaussianHMM"]


def __getattr__(name: str) -> Any:
    """Import the estimator on first use, as scikit-learn takes half a second."""
    if name == "GaussianHMM":
        return import_module("hmm_exp.hmm.estimator").GaussianHMM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
