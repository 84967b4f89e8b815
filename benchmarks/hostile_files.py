"""Files of bars in many forms, whole and damaged, to test the readers.

Every file is made from known bars, and a reading is compared with them: an undamaged row is read
unchanged, or the file is refused with one line.

>>> outcome(case_of(seed=1, number=7))
'right'
"""

import gzip
import io
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from hmm_exp.errors import HmmExpError, one_line
from hmm_exp.market.bars import Bars
from hmm_exp.market.load import bar_chunks, read_bars
from hmm_exp.market.number_stamps import FIRST, LAST
from hmm_exp.market.options import ReadOptions

NAMES = ("time", "open", "high", "low", "close", "volume")
STEPS = {"1min": 60, "5min": 300, "15min": 900, "1H": 3600, "4H": 14_400, "1D": 86_400}
BERLIN = ZoneInfo("Europe/Berlin")
HOSTILE = (
    *("", "nan", "inf", "-inf", "null", "-1", "0", "1e400", "-1e400", "1e-400", "9" * 4400, "now"),
    *("today", "tomorrow", "2023", "1677-01-01", "1500-06-01", "2300-01-01 00:00", "9999-12-31"),
    *("\x1b[31mred\x1b[0m", "\x00", "A" * 100_000, "\u202e", "=1+1", "'", "0x10", "1_000", "True"),
    *("1,5", "99999999999999999999", "-9223372036854775808", "9223372036854775807", "{}", "[]"),
    *("20000000000", "28401120", "12:00", "24:00", "2024-02-30", "2024-13-01", "00/00/0000", "-"),
    *("é", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "1.7e12", "NaT"),
)


@dataclass(frozen=True)
class Case:
    """A file, and what it may be read as.

    Attributes
    ----------
    name
        What was done, in words.
    content, suffix
        The file.
    options
        How it is read.
    truth
        Bars that it was made from: index of times in nanoseconds, five columns.
    n_damaged
        Rows that may be read otherwise; None where nobody can tell.
    """

    name: str
    content: bytes
    suffix: str
    options: ReadOptions
    truth: pd.DataFrame
    n_damaged: int | None


@dataclass
class Draft:
    """A file of text in the making: lines under a header."""

    header: list[str]
    rows: list[list[str]]
    mark: str = ","
    preamble: list[str] = field(default_factory=list)
    end: str = "\n"
    n_damaged: int = 0
    done: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Everything as text."""
        lines = [self.mark.join(row) for row in (self.header, *self.rows) if row]
        return self.end.join([*self.preamble, *lines]) + self.end


def case_of(seed: int, number: int) -> Case:
    """The case of a number; the same seed gives the same."""
    return _case(random.Random(f"{seed}/{number}"))


def outcome(case: Case) -> str:
    """How reading a case ends: "right", "refused: ..." with the line, or what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"bars{case.suffix}"
        path.write_bytes(case.content)
        try:
            return reading(path, case)
        except HmmExpError as error:
            return f"refused: {one_line(error)}"


def reading(path: Path, case: Case) -> str:
    """What is wrong with the bars that are read from a case's file, or "right".

    Raises what reading raises.
    """
    bars = read_bars(path, case.options)
    found = _judged(bars.frame, case)
    return _judged_in_pieces(path, bars, case) if found == "right" else found


def _judged(frame: pd.DataFrame, case: Case) -> str:
    """Whether bars are those of the truth but for damaged rows."""
    ns = pd.DatetimeIndex(frame["timestamp"]).as_unit("ns").asi8
    if ((ns < FIRST) | (ns >= LAST)).any():
        return "outside the span of times"
    if case.n_damaged is None:
        return "right"
    expected = case.truth.reindex(ns).to_numpy()
    same = np.isclose(frame[list(NAMES[1:])].to_numpy(), expected, rtol=1e-12).all(axis=1)
    n_wrong = int((~same).sum())
    return "right" if n_wrong <= case.n_damaged else f"misread: {n_wrong} rows of {len(frame)}"


def _judged_in_pieces(path: Path, bars: Bars, case: Case) -> str:
    """Whether a file reads alike in pieces, where it can be read so."""
    try:
        pieces = [piece.frame for piece, _ in bar_chunks(path, case.options, bars.step, block=2000)]
    except HmmExpError:
        return "right"  # rows that are out of order need the whole file
    return _judged(pd.concat(pieces), case)


def _case(rng: random.Random) -> Case:
    truth, step = _truth(rng)
    draft, options, exact = _draft(rng, truth, step)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        _damage(rng, draft)
    content, suffix = draft.text().encode("utf-8", "surrogatepass"), ".csv"
    n_damaged: int | None = draft.n_damaged
    for wrap in rng.choices((None, _flipped, _cut, _zipped, _as_parquet), (60, 15, 10, 10, 5)):
        if wrap is not None:
            content, suffix, more = wrap(rng, content, truth)
            draft.done.append(wrap.__name__.strip("_"))
            n_damaged = None if more is None or n_damaged is None else n_damaged + more
    if not exact:
        n_damaged = None
    return Case(", ".join(draft.done), content, suffix, options, truth, n_damaged)


def _truth(rng: random.Random) -> tuple[pd.DataFrame, int]:
    """Bars from a time between 1975 and 2035, some of them missing."""
    step = STEPS[rng.choice(list(STEPS))]
    n = rng.randint(30, 150)
    begin = datetime(rng.randint(1975, 2035), rng.randint(1, 12), rng.randint(1, 28), tzinfo=UTC)
    numbers = np.random.default_rng(rng.getrandbits(32))
    close = 50 * np.exp(numbers.normal(0, 0.01, n).cumsum())
    opens = np.append(50.0, close[:-1])
    high = np.maximum(opens, close) * (1 + numbers.uniform(0, 0.01, n))
    low = np.minimum(opens, close) * (1 - numbers.uniform(0, 0.01, n))
    values = np.column_stack([opens, high, low, close, numbers.uniform(1, 9, n)]).round(4)
    ns = (int(begin.timestamp()) + step * np.arange(n)) * 10**9
    kept = numbers.random(n) < rng.choice((1.0, 1.0, 0.9))
    kept[:2] = True
    return pd.DataFrame(values[kept], ns[kept], NAMES[1:]), step


def _draft(rng: random.Random, truth: pd.DataFrame, step: int) -> tuple[Draft, ReadOptions, bool]:
    """The truth in a form of text, how to read it, and whether that form loses nothing."""
    written, zone = rng.choice(_FORMS)
    times = [datetime.fromtimestamp(ns // 10**9, UTC) for ns in truth.index]
    cells = [written(when) for when in times]
    header = ["date", "time"][: len(cells[0])] if len(cells[0]) == 2 else ["time"]
    rows = [
        [*c, *(f"{v:.4f}" for v in row)] for c, row in zip(cells, truth.to_numpy(), strict=True)
    ]
    draft = Draft([*header, *NAMES[1:]], rows, done=[written.__name__.strip("_")])
    for change in rng.sample(_CHANGES, rng.randint(0, 3)):
        draft.done.append(change.__name__.strip("_"))
        change(rng, draft)
    options = ReadOptions(
        rng.choice(("open", "close")), rng.choice(("split", "bridge")),
        rng.choice(("error", "drop")), zone,
    )  # fmt: skip
    repeats_an_hour = zone != "UTC" or written is _named_zone
    return draft, options, not repeats_an_hour


def _epoch(unit: int) -> Callable[[datetime], list[str]]:
    def written(when: datetime) -> list[str]:
        return [str(int(when.timestamp()) * unit)]

    written.__name__ = f"epochs x {unit}"
    return written


def _strf(form: str, tz=UTC) -> Callable[[datetime], list[str]]:
    def written(when: datetime) -> list[str]:
        return when.astimezone(tz).strftime(form).split("|")

    written.__name__ = form
    return written


def _serial_days(when: datetime) -> list[str]:
    return [f"{25_569 + when.timestamp() / 86_400:.9f}"]


def _ticks(when: datetime) -> list[str]:
    return [str((int(when.timestamp()) + 62_135_596_800) * 10_000_000)]


def _float_epoch(when: datetime) -> list[str]:
    return [f"{when.timestamp():.1f}"]


def _rounded_epoch(when: datetime) -> list[str]:
    return [f"{when.timestamp() * 1000:.5E}"]


def _named_zone(when: datetime) -> list[str]:
    return [when.astimezone(BERLIN).strftime("%Y-%m-%d %H:%M:%S Europe/Berlin")]


_EAST = timezone(timedelta(hours=5, minutes=30))
_FORMS = [
    *((_epoch(unit), "UTC") for unit in (1, 1000, 10**6, 10**9)),
    *((form, "UTC") for form in (_serial_days, _ticks, _float_epoch, _rounded_epoch, _named_zone)),
    *(
        (_strf(form), "UTC")
        for form in (
            *("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M"),
            *("%Y.%m.%d %H:%M:%S", "%Y:%m:%d %H:%M:%S", "%d.%m.%Y %H:%M:%S.000", "%d/%m/%Y %H:%M"),
            *("%m/%d/%Y %I:%M %p", "%d-%b-%Y %H:%M", "%b %d, %Y %H:%M:%S", "%Y%m%d %H%M%S"),
            *("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%dT%H%M%SZ", "%m/%d/%y %H:%M", "%y-%m-%d %H:%M"),
            *("%Y-%m-%d|%H:%M:%S", "%Y%m%d|%H%M%S", "%Y.%m.%d|%H:%M", "%Y%m%d|%H%M"),
        )
    ),
    (_strf("%Y-%m-%dT%H:%M:%S%z", _EAST), "UTC"),
    (_strf("%d.%m.%Y %H:%M:%S GMT%z", _EAST), "UTC"),
    (_strf("%Y-%m-%d %H:%M:%S", BERLIN), "Europe/Berlin"),
    (_strf("%Y%m%d%H%M%S", BERLIN), "Europe/Berlin"),
]


def _other_mark(rng: random.Random, draft: Draft) -> None:
    draft.mark = rng.choice((";", "\t", "|"))
    if any(draft.mark in cell for row in draft.rows for cell in row):
        draft.mark = ","


def _windows_lines(rng: random.Random, draft: Draft) -> None:
    draft.end = "\r\n"


def _newest_first(rng: random.Random, draft: Draft) -> None:
    draft.rows.reverse()


def _shuffled(rng: random.Random, draft: Draft) -> None:
    rng.shuffle(draft.rows)


def _upper_names(rng: random.Random, draft: Draft) -> None:
    draft.header = [f"<{name.upper()}>" for name in draft.header]


def _more_columns(rng: random.Random, draft: Draft) -> None:
    place = rng.randint(0, len(draft.header))
    name = rng.choice(("index", "trades", "Volume MA", "note", "", "close", "time", "symbol"))
    draft.header.insert(place, name)
    value = rng.choice((str, lambda i: "x", lambda i: "1.5", lambda i: ""))
    for i, row in enumerate(draft.rows):
        row.insert(place, value(i))


def _other_order(rng: random.Random, draft: Draft) -> None:
    order = rng.sample(range(len(draft.header)), len(draft.header))
    draft.header = [draft.header[i] for i in order]
    draft.rows = [[row[i] for i in order] for row in draft.rows]


def _preamble(rng: random.Random, draft: Draft) -> None:
    draft.preamble = ["https://data.example", "exported, by hand"][: rng.randint(1, 2)]


def _no_header(rng: random.Random, draft: Draft) -> None:
    draft.header = []


def _repeated_rows(rng: random.Random, draft: Draft) -> None:
    draft.rows += [list(row) for row in rng.sample(draft.rows, 3)]


def _quoted_cells(rng: random.Random, draft: Draft) -> None:
    draft.rows = [[f'"{cell}"' for cell in row] for row in draft.rows]


_CHANGES = [
    *(_other_mark, _windows_lines, _newest_first, _shuffled, _upper_names, _more_columns),
    *(_other_order, _preamble, _no_header, _repeated_rows, _quoted_cells),
]


def _damage(rng: random.Random, draft: Draft) -> None:
    """Damage one or a few rows of a draft."""
    way = rng.choice(
        ("cell", "cell", "cell", "lost", "twice", "foreign", "short", "long", "column")
    )
    draft.done.append(way)
    place = rng.randrange(len(draft.rows))
    row = draft.rows[place]
    draft.n_damaged += 1
    if way == "cell":
        column = rng.randrange(len(row) or 1)
        row[column : column + 1] = [rng.choice(HOSTILE)]
        draft.n_damaged += 4  # a mark or a line end inside makes more rows of one
    elif way == "lost":
        del draft.rows[place]
    elif way == "twice":
        draft.rows.insert(place, [*row[:-1], "7.7777"])  # another volume
    elif way == "foreign":
        draft.rows.insert(place, [rng.choice(HOSTILE) for _ in row])
        draft.n_damaged += 10
    elif way == "short":
        del row[-1:]
    elif way == "long":
        row.append("1")
    else:
        column = rng.randrange(len(row) or 1)
        for other in draft.rows:
            if column < len(other):
                other[column] = rng.choice(HOSTILE)
        draft.n_damaged = 10**6


def _flipped(rng: random.Random, content: bytes, truth: pd.DataFrame):
    """Some bytes changed; each damages a row, or two where it was a line end."""
    changed = bytearray(content or b" ")
    n = rng.randint(1, 4)
    in_header = False
    for _ in range(n):
        place = rng.randrange(len(changed))
        in_header |= place < 400
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed), ".csv", None if in_header else 3 * n


def _cut(rng: random.Random, content: bytes, truth: pd.DataFrame):
    return content[: rng.randrange(len(content) + 1)], ".csv", 1


def _zipped(rng: random.Random, content: bytes, truth: pd.DataFrame):
    packed = bytearray(gzip.compress(content))
    if rng.random() < 0.7:
        place = rng.randrange(len(packed))
        packed[place] ^= 1 << rng.randrange(8)
        del packed[rng.randrange(20, len(packed) + 40) :]
    return bytes(packed), ".csv.gz", 0


def _as_parquet(rng: random.Random, content: bytes, truth: pd.DataFrame):
    """The truth as Parquet, with bytes changed: what they hold nobody can tell."""
    buffer = io.BytesIO()
    times = pd.DatetimeIndex(truth.index.to_numpy().view("M8[ns]")).as_unit(
        rng.choice(("ms", "ns"))
    )
    truth.assign(time=times).to_parquet(buffer)
    packed = bytearray(buffer.getvalue())
    for _ in range(rng.randint(0, 5)):
        packed[rng.randrange(len(packed))] = rng.randrange(256)
    return bytes(packed), ".parquet", None
