"""What a run does now, passed on: each stage as it begins and, while it is fitted, how EM gets on.

with Pulse(print) as progress:
    run(prepared, progress)
"""

import threading
from collections.abc import Callable
from types import TracebackType

from hmm_exp.hmm.climbs import under_way
from hmm_exp.tracking.live import PERIOD


class Pulse:
    """Tells what is being done; a thread looks at the climbs under way, which does not slow them.

    Parameters
    ----------
    tell
        Takes a few words, from either thread.
    watched
        Whether anybody wants to hear more than the stages.
    """

    def __init__(self, tell: Callable[[str], None], watched: bool = True) -> None:
        self._tell, self._watched = tell, watched
        self._stage = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hmm_exp.pulse", daemon=True)

    def __call__(self, stage: str) -> None:
        """A new piece of work starts."""
        self._stage = stage
        self._tell(stage)

    def __enter__(self) -> "Pulse":
        if self._watched:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._watched:
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(PERIOD):
            if climbs := under_way():
                self._tell(f"{self._stage}: {climbs[0]}")
