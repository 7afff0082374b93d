"""Drawings of a trace, a model or a verdict, and guesses made before an answer is shown."""

from cachelab.figures.figures import MARKS, PALETTE, Picture, Rich, lanes, sequence, show

__all__ = ["MARKS", "PALETTE", "Picture", "Rich", "lanes", "sequence", "show"]
