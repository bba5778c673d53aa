"""A kubelet stand-in and a fake node, for our tests, for ``genplug demo``, and for the tests of other projects."""
