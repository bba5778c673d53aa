"""Converts configurations of other device plugins into configurations of genplug.

The package reads texts and returns values; it touches neither the node nor the cluster. :mod:`genplug.convert.formats`
has the registry of the formats and the entry point.
"""
