"""Times written as text: a small grammar of the dates and clocks that files hold.

A text is a date, then maybe a clock, AM or PM, and a zone. What the grammar does not know is
refused: a free parser would invent what is missing.

>>> read_texts(pa.array(["31.12.2023 23:00:00.000 GMT+0100"])).ns
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hmm_exp.errors import DataError
from hmm_exp.market.number_stamps import from_fields
from hmm_exp.market.zones import UNREADABLE, in_utc

_SECOND = 1_000_000_000  # ns
_WEEKDAY = r"(?:(?:[Mm]on|[Tt]ue|[Ww]ed|[Tt]hu|[Ff]ri|[Ss]at|[Ss]un)[a-z]*\.?,? +)?"
_MONTH = r"(?P<month>[A-Za-z]{3,9})\.?"
_DATES = {  # in the order in which they are tried
    "year first": r"(?P<year>\d{4})[-/.:](?P<month>\d{1,2})[-/.:](?P<day>\d{1,2})",
    "digits": r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})",
    "year last": r"(?P<a>\d{1,2})(?P<mark>[-/.])(?P<b>\d{1,2})[-/.](?P<c>\d{4})",
    "short year": r"(?P<a>\d{1,2})(?P<mark>[-/.])(?P<b>\d{1,2})[-/.](?P<c>\d{2})",
    "day, month": rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[-/. ]?{_MONTH}[-/,. ]*(?P<year>\d{{4}})",
    "month, day": rf"{_MONTH}[- ]+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[-, ]+(?P<year>\d{{4}})",
    "year, month": rf"(?P<year>\d{{4}})[-/. ]{_MONTH}[-/. ](?P<day>\d{{1,2}})",
    "day, month, short year": rf"(?P<day>\d{{1,2}})[-/. ]{_MONTH}[-/. ](?P<year>\d{{2}})",
}
_CLOCK = (
    r"(?:(?P<compact>\d{4}(?:\d{2}(?:\d{3})?)?)|"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    r"(?:[ -]?(?P<half>[AaPp])\.?[Mm]\b\.?)?)"
)
_OFFSET = r"[+-]\d{1,2}(?::?\d{2})?"
_NAMED = r"(?: *\([A-Za-z ]*\))?"  # as in "GMT+0100 (Central European Time)"
_ZONE = rf"(?: ?(?P<zone>[A-Za-z]+(?:/[A-Za-z_-]+)*(?: ?{_OFFSET})?|{_OFFSET}){_NAMED})?"
_MARKS = r"(?:[Tt_]|,? +|,)"  # between date and clock


_HYPHEN = {"digits": "|-"}  # after another date a hyphen would be a zone's sign
_PATTERNS = {
    name: rf"^{_WEEKDAY}{date}(?:(?:{_MARKS}{_HYPHEN.get(name, '')}){_CLOCK})?{_ZONE}$"
    for name, date in _DATES.items()
}
_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september",
           "october", "november", "december")  # fmt: skip

_DECIDING = 0.01  # share of rows that must not fit another order of day, month and year
_DAMAGED = 2  # changes of the year that a damaged row makes


@dataclass
class TextStamps:
    """Times out of texts."""

    # Nanoseconds since 1970, shape (T,), UNREADABLE where a text is no time. UTC where the text
    # names a zone.
    ns: np.ndarray
    local: np.ndarray  # where it names none, shape (T,)
    forms: list[str] = field(default_factory=list)  # names of the forms of dates that were found
    # Texts that stand where a zone would, and are none.
    unknown_zones: list[str] = field(default_factory=list)

    @property
    def needs_all(self) -> bool:
        """Whether the order of day and month was decided by comparing rows."""
        return bool({"year last", "short year", "months"} & set(self.forms))


def read_texts(texts: pa.Array) -> TextStamps:
    """Read texts as times.

    `texts`, shape (T,), have no blanks around them and are null where there is none. Raises
    DataError when day, month and year cannot be told apart.
    """
    read = TextStamps(np.full(len(texts), UNREADABLE), np.ones(len(texts), dtype=bool))
    left = np.arange(len(texts))
    for name, pattern in _PATTERNS.items():
        found = pc.extract_regex(texts.take(pa.array(left)), pattern)
        matched = pc.is_valid(found).to_numpy(zero_copy_only=False)
        if not matched.any():
            continue
        read.forms.append(name)
        _read_form(found.filter(pa.array(matched)), left[matched], read, texts)
        left = left[~matched]
        if not len(left):
            break
    if not read.forms:
        _read_months(texts, read)
    return read


def _read_months(texts: pa.Array, read: TextStamps) -> None:
    """Read texts into `read` where all are months such as "2024-01"; each stands for its first."""
    found = pc.extract_regex(texts, r"^(?P<year>\d{4})[-/.](?P<month>\d{2})$")
    if len(texts) and not found.null_count:
        year, month = (_numbers(pc.struct_field(found, name)) for name in ("year", "month"))
        read.ns = from_fields(year, month, np.ones_like(year), np.zeros_like(year))
        read.forms.append("months")


def _read_form(found: pa.StructArray, rows: np.ndarray, read: TextStamps, texts: pa.Array) -> None:
    """Write the times of the matches `found` of one form into `rows` of `read`."""
    parts = {part.name: pc.struct_field(found, part.name) for part in found.type}
    if "a" in parts:
        day, month, year = _told_apart(parts, texts.take(pa.array(rows)))
    else:
        day, month, year = _numbers(parts["day"]), _month(parts["month"]), _year(parts["year"])
    local = from_fields(year, month, day, _in_day(parts))
    zones = parts["zone"].dictionary_encode()
    names, of_row = zones.dictionary.to_pylist(), zones.indices.to_numpy(zero_copy_only=False)
    named = np.array([bool(name) for name in names])[of_row]
    read.local[rows] = ~named
    ns = in_utc(local, [name or "UTC" for name in names], of_row)
    unknown = named & (ns == UNREADABLE) & (local != UNREADABLE)
    read.unknown_zones += [names[place] for place in np.unique(of_row[unknown])]
    read.ns[rows] = ns


def _numbers(part: pa.Array) -> np.ndarray:
    """Digits as int64, 0 where there are none, shape (T,)."""
    return pc.cast(pc.if_else(pc.equal(part, ""), "0", part), pa.int64()).to_numpy()


def _month(part: pa.Array) -> np.ndarray:
    """Months by number or English name, 0 for another word, shape (T,)."""
    if pc.all(pc.utf8_is_decimal(part)).as_py():
        return _numbers(part)
    words = part.dictionary_encode()
    numbers = np.array([_month_of(word) for word in words.dictionary.to_pylist()])
    return numbers[words.indices.to_numpy(zero_copy_only=False)]


def _month_of(word: str) -> int:
    """Number of an English month, whole or by its first three letters ("Sept" too), else 0."""
    word = word.lower()
    for number, month in enumerate(_MONTHS, start=1):
        if word in (month, month[:3]) or (number == 9 and word == "sept"):
            return number
    return 0


def _year(part: pa.Array) -> np.ndarray:
    """Years; one of two digits is of 1970 to 2069, shape (T,)."""
    year = _numbers(part)
    if pc.max(pc.utf8_length(part)).as_py() > 2:
        return year
    return year + np.where(year < 70, 2000, 1900)


def _in_day(parts: dict[str, pa.Array]) -> np.ndarray:
    """Nanoseconds of the day from the parts of a clock, -1 where there is no such time."""
    compact = pc.utf8_rpad(parts["compact"], 9, "0")
    hour, minute, second = (
        _numbers(parts[name]) + _numbers(pc.utf8_slice_codeunits(compact, place, place + 2))
        for place, name in ((0, "hour"), (2, "minute"), (4, "second"))
    )
    thousandths = _numbers(pc.utf8_slice_codeunits(compact, 6))
    fraction = _numbers(pc.utf8_rpad(parts["fraction"], 9, "0")) + 1_000_000 * thousandths
    half = pc.utf8_lower(parts["half"])
    is_half = pc.not_equal(half, "").to_numpy(zero_copy_only=False)
    if is_half.any():
        afternoon = pc.equal(half, "p").to_numpy(zero_copy_only=False)
        fits = ~is_half | ((hour >= 1) & (hour <= 12))
        hour = np.where(is_half, hour % 12 + 12 * afternoon, hour)
        hour = np.where(fits, hour, -1)
    in_day = (hour * 3600 + minute * 60 + second) * _SECOND + fraction
    last = (hour == 24) & (minute == 0) & (second == 0) & (fraction == 0)
    fits = (hour >= 0) & (hour < 24) & (minute < 60) & (second < 60)
    return np.where(fits | last, in_day, -1)


def _told_apart(
    parts: dict[str, pa.Array], texts: pa.Array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Day, month and year of dates in numbers, by the one order that fits every row."""
    fields = [_numbers(parts[name]) for name in "abc"]
    has_century = pc.max(pc.utf8_length(parts["c"])).as_py() == 4
    dotted = pc.all(pc.equal(parts["mark"], ".")).as_py()  # only ever written day first
    orders = ["dmy"] + ["mdy"] * (not dotted) + ["ymd"] * (not has_century)
    readings = [_DateOrder.of(fields, order, has_century) for order in orders]
    best = max(readings, key=lambda reading: reading.n_dates)
    if best.n_dates <= 0:
        return fields[0], fields[1], np.zeros_like(fields[2])
    close = best.n_dates - max(1.0, _DECIDING * len(texts))
    if any(other.n_dates > close and other.differs_from(best) for other in readings):
        example = texts[int(np.argmax(fields[0] != fields[1]))].as_py()
        fields_in_words = "day and month" if has_century else "day, month and year"
        raise DataError(
            f"{fields_in_words} cannot be told apart in dates like {example!r}; "
            "write them as YYYY-MM-DD"
        )
    return best.day, best.month, best.year


@dataclass(frozen=True)
class _DateOrder:
    """Dates read in one order of their fields."""

    day: np.ndarray  # shape (T,)
    month: np.ndarray  # shape (T,)
    year: np.ndarray  # shape (T,)
    # How many of them are dates; -1 where years of two digits change more often from row to row
    # than month and day, as they never do in time.
    n_dates: int

    @classmethod
    def of(cls, fields: list[np.ndarray], order: str, has_century: bool) -> "_DateOrder":
        """Read fields (T,) by an order such as "dmy"."""
        day, month, year = (fields[order.index(part)] for part in "dmy")
        if not has_century:
            year = year + np.where(year < 70, 2000, 1900)
        dates = from_fields(year, month, day, np.zeros(len(day), dtype=np.int64))
        n_dates = int((dates != UNREADABLE).sum())
        changes = [np.count_nonzero(np.diff(part)) for part in (year, month, day)]
        is_slow = has_century or changes[0] <= max(changes[1:]) + _DAMAGED
        return cls(day, month, year, n_dates if is_slow else -1)

    def differs_from(self, other: "_DateOrder") -> bool:
        """Whether any date is another."""
        pairs = ((self.day, other.day), (self.month, other.month), (self.year, other.year))
        return not all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def is_number(texts: pa.Array) -> np.ndarray:
    """Where a text is a plain number, shape (T,)."""
    matched = pc.match_substring_regex(texts, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$")
    return pc.fill_null(matched, False).to_numpy(zero_copy_only=False)
