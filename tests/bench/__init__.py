"""Benchmarks: every figure that the README quotes, as a ratio against a named peer in the same run."""
