"""Write files atomically, and recognise file types by their first bytes.

>>> with written_beside("table.csv") as part:
...     frame.to_csv(part)
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hmm_exp.errors import refusal


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Give a hidden path in the same folder, and rename it to `path` at the end.

    On an error, the hidden file is removed and `path` is unchanged. Raises OSError if the file
    cannot be written, for example on a full disk; names `path`.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and (words := refusal(error)):
            raise OSError(f"{words.partition(':')[0]}: '{path}'") from error
        raise


_NO_STEM = re.compile(r"[^\w.^=+]+")


def stem_of(symbol: str) -> str:
    """The symbol of a market as the name of a file, without a suffix.

    >>> stem_of("BTC/USDT:USDT")
    'BTC-USDT-USDT'
    """
    return _NO_STEM.sub("-", symbol)


PICKLE = "a pickle, which is never loaded"  # a pickle can run any code
JSON = "a JSON file"
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
_STARTS = {
    GZIP: "a gzip file",
    PARQUET: "a Parquet file",
    b"PK\x03\x04": "a zip archive or a spreadsheet (xlsx)",
    b"PK\x05\x06": "an empty zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"ARROW1": "a Feather (Arrow) file",
    b"FEA1": "a Feather file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy file",
    b"\xd0\xcf\x11\xe0": "an Excel file (xls)",
    b"SQLite format 3\0": "a SQLite database",
    b"\x04\x22\x4d\x18": "an lz4 file",
    b"<stata_dta>": "a Stata file",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
}
_TEXTS = {
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"<table": "a web page",
    b"<?xml": "an XML file",
    b"{": JSON,
    b"[": JSON,
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_UTF_32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_PICKLED = re.compile(rb"\x80[\x02-\x05]")
_BLANK = b"\xef\xbb\xbf \t\r\n"
_LONGEST = 300  # bytes examined


def kind_of(content: bytes) -> str | None:
    """File type in words, from the first bytes; None for plain text or unknown."""
    for start, kind in _STARTS.items():
        if content.startswith(start):
            return kind
    if _PICKLED.match(content):
        return PICKLE
    if content[257:262] == b"ustar":
        return "a tar archive"
    if content.startswith(_UTF_32) or (
        b"\0" in content[:_LONGEST] and not content.startswith(_UTF_16)
    ):
        return "a binary file, or text of another encoding than UTF-8"
    text = content[:_LONGEST].lstrip(_BLANK).lower()
    return next((kind for start, kind in _TEXTS.items() if text.startswith(start)), None)
