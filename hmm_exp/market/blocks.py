"""Read a text table block by block, under the header of its first one.

>>> for header, rows, share in text_blocks(path, is_bars_header):
...     frame, ragged = parse(rows, header, path)
"""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from hmm_exp.errors import DataError
from hmm_exp.files import GZIP
from hmm_exp.market.files import (
    Header,
    as_utf8,
    below,
    damaged,
    find_header,
    first_lines,
    refuse_other_kinds,
)

BLOCK = 16 << 20  # bytes of text in a block, about 250,000 bars


def text_blocks(
    path: str | Path, is_header: Callable[[list[str]], bool], block: int = BLOCK
) -> Iterator[tuple[Header, bytes, float]]:
    """Header, rows as UTF-8, and the share of the file read so far; `block` bytes of text each.

    `Header.rows_from` is the number of lines of the file above the rows of the block. Raises
    DataError when the file is no text table.
    """
    path, header = Path(path), None
    try:
        for content, share in _contents(path, block):
            if header is None:
                refuse_other_kinds(content, path)
            text = rows = as_utf8(content)
            if header is None:
                header = find_header(first_lines(text), is_header)
                rows = below(text, header)
            yield header, rows, share
            n_above = header.rows_from + rows.count(b"\n")
            header = replace(header, line=n_above, n_lines=0)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, "gzip", error) from None
    if header is None:
        raise DataError(f"{path} is empty; set data.path")


def _contents(path: Path, block: int) -> Iterator[tuple[bytes, float]]:
    """Blocks of the text of a file, with the share read; UTF-16 is not cut."""
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(2)
        file.seek(0)
        with gzip.open(file) if magic == GZIP else nullcontext(file) as text:
            if magic in (b"\xff\xfe", b"\xfe\xff"):
                yield text.read(), 1.0
                return
            for content, is_last in _blocks(text, block):
                yield content, 1.0 if is_last else min(file.tell() / size, 0.99)


def _blocks(text: io.BufferedIOBase, size: int) -> Iterator[tuple[bytes, bool]]:
    """Blocks that end with a line; a short rest stays with the last, as it tells too little."""
    block, more = text.read(size), text.read(size)
    while len(more) > size // 4:
        cut = block.rfind(b"\n") + 1
        if cut:
            yield block[:cut], False
        block, more = block[cut:] + more, text.read(size)
    if block:
        yield block + more, True
