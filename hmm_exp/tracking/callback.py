"""What Hydra calls around a sweep. Bad settings are refused before anything heavy is imported."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hmm_exp.config import Config, composition_error
from hmm_exp.errors import HmmExpError
from hmm_exp.tracking.preflight import plan_sweep

FAILED, BAD_INPUT = 1, 2


class SweepCallback(Callback):
    """Opens a sweep and closes it; a single run passes through untouched."""

    def __init__(self) -> None:
        self.settings: Config | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check every cell's settings, open the parent run and tell the cells about it."""
        with _exits_with(BAD_INPUT):
            plan = plan_sweep(config)
            from hmm_exp.tracking.sweep import open_sweep  # MLflow and numba, now there is work

            self.settings = open_sweep(config, plan)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the leaderboard, choose, ask the gate, promote; exit non-zero on any failure."""
        assert self.settings is not None
        from hmm_exp.tracking.sweep import close_sweep

        with _exits_with(FAILED):
            if not close_sweep(self.settings):
                raise SystemExit(FAILED)


@contextmanager
def _exits_with(status: int) -> Iterator[None]:
    """Leave the program on an error: Hydra turns a callback's into a warning and goes on."""
    try:
        yield
    except (HmmExpError, HydraException, OmegaConfBaseException) as error:
        line = str(error) if isinstance(error, HmmExpError) else composition_error(error)
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(status) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(status) from None
