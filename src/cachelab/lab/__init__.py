"""A notebook's Lab, traffic for it, and the comparison of cache libraries."""

from cachelab.lab.lab import Lab, start

__all__ = ["Lab", "start"]
