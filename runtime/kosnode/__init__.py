"""kosnode: the node engine of kOS Fleet (trust, fetch, slots, trial, units, health). No Ansible in it."""

__version__ = "1.0.0"
