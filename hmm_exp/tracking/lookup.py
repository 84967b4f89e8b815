"""A detector by whatever name a command line gives: a URI, a run's id, a folder, a file."""

import re
from pathlib import Path

from hmm_exp.detector import FILE_NAME, Detector

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def find_detector(name: str) -> Detector:
    """Load a detector; a folder or file is read without MLflow, which takes a second to import.

    Raises ModelError when there is none.
    """
    for path in (Path(name) / "data" / FILE_NAME, Path(name) / FILE_NAME, Path(name)):
        if path.is_file():
            return Detector.load(path)
    from hmm_exp.tracking.loading import load_detector

    return load_detector(f"runs:/{name}" if _RUN_ID.fullmatch(name) else name)
