"""Trials of Dynamic Resource Allocation (DRA) on a real cluster: many repeats of restarts, outages and migrations."""
