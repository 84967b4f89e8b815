"""JSON files of this package: written whole with a digest, checked on reading.

>>> write_document("detector.json", {"format": 2, "name": "btc"})
>>> read_document("detector.json", DETECTOR, lambda content: content["name"])
'btc'

A detector and a saved stream decide about money and lie in places that others can write to, so
reading trusts nothing: neither that the path is a file, nor its size, encoding, nesting or numbers.
"""

import hashlib
import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hmm_exp.errors import HmmExpError, ModelError, one_line
from hmm_exp.files import JSON, PICKLE, kind_of, written_beside

FORMAT = 2  # of what is written; the digest came with it
FORMATS = (1, 2)  # that are read
LARGEST = 64 << 20  # bytes of a file
DEEPEST = 20  # levels of nesting
_LONGEST_WHOLE = 30  # digits of a whole number

_PICKLES = {".joblib", ".pkl", ".pickle"}

Read = TypeVar("Read")


@dataclass(frozen=True)
class Kind:
    """Names of a kind of document for messages."""

    name: str  # such as "detector"
    remedy: str  # what to do about a damaged one


class OtherFileError(ModelError):
    """There is no file, or it is no document of this package at all."""


DETECTOR = Kind("detector", "load it again from its run or the registry")
STREAM = Kind("saved stream", "give another --state, or move it away to begin anew")


def write_document(path: str | Path, content: dict[str, Any]) -> None:
    """Write content with its digest, whole or not at all. Raises ModelError for no JSON."""
    target = Path(path)
    try:
        plain = json.loads(json.dumps(content))  # as it is read: keys are text, tuples are lists
        document = {**plain, "digest": digest_of(plain)}
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} cannot be saved: {error}") from None
    with written_beside(target) as part:
        part.write_text(json.dumps(document, indent=1))


def read_document(path: str | Path, kind: Kind, parse: Callable[[dict[str, Any]], Read]) -> Read:
    """Read a document and give what `parse` makes of its content, which has no digest any more.

    Raises ModelError if there is no such file, it is something else, it is damaged, or `parse`
    refuses a value.
    """
    raw = _content_of(Path(path), kind)
    with _damage_named(path, kind):
        content = _parsed(raw)
    try:
        form = format_of(content, kind)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    with _damage_named(path, kind):
        if form == 1 and "digest" in content:
            raise ModelError("its format is 1 but it has a digest, which came with format 2")
        if form > 1 and content.pop("digest", None) != digest_of(content):
            raise ModelError("its content is not what its digest was made of")
        return parse(content)


@contextmanager
def _damage_named(path: str | Path, kind: Kind) -> Iterator[None]:
    """Add the file and the remedy to an error about its content."""
    try:
        yield
    except RecursionError:
        fault = f"it is nested more than {DEEPEST} levels deep"
    except (HmmExpError, ValueError) as error:
        fault = str(error)
    else:
        return
    raise ModelError(f"{path} is a damaged {kind.name}: {fault}; {kind.remedy}")


def format_of(content: dict[str, Any], kind: Kind) -> int:
    """Number of the content's format. Raises ModelError for one that this version cannot read."""
    form = content.get("format")
    if type(form) is not int or form not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        shown = one_line(str(form)[:20])
        raise ModelError(f"{kind.name} format {shown}: this version reads {known}")
    return form


def digest_of(content: dict[str, Any]) -> str:
    """SHA-256 of the content, in hex; the order of keys and blanks between them do not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def other_format(path: Path, raw: bytes) -> str | None:
    """Kind of a file that is not a JSON object, in words; None where it may be one."""
    if raw.lstrip().startswith(b"{"):
        return None
    if raw.startswith(b"\xef\xbb\xbf"):
        return "text that begins with a byte order mark (BOM)"
    kind = kind_of(raw)
    if kind is not None and kind != JSON:
        return kind
    if path.suffix.lower() in _PICKLES:
        return PICKLE
    if path.name == "MLmodel":
        return "the description of an MLflow model"
    return "text that is no JSON object" if _is_text(raw) else "a binary file"


def _is_text(raw: bytes) -> bool:
    try:
        return "\0" not in raw.decode()
    except UnicodeDecodeError:
        return False


def _content_of(path: Path, kind: Kind) -> bytes:
    """Bytes of a file that may be JSON. Raises ModelError."""
    try:
        raw = _bytes_of(path)
    except FileNotFoundError:
        raise OtherFileError(f"no {kind.name} at {path}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise OtherFileError(f"{path} is no {kind.name}: {error}") from None
    if other := other_format(path, raw):
        raise OtherFileError(f"{path} is no {kind.name} but {other}")
    return raw


def _bytes_of(path: Path) -> bytes:
    """Content of a regular file of bounded size. Raises ValueError for anything else."""
    with open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is a pipe or a device")
        if status.st_size > LARGEST:
            raise ValueError(f"it has {status.st_size:,} bytes, more than {LARGEST:,}")
        return file.read(LARGEST)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to would keep an ordinary `open` waiting."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _parsed(raw: bytes) -> dict[str, Any]:
    """Object of a JSON text. Raises ValueError or RecursionError."""
    content = json.loads(
        raw.decode(),
        object_pairs_hook=_unique,
        parse_int=_whole,
        parse_float=_finite,
        parse_constant=_not_finite,
    )
    _check_depth(content)
    return content


def _check_depth(content: dict[str, Any]) -> None:
    level: list[Any] = [content]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _children(value)]
    if level:
        raise RecursionError


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{twice[:40]!r} is there twice")
    return content


def _whole(text: str) -> int:
    if len(text) > _LONGEST_WHOLE:
        raise ValueError(f"it holds a whole number of {len(text):,} characters")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not finite")
    return value


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not finite")


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
    """Advice where the detector is, for a file or folder without one."""
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
