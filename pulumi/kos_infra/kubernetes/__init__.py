"""kOS units on a Kubernetes cluster, rendered from the same unit.yml files that nodes use."""
