"""A kubelet stand-in and a fake node, for tests.

:mod:`genplug.testing.kubelet` and the pytest fixtures in :mod:`genplug.testing.plugin` are public: tests of any device
plugin can use them. :mod:`genplug.testing.dra` is public too, for tests of drivers of Dynamic Resource Allocation.
:mod:`genplug.testing.node` is for the tests and the demo of genplug.
"""
