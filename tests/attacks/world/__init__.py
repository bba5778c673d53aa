"""Attacks by other processes on the node, by peers and clients, and by a system that fails."""
