"""Policies, and the programs that violate them."""
