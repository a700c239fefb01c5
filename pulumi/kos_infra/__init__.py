"""What the Pulumi programs of kOS Fleet are made of; each program is a folder beside this package."""
