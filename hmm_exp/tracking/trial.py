"""Whether a stored model answers: loaded by its URI, it predicts on made-up bars."""

import sys

import mlflow

from hmm_exp.detector import Detector
from hmm_exp.errors import ModelError, one_line
from hmm_exp.tracking.serving import sample_bars

_SUM_TOLERANCE = 1e-6


def tried(uri: str) -> Detector:
    """Load a model, let it predict, and give its detector.

    Raises
    ------
    ModelError
        Says on one line what is wrong with it.
    """
    path = list(sys.path)
    try:
        model = mlflow.pyfunc.load_model(uri, suppress_warnings=True)
        detector = model.get_raw_model()
        regimes = model.predict(sample_bars(detector))
        total = regimes.filter(like="p_state_").sum(axis=1)
    except Exception as error:  # whatever a stored model may raise
        text = one_line(f"{type(error).__name__}: {error}")
        raise ModelError(f"{uri} does not answer: {text}") from None
    finally:
        sys.path[:] = path  # MLflow leaves the model's own code in front
    if regimes.empty or not (abs(total - 1) < _SUM_TOLERANCE).all():
        raise ModelError(f"{uri} gives no probabilities that sum to one")
    return detector


def complaint(uri: str) -> str | None:
    """What is wrong with the model at `uri`, None when it answers."""
    try:
        tried(uri)
    except ModelError as error:
        return str(error)
    return None
