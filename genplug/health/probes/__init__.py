"""Probes: one module for each kind. Each looks at one device and says well, not well, or that it could not look."""
