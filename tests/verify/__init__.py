"""What Molecule scenarios verify, on the machines and from the controller."""
