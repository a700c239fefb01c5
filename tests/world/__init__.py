"""The publisher's side of a test: keys, a repository, and releases good and bad, made once and kept."""

from .world import Release, Wish, World, WorldError

__all__ = ["Release", "Wish", "World", "WorldError"]
