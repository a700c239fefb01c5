"""The publisher: keys, build, signatures of several holders, publication. It is never installed on a node."""
