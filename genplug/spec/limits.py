"""The limits on what a configuration, a policy and the hardware of a node may make genplug do.

Each limit is checked where the bounded thing is made, before the cost of making it is paid. The text of the error
contains the limit.
"""

MAX_FILE_BYTES = 1 << 20
"""Bytes of a configuration file or policy: the largest ConfigMap that Kubernetes accepts."""
