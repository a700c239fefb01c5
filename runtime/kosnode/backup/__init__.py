"""Backups that count once a drill has restored them: sources, restic, manifest, witness, runs, retention."""
