"""Read numbers as times: epochs in four units, dates as digits, spreadsheet and .NET clocks.

A number is a time only inside the span in which bars exist: row numbers, prices and rounded numbers
are not. The whole column decides its form; only the unit of an epoch may change from row to row.
"""

from dataclasses import dataclass

import numpy as np

from hmm_exp.errors import DataError
from hmm_exp.market.zones import UNREADABLE

_SECOND = 1_000_000_000  # ns
_MINUTE, _HOUR, _DAY = 60 * _SECOND, 3600 * _SECOND, 86_400 * _SECOND
FIRST = -5_364_662_400 * _SECOND  # 1800-01-01
LAST = 4_102_444_800 * _SECOND  # 2100-01-01
FIRST_YEAR, LAST_YEAR = 1800, 2100
EPOCH_FIRST = 10**17  # ns, 1973-03-03: in every unit an epoch from here on has another size
_UNITS = (("s", _SECOND), ("ms", 1_000_000), ("us", 1_000), ("ns", 1))
_MOST = 0.9  # share of a column that must fit a form of digits
_LARGEST_HOLE = 366 * _DAY  # between epochs of before 1973
_ENOUGH = 25  # rows of which hardly all fit a date by chance
_ROUNDED = 1_000 * _SECOND  # a spreadsheet shows six or seven digits of an epoch in ms

# Digits of a date, and how many of them come after the day.
_DIGITS = {8: 0, 10: 2, 12: 4, 14: 6, 17: 9}


@dataclass(frozen=True)
class EpochUnit:
    """Numbers that count units since an origin."""

    name: str  # in words
    # `unit_ns`, `origin_ns`: length of a unit, and the time of number 0 since 1970, in nanoseconds.
    unit_ns: float
    origin_ns: int
    local: bool = False  # whether it counts by a local clock; the others count in UTC
    # `first_ns`, `end_ns`: the times that are believed, from the first up to the end.
    first_ns: int = EPOCH_FIRST
    end_ns: int = LAST

    def nanoseconds(self, numbers: np.ndarray, exact: np.ndarray | None) -> np.ndarray:
        """Times, shape (T,), to the nearest second where a unit is longer than that."""
        if exact is not None and self.unit_ns == int(self.unit_ns):
            origin = self.origin_ns // int(self.unit_ns)
            return (exact + origin) * int(self.unit_ns)
        seconds = np.rint(numbers * (self.unit_ns / _SECOND) + self.origin_ns / _SECOND)
        return seconds.astype(np.int64) * _SECOND

    def in_span(self, numbers: np.ndarray) -> np.ndarray:
        """Where a number is a time that is believed, shape (T,)."""
        low, high = self.first_ns - self.origin_ns, self.end_ns - self.origin_ns
        return (numbers >= low / self.unit_ns) & (numbers < high / self.unit_ns)


_TICKS = EpochUnit(".NET ticks", 100, -62_135_596_800 * _SECOND)
_FILE_TIMES = EpochUnit("Windows file times", 100, -11_644_473_600 * _SECOND)
_LIKE_NANOSECONDS = (_TICKS, _FILE_TIMES)  # of now they have the size of ns of 1990 and of 1974
_OTHER_CLOCKS = (
    EpochUnit(  # up to 2041: a larger number may be a modified Julian day of now
        "days of a spreadsheet", _DAY, -25_569 * _DAY, local=True, end_ns=(51_544 - 25_569) * _DAY
    ),
    *_LIKE_NANOSECONDS,
    EpochUnit(  # from 1990: Julian days and digits of a year and its day are smaller
        "minutes since 1970", _MINUTE, 0, first_ns=631_152_000 * _SECOND
    ),
)


@dataclass(frozen=True)
class NumberStamps:
    """Times read from numbers."""

    ns: np.ndarray  # nanoseconds since 1970, shape (T,), UNREADABLE where a number is no time
    local: bool = False  # whether they are times of a local clock; else they are UTC
    notes: tuple[str, ...] = ()  # what was done
    # Whether the form was decided by comparing rows, so that fewer rows could tell otherwise.
    needs_all: bool = False


def read_numbers(numbers: np.ndarray, exact: np.ndarray | None = None) -> NumberStamps:
    """Read numbers as times.

    `numbers`, shape (T,), are NaN where there is none; `exact` are the same as int64, where all are
    whole: 2^53 is too little for nanoseconds. Raises DataError when the numbers have lost digits.
    """
    present = numbers[np.isfinite(numbers)]
    if not len(present):
        return NumberStamps(np.full(len(numbers), UNREADABLE))
    if dates := _from_digits(numbers, exact, present):
        return dates
    epochs = _from_epochs(numbers, exact)
    read = epochs.ns != UNREADABLE
    if _is_another_date(present, epochs.ns[read]):
        return NumberStamps(np.full(len(numbers), UNREADABLE))
    alike = any(clock.in_span(present).mean() >= _MOST for clock in _LIKE_NANOSECONDS)
    if alike or not read.any():
        return _from_other_clocks(numbers, exact, epochs)
    _refuse_rounded(epochs.ns[read], present)
    return epochs


def is_bar_length(step_ns: int) -> bool:
    """Whether bars come in this length: seconds, minutes, hours, days, weeks, months."""
    units = (
        (_DAY, {1, 2, 3, 5, 7, 14, 28, 29, 30, 31, 90, 91, 92, 365, 366}),
        (_HOUR, {1, 2, 3, 4, 6, 8, 12}),
        (_MINUTE, {1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 45, 90}),
        (_SECOND, {1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30}),
    )
    return any(step_ns % unit == 0 and step_ns // unit in counts for unit, counts in units)


def most_common_step(ns: np.ndarray) -> int:
    """The most common difference of sorted times, 0 where there are fewer than two."""
    steps, counts = np.unique(np.diff(np.sort(ns)), return_counts=True)
    return int(steps[np.argmax(counts)]) if len(steps) else 0


def from_fields(
    year: np.ndarray, month: np.ndarray, day: np.ndarray, in_day_ns: np.ndarray
) -> np.ndarray:
    """Times from the fields of a calendar, shapes (T,), UNREADABLE where there is no such time.

    `in_day_ns` may be a whole day: 24:00 is the next midnight.
    """
    fits = (
        (year >= FIRST_YEAR)
        & (year < LAST_YEAR)
        & (month >= 1)
        & (month <= 12)
        & (day >= 1)
        & (day <= 31)
    )
    fits &= (in_day_ns >= 0) & (in_day_ns <= _DAY)
    year, month, day = (np.where(fits, part, 1) for part in (year - 1969, month, day))
    months = (12 * year + month - 13).astype("M8[M]")  # the parts are those of 1970-01-01 if bad
    first = months.astype("M8[D]").astype(np.int64)
    fits &= day <= (months + 1).astype("M8[D]").astype(np.int64) - first
    return np.where(fits, (first + day - 1) * _DAY + np.where(fits, in_day_ns, 0), UNREADABLE)


def _from_digits(
    numbers: np.ndarray, exact: np.ndarray | None, present: np.ndarray
) -> NumberStamps | None:
    """Times written as YYYYMMDD, with hours, minutes, seconds or more after it, or None."""
    usual = np.median(present)
    length = len(str(int(usual))) if 0 < usual < 1e18 else 0
    if length not in _DIGITS or not FIRST_YEAR <= usual // 10 ** (length - 4) < LAST_YEAR:
        return None
    if exact is None:
        numbers = np.where(np.abs(numbers) < 1e18, numbers, 0.0)  # NaN too
        exact = np.where(numbers % 1 == 0, numbers, 0).astype(np.int64)
    date, clock = np.divmod(exact, 10 ** _DIGITS[length])
    ns = from_fields(date // 10_000, date // 100 % 100, date % 100, _clock_of(clock, length))
    if (ns != UNREADABLE).sum() < _MOST * len(present):
        return None
    note = "dates written as " + "YYYYMMDDhhmmssSSS"[:length]
    return NumberStamps(ns, local=True, notes=(note,), needs_all=length > 8)


def _clock_of(digits: np.ndarray, length: int) -> np.ndarray:
    """Nanoseconds of a day from the digits after a date, -1 where they are no time, shape (T,)."""
    fraction = digits % 1000 if length == 17 else 0
    digits = digits // 1000 if length == 17 else digits * 10 ** (14 - min(length, 14))
    hour, minute, second = digits // 10_000, digits // 100 % 100, digits % 100
    in_day = (hour * 3600 + minute * 60 + second) * _SECOND + fraction * 1_000_000
    return np.where((hour < 24) & (minute < 60) & (second < 60), in_day, -1)


def _is_another_date(numbers: np.ndarray, ns: np.ndarray) -> bool:
    """Whether numbers are digits of a date in an order that is not read, such as YYMMDDhhmm.

    `ns` are the times of those that fit epochs. A few epochs of steady bars may fit such an order
    by chance; up to 2038 they stay epochs.
    """
    numbers = numbers[(numbers >= 0) & (numbers < 1e14)]
    if not len(ns) or len(numbers) < _ENOUGH or (numbers % 1).any():
        return False
    steps = np.unique(np.diff(np.sort(ns)))
    is_steady = len(steps) == 1 and is_bar_length(int(steps[0]))
    if is_steady and ns.max() < 2**31 * _SECOND:
        return False
    for length in (12, 14):  # of YYYYMMDD with hhmm, with hhmmss
        dates, clock = np.divmod(numbers.astype(np.int64), 10 ** _DIGITS[length])
        in_day = _clock_of(clock, length)
        for year, month, day in _other_orders(dates):
            if (from_fields(year, month, day, in_day) != UNREADABLE).mean() >= _MOST:
                return True
    return False


def _other_orders(dates: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
    """Year, month and day of digits by orders in which people write them, shapes (T,)."""
    a, b, c = dates // 10_000, dates // 100 % 100, dates % 100
    first, second, year = dates // 1_000_000, dates // 10_000 % 100, dates % 10_000
    of_year, none = dates % 1000, np.zeros_like(dates)
    is_day = (of_year >= 1) & (of_year <= 366)
    return (
        (2000 + a, b, c),
        (2000 + c, b, a),
        (2000 + c, a, b),
        (year, second, first),
        (year, first, second),
        (dates // 1000, none + 1, np.where(is_day, 1, 0)),
    )


def _from_epochs(numbers: np.ndarray, exact: np.ndarray | None) -> NumberStamps:
    """Epochs, the unit of each row by its size."""
    ns = np.full(len(numbers), UNREADABLE)
    used = []
    for unit, factor in _UNITS:
        rows = (numbers >= EPOCH_FIRST / factor) & (numbers < LAST / factor)
        if rows.any():
            used.append((unit, factor))
            ns[rows] = _scaled(numbers[rows], None if exact is None else exact[rows], factor)
    if len(used) == 1:
        _read_older(numbers, ns, used[0][1])
    note = f"epochs in {' and '.join(unit for unit, _ in used)}"
    return NumberStamps(ns, notes=(note,) if used else ())


def _scaled(numbers: np.ndarray, exact: np.ndarray | None, factor: int) -> np.ndarray:
    if exact is not None:
        return exact * factor
    whole = np.floor(numbers)
    return whole.astype(np.int64) * factor + np.rint((numbers - whole) * factor).astype(np.int64)


def _read_older(numbers: np.ndarray, ns: np.ndarray, factor: int) -> None:
    """Read epochs from 1800 to 1973 into `ns` where they lead to the others without a hole."""
    older = (ns == UNREADABLE) & (numbers >= FIRST / factor) & (numbers < EPOCH_FIRST / factor)
    if not older.any():
        return
    read = _scaled(numbers[older], None, factor)
    times = np.sort(np.append(read, ns[ns != UNREADABLE].min()))
    if np.diff(times).max() <= _LARGEST_HOLE:
        ns[older] = read


def _from_other_clocks(
    numbers: np.ndarray, exact: np.ndarray | None, epochs: NumberStamps
) -> NumberStamps:
    """Times of another program's clock, where bars come in a usual length by it."""
    as_epochs = most_common_step(epochs.ns[epochs.ns != UNREADABLE])
    if is_bar_length(as_epochs) and as_epochs >= _MINUTE:
        return epochs
    n_present = np.isfinite(numbers).sum()
    for clock in _OTHER_CLOCKS if n_present > 2 else ():
        rows = clock.in_span(numbers)
        if rows.sum() < _MOST * n_present:
            continue
        ns = np.full(len(numbers), UNREADABLE)
        ns[rows] = clock.nanoseconds(numbers[rows], None if exact is None else exact[rows])
        if is_bar_length(most_common_step(ns[rows])):
            return NumberStamps(ns, clock.local, (clock.name,), needs_all=True)
    return NumberStamps(np.full(len(numbers), UNREADABLE))


def _refuse_rounded(ns: np.ndarray, present: np.ndarray) -> None:
    """Raise DataError for epochs that a spreadsheet rounded: all are multiples of 1,000 seconds."""
    if len(ns) < 3 or (ns % _ROUNDED).any() or is_bar_length(most_common_step(ns)):
        return
    number, count = max(
        zip(*np.unique(present, return_counts=True), strict=True), key=lambda n: n[1]
    )
    raise DataError(
        f"the times have lost digits: {number:g} stands in {count} of {len(present)} rows and all "
        "are multiples of 1,000 seconds, as a spreadsheet rounds them; export the file again, with "
        "the times as text"
    )
