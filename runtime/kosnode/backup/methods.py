"""Which class implements which method; a method's module is imported when a source asks for it."""

from __future__ import annotations

from importlib import import_module

from .config import SourceSpec
from .places import Places
from .source import Source

_CLASSES = {
    "node": ("node", "Node"),
    "tree": ("tree", "Tree"),
    "sqlite": ("sqlite", "Sqlite"),
    "postgres": ("postgres", "Postgres"),
    "kairoschain": ("kairoschain", "KairosChain"),
}


def make(spec: SourceSpec, places: Places) -> Source:
    """Return the source that a row of the table describes."""
    module, name = _CLASSES[spec.method]
    made = getattr(import_module(f".{module}", __package__), name)(spec, places)
    assert isinstance(made, Source), "every method implements the interface"
    return made
