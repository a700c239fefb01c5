"""A KairosChain node: what makes one of a host, upgrades it, looks whether it is well, and takes it away."""
