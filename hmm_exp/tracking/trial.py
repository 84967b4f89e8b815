"""Whether a stored model answers: loaded by its URI, it predicts on made-up bars."""

import sys

import mlflow

from hmm_exp.tracking.serving import sample_bars

_SUM_TOLERANCE = 1e-6


def complaint(uri: str) -> str | None:
    """What is wrong with the model at `uri`, on one line; None when it answers."""
    path = list(sys.path)
    try:
        model = mlflow.pyfunc.load_model(uri, suppress_warnings=True)
        regimes = model.predict(sample_bars(model.get_raw_model()))
        total = regimes.filter(like="p_state_").sum(axis=1)
    except Exception as error:  # whatever a stored model may raise
        return f"{uri} does not answer: {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        sys.path[:] = path  # MLflow leaves the model's own code in front
    if regimes.empty or not (abs(total - 1) < _SUM_TOLERANCE).all():
        return f"{uri} gives no probabilities that sum to one"
    return None
