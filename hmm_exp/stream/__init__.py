"""Bars as they come: one by one (`live`), from a pipe (`follow`), from long files (`files`).

>>> from hmm_exp.stream import Stream
>>> stream = Stream.load("stream.json")
>>> stream.update(bar)
"""

from hmm_exp.detector.model import StreamModel
from hmm_exp.detector.stream import Regime, Stream

__all__ = ["Regime", "Stream", "StreamModel"]
