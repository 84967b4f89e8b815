"""How a file is written so that no half of it is ever seen.

>>> with written_beside("table.csv") as part:
...     frame.to_csv(part)
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hmm_exp.errors import refusal


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Give a hidden path in the same folder and rename it to `path` at the end.

    On any error the hidden file is removed and `path` stays as it was.

    Raises
    ------
    OSError
        On a full disk for example; names `path`.
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
