"""Hidden Markov models with Gaussian states: fitting, inference, health.

>>> from hmm_exp.hmm import GaussianHMM
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hmm_exp.hmm.estimator import GaussianHMM

__all__ = ["GaussianHMM"]


def __getattr__(name: str) -> Any:
    """Load the estimator when it is asked for: scikit-learn takes half a second."""
    if name == "GaussianHMM":
        from hmm_exp.hmm.estimator import GaussianHMM

        return GaussianHMM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
