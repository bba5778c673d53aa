"""Bundles for bug reports: what a maintainer needs from a node, without secrets.

The package returns values: texts without secrets, what was removed from them, and the bytes of an archive.
``genplug.cli.bundle`` collects the texts.
"""
