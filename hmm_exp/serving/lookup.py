"""Find a detector by the name given on a command line: a URI, run id, folder or file."""

import re
from pathlib import Path

from hmm_exp.detector.detector import Detector

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def find_detector(name: str) -> Detector:
    """Load a detector, from a folder or file without the slow import of MLflow.

    Raises ModelError if there is none.
    """
    is_run = _RUN_ID.fullmatch(name)
    if Path(name).exists() and not is_run:
        return Detector.load(name)
    from hmm_exp.serving.load import load_detector

    return load_detector(f"runs:/{name}" if is_run else name)
