"""The agent: the loop that holds the newest snapshot, decides what changed, and tells the endpoints.

``node`` follows the configuration's files and the hardware, ``kubelet`` follows the kubelet's directory and keeps one
endpoint per resource; ``agent`` runs the two side by side. They exchange frozen :class:`~genplug.agent.node.Snapshot`
values, in one direction.
"""

from genplug.agent.agent import Agent
from genplug.agent.settings import Settings

__all__ = ["Agent", "Settings"]
