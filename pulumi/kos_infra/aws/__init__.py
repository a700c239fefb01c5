"""Components and settings of the programs that make machines and clusters in AWS."""
