"""Run the garbage collector less often: hundreds of thousands of objects stay anyway."""

import gc

_NEW_OBJECTS = 20_000  # between two looks at the youngest; 700 is Python's own


def collect_seldom() -> None:
    """Exempt all objects loaded so far, and collect new ones less often.

    A run makes a million short-lived objects, nearly all freed without the collector's help; with
    Python's own threshold a tenth of a sweep's time goes into looking at them.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
