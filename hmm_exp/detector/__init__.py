"""The detector turns bars into filtered regimes: a table at once, or bar by bar.

regimes = detector.filter(bars)  # a table
stream = detector.stream()  # one bar after the other
regime = stream.update(bar)
"""

from hmm_exp.detector.detector import Detector
from hmm_exp.detector.model import StreamModel
from hmm_exp.detector.stream import Regime, Stream

__all__ = ["Detector", "Regime", "Stream", "StreamModel"]
