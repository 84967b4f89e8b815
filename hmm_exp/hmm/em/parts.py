"""Addresses of the parts of an EM iteration, which are compiled apart from the loop.

LLVM takes far longer for the iteration as one function, see `hmm_exp.compiling.part`.
"""

from typing import NamedTuple

from hmm_exp.compiling import address, layout
from hmm_exp.hmm.em import e_step
from hmm_exp.hmm.em.leap import plan, take
from hmm_exp.hmm.em.update import log_prior, update, whiten


class Parts(NamedTuple):
    """Addresses of the parts of an iteration, which are compiled apart from the loop."""

    filter: int
    smooth: int
    log_prior: int
    update: int
    whiten: int
    plan: int
    take: int


_known_parts: dict[tuple, Parts] = {}


def parts_for(rows, model, prior, floor, accelerate, buffers) -> Parts:
    """The parts for models of this type; those of leaps only if needed.

    The layout of all arrays that `em.run` makes itself follows from the type of the states.
    """
    key = accelerate, model.heavy_tailed, layout((rows, prior))
    if key not in _known_parts:
        _known_parts[key] = _compiled(rows, model, prior, floor, accelerate, buffers)
    return _known_parts[key]


def plan_for(model, prior, buffers) -> int:
    """Address of `plan` for models of this type."""
    return address(plan, model, model, buffers.stats, prior, buffers.leaps)


def _compiled(rows, model, prior, floor, accelerate, buffers) -> Parts:
    stats = buffers.stats
    sweep = (rows, model, buffers.forward, buffers.scratch)
    return Parts(
        filter=address(e_step.filter, 0, *sweep),
        smooth=address(e_step.smooth, 0, *sweep, stats),
        log_prior=address(log_prior, model, prior),
        update=address(update, model, stats, prior),
        whiten=address(whiten, model, floor, buffers.hits),
        plan=plan_for(model, prior, buffers) if accelerate else 0,
        take=address(take, model, prior, buffers.leaps) if accelerate else 0,
    )
