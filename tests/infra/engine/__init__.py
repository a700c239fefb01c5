"""The engine that users run, over clouds that are a folder: what it does with the project's Pulumi programs."""
