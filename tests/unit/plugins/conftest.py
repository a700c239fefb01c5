"""Fixtures of the plugin tests."""

from action_world import instant

__all__ = ["instant"]
