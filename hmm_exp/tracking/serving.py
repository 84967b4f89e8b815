"""The loader that models registered before version 0.2 name; it is `hmm_exp.serving.mlflow_model`."""

from hmm_exp.serving.mlflow_model import _load_pyfunc

__all__ = ["_load_pyfunc"]
