"""Load damaged copies of stored detectors and stream states; all must be refused with one line.

    python benchmarks/damage.py --cases 1000

Each copy has one fault, in its bytes or in its JSON. Asked: no copy with another content is
accepted, and none leads to anything but a `ModelError` of one line. `damaged` is for others too.
"""

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hmm_exp.errors import HmmExpError

STRANGE = (
    *(None, True, False, 0, -1, 1, 2, 7, 0.5, 1.5, -0.25, 1e-320, 1e-9, 1e9, 1e308, -1e308),
    *(float("nan"), float("inf"), -float("inf"), 2**31, 2**63, -(2**63), 10**25, 10**400),
    *("", "x", "nan", "open", "bridge", "UTC", "\ud800", "\0", "\x1b[31m", "é" * 2000, "1.5"),
    *([], {}, [[]], [None], [1, "2"], [0.5, 0.5], [1.0, 0.0], [[1.0]], {"a": 1}, [1e308] * 3),
)  # values that stand in place of others


def damaged(good: bytes, chance: random.Random) -> bytes:
    """Copy of a JSON document with one fault in its bytes or in its values."""
    if chance.random() < 0.5:
        return chance.choice(BYTES)(good, chance)
    content = changed(json.loads(good), chance)
    return json.dumps(content, indent=1).encode()


def changed(good: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Copy of a JSON object with one value somewhere in it taken away, replaced or moved."""
    content = json.loads(json.dumps(good))
    inside, place = chance.choice(_places(content))
    kind = chance.choice(("drop", "replace", "replace", "scale", "rename", "longer", "deeper"))
    value = inside.pop(place)
    if kind == "drop":
        return content
    if kind == "replace":
        value = chance.choice(STRANGE)
    elif kind == "scale" and isinstance(value, int | float):
        value *= chance.choice((-1, 0, 0.5, 1.001, 2, 1e6))
    elif kind == "longer" and isinstance(value, list | str):
        value = value * 2
    elif kind == "deeper":
        for _ in range(chance.choice((1, 2, 30, 500))):
            value = [value]
    if isinstance(inside, list):
        inside.insert(place, value)
    else:
        inside[f"{place}2" if kind == "rename" else place] = value
    return content if content != good else changed(good, chance)


def flipped(good: bytes, chance: random.Random) -> bytes:
    """One to three bytes are others."""
    raw = bytearray(good)
    for _ in range(chance.randint(1, 3)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)


def bit_flipped(good: bytes, chance: random.Random) -> bytes:
    """One bit is another, as by a bad disk."""
    raw = bytearray(good)
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    return bytes(raw)


def digit_changed(good: bytes, chance: random.Random) -> bytes:
    """One digit is another: still JSON."""
    raw = bytearray(good)
    places = [i for i, byte in enumerate(raw) if 48 <= byte <= 57]
    raw[chance.choice(places)] = 48 + chance.randrange(10)
    return bytes(raw)


def cut(good: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return good[: chance.randrange(len(good))]


def holed(good: bytes, chance: random.Random) -> bytes:
    """A stretch is missing, there twice, or zeros."""
    start = chance.randrange(len(good))
    end = start + chance.randint(1, 200)
    middle = chance.choice((b"", good[start:end] * 2, b"\0" * (end - start)))
    return good[:start] + middle + good[end:]


def swapped(good: bytes, chance: random.Random) -> bytes:
    """Two lines stand in each other's place."""
    lines = good.split(b"\n")
    i, j = (chance.randrange(len(lines)) for _ in range(2))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def wrapped(good: bytes, chance: random.Random) -> bytes:
    """Something stands before or after the content."""
    things = (
        b"\xef\xbb\xbf",
        b"[",
        b"\xff\xfe",
        b"\x80\x04",
        b"PK\x03\x04",
        b"\0",
        b"{}",
        b"x" * 99,
    )
    before, after = chance.sample((*things, b"", b""), 2)
    return before + good + after


BYTES = (flipped, bit_flipped, digit_changed, cut, holed, swapped, wrapped)


def judge(
    path: Path,
    load: Callable[[Path], Any],
    content_of: Callable[[Any], Any],
    n_cases: int,
    seed: int = 0,
) -> tuple[Counter[str], list[str]]:
    """Load damaged copies of a file.

    Parameters
    ----------
    path
        The good file; the copies are written in its place, and it is restored.
    load, content_of
        Reading a file, and what it holds for comparison.
    n_cases, seed
        How many copies; which ones.

    Returns
    -------
    Counter
        How many copies were "refused", the "same" in content, "accepted" with another content,
        a "traceback" or refused in "many lines".
    list
        The faults of the last three kinds.
    """
    good, chance = path.read_bytes(), random.Random(seed)
    wanted = json.dumps(content_of(load(path)))
    outcomes: Counter[str] = Counter()
    faults = []
    for case in range(n_cases):
        path.write_bytes(damaged(good, chance))
        try:
            same = json.dumps(content_of(load(path))) == wanted
            outcome = "same" if same else "accepted"
        except HmmExpError as error:
            outcome = "refused" if str(error).isprintable() else f"many lines: {error}"
        except Exception as error:
            outcome = f"traceback: {error!r}"
        outcomes[outcome.partition(":")[0]] += 1
        if outcome not in ("same", "refused"):
            faults.append(f"case {case}: {outcome[:200]}")
    path.write_bytes(good)
    return outcomes, faults


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON value: the object or list that holds it, and its key or index."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    inner = [value[key] for key in keys if isinstance(value[key], dict | list)]
    return [(value, key) for key in keys] + [place for each in inner for place in _places(each)]


def main() -> None:
    """Measure and print."""
    from benchmarks.stream import four_states
    from hmm_exp.detector import Stream
    from hmm_exp.detector.detector import Detector
    from hmm_exp.features.recipe import Recipe
    from hmm_exp.market.synthetic import make_market

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    detector = four_states(Recipe.of_set("v1v2", ["1H", "4H"]))
    with tempfile.TemporaryDirectory() as folder:
        file, state = Path(folder) / "detector.json", Path(folder) / "stream.json"
        detector.save(file)
        detector.stream(make_market(n_bars=2000)).save(state)
        for path, load, content_of in (
            (file, Detector.load, Detector.to_dict),
            (state, Stream.load, Stream.to_dict),
        ):
            outcomes, faults = judge(path, load, content_of, args.cases, args.seed)
            counts = ", ".join(f"{n:,} {name}" for name, n in sorted(outcomes.items()))
            print(f"{path.name}: {args.cases:,} damaged copies: {counts}")
            print(*faults[:20], sep="\n", end="\n" if faults else "")


if __name__ == "__main__":
    main()
