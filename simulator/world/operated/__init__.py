"""A world that the operator's own planner runs: the same snapshots, the same plans, the same physics, in virtual time."""
