"""The kinds of steps."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from genplug.testing.soak.actions import calls, config_files, devices, kubelet, probes, storage, system
from genplug.testing.soak.steps import Action

ACTIONS: Final[Mapping[str, Action]] = MappingProxyType(
    {
        action.kind: action
        for module in (devices, probes, config_files, kubelet, calls, storage, system)
        for action in module.ACTIONS
    }
)
"""All kinds of steps by name."""
