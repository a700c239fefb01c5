"""The local test bed: nodes that are containers with a real systemd, on a network of their own."""

from .command import BedError
from .fleet import Bed, Node, Plan

__all__ = ["Bed", "BedError", "Node", "Plan"]
