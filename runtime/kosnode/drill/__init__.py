"""Drills: a backup is restored elsewhere, proven, and its proof proven on copies damaged on purpose."""
