"""Tests of backup and restore with real programs, as root, on loopback and in temporary folders alone."""
