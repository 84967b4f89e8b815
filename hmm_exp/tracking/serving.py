"""The loader that models of earlier versions name; it is in `hmm_exp.serving.mlflow_model`."""

from hmm_exp.serving.mlflow_model import _load_pyfunc

__all__ = ["_load_pyfunc"]
