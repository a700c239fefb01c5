"""What the engine that users run does with our Pulumi programs, over clouds that are a folder."""
