"""The page of a report: one file, with pictures, that a person reads in a browser without a network."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def render(report: Mapping[str, Any]) -> str:
    """Return the page of a report (`schemas/drill.schema.json`)."""
    return f"<!doctype html><title>{escape(report['id'])}</title><h1>{escape(report['outcome'])}</h1>"
