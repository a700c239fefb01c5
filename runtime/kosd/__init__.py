"""kosd, the reference runtime of a kOS release: watches a node's units and tells how they are."""
