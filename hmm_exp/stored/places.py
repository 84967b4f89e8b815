"""Where a detector lies: in a folder that was given, or near a file that is none.

>>> detector_file(Path("mlruns/models/m-0a1b/artifacts"))
PosixPath('mlruns/models/m-0a1b/artifacts/data/detector.json')
"""

import re
from pathlib import Path

from hmm_exp.errors import ModelError

FILE_NAME = "detector.json"
_PLACES = (f"data/{FILE_NAME}", FILE_NAME)  # in the folder of an MLflow model; in any folder
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_HEAD = 1 << 16  # characters of an MLmodel file that name its run


def detector_file(path: Path) -> Path:
    """File of the detector in a folder, or the path itself where it is none.

    Raises ModelError for a folder without a detector; says where the one of its run lies.
    """
    if not path.is_dir():
        return path
    for place in _PLACES:
        if (path / place).exists():
            return path / place
    names = [name for name in ("model.joblib", "scaler.joblib") if (path / name).exists()]
    but = f": {' and '.join(names)} are pickles, never loaded" if names else ""
    raise ModelError(f"no detector at {path}{but}; {where_instead(path)}")


def where_instead(path: Path) -> str:
    """Advice for somebody who gave a file or folder without a detector: where the right one is."""
    folder = path if path.is_dir() else path.parent
    for model in ("", "model", "artifacts"):  # of an MLflow model, of a run, of a logged model
        for place in _PLACES:
            if (folder / model / place).is_file():
                return f"give {folder / model / place}"
    for run in (folder, folder.parent):
        if _RUN_ID.fullmatch(run.name):
            logged = _logged_by(run)
            return f"give runs:/{run.name}{f' or {logged}' if logged else ''}"
    return f"give a {FILE_NAME}, its folder, runs:/<run id> or models:/<name>/Production"


def _logged_by(run: Path) -> Path | None:
    """Folder of the model that a run logged, where a store of MLflow 3 keeps models with runs."""
    for described in sorted(run.parent.glob("models/*/artifacts/MLmodel")):
        if (described.parent / _PLACES[0]).is_file() and described.is_file():
            with described.open(encoding="utf-8", errors="replace") as text:
                if f"run_id: {run.name}\n" in text.read(_HEAD):
                    return described.parent
    return None
