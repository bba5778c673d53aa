"""Facts about upgrades and restarts of this version of genplug and its chart.

docs/explanation/versioning.md, docs/how-to/upgrade.md and docs/internals/kubelet-contract.md have the details and the
sources.
"""

from genplug.record.facts import Known

SKEW = Known(
    {
        "kubernetes": "1.26 and later",
        "devicePluginApi": "v1beta1",
        "agents": "agents of one version serve nodes with kubelets of different versions",
        "configuration": "an agent rejects a key that it does not know, and keeps its last valid configuration",
        "chart": "the chart and its agents have the same version",
    },
    "docs/explanation/versioning.md",
)
"""The supported skew between genplug, the kubelet and the configuration."""

KUBELET_RESTART = Known(
    (
        "running containers keep their devices",
        "some kubelets of 1.25 to 1.27 reject running pods that use devices; drain the node before",
        "the agent registers every resource again within a second after the socket of the kubelet appears",
        "until then, the node has no allocatable devices, and a pod that requests a device is not admitted",
        "device IDs do not change, so the kubelet keeps its allocations",
    ),
    "docs/how-to/upgrade.md and docs/internals/kubelet-contract.md, section 3",
)
"""The effects on the node when the kubelet restarts."""

AGENT_RESTART = Known(
    (
        "running containers keep their devices",
        "the agent removes its sockets when it receives SIGTERM, and the kubelet marks its devices unhealthy",
        "usually 2 to 10 seconds later, the new agent has registered every resource",
        "a pod that is admitted in between fails with UnexpectedAdmissionError, and its controller creates another",
        "a container that restarts in between gets the devices of the response that the kubelet has cached",
        "with 'preStart', such a container waits for the new agent",
        "device IDs do not change, so pods keep what they have",
    ),
    "docs/how-to/upgrade.md and docs/internals/kubelet-contract.md, section 2",
)
"""The effects on the node when the agent restarts."""
