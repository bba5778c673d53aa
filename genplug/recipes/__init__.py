"""The configurations for kinds of hardware that ship with genplug, and the detection of those that match a node."""
