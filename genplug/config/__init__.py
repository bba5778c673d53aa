"""Reads configuration and policy files into the values of :mod:`genplug.spec`, with source locations for errors.

docs/reference/configuration.md describes the format. Nothing here knows about hardware or the kubelet.
"""
