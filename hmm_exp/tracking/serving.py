"""The loader named by models of earlier versions; see `hmm_exp.serving.mlflow_model`."""

from hmm_exp.serving.mlflow_model import _load_pyfunc

__all__ = ["_load_pyfunc"]
