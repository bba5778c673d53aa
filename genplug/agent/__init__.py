"""The agent of a node. ``agent`` starts its tasks, which exchange frozen values.

``config_reloader`` reads the configuration, ``device_scanner`` scans for devices, ``reconciler`` combines both with the
results of probes, and ``kubelet_controller`` serves the result.
"""

from genplug.agent.agent import Agent
from genplug.agent.settings import Settings

__all__ = ["Agent", "Settings"]
