"""Explorers: a model, its picture and sliders, with a reading in words and a question."""

from cachelab.widgets.explorer import Explorer
from cachelab.widgets.explorers import (
    early_refresh_explorer,
    eviction_explorer,
    jitter_explorer,
    staleness_explorer,
    ttl_explorer,
    worth_explorer,
    write_back_explorer,
)
from cachelab.widgets.tipping import StampedeExplorer, stampede_explorer

__all__ = [
    "Explorer",
    "StampedeExplorer",
    "early_refresh_explorer",
    "eviction_explorer",
    "jitter_explorer",
    "staleness_explorer",
    "stampede_explorer",
    "ttl_explorer",
    "worth_explorer",
    "write_back_explorer",
]
