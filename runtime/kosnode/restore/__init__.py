"""From a snapshot to a proven directory, and from there by a swap to live data."""
