"""A progress line on a terminal."""

import sys
import time


class Progress:
    """A progress line on a terminal, rewritten in place and cleared at the end; none in a pipe.

    `unit` is what is counted.
    """

    def __init__(self, unit: str = "rows") -> None:
        self.unit = unit
        self.live = sys.stderr.isatty()
        self.began = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove the line, so that another can be printed."""
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, count: int, share: float) -> None:
        """Show how much is done, and the time left."""
        if self.live:
            left = (time.monotonic() - self.began) * (1 / max(share, 1e-9) - 1)
            text = f"\r\x1b[K{count:,} {self.unit}, {share:.0%}, {left:.0f} s left"
            print(text, end="", file=sys.stderr, flush=True)
