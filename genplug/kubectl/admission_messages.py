"""The texts with which the kubelet and genplug refuse a pod or a container, with their meaning and what to do.

Sources: k8s.io/kubernetes, pkg/kubelet: cm/devicemanager/manager.go and endpoint.go, cm/admission/errors.go,
lifecycle/predicate.go, cm/topologymanager, cm/cpumanager, cm/memorymanager, eviction, sysctl, nodeshutdown (versions
1.30, 1.34 and 1.37), and :mod:`genplug.allocation` for the texts of genplug.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

UNEXPECTED = "UnexpectedAdmissionError"
ADMISSION_REASONS = frozenset(
    {
        UNEXPECTED,
        "TopologyAffinityError",
        "SMTAlignmentError",
        "EmptyPodSharedPoolError",
        "NodeAffinity",
        "NodeName",
        "NodePorts",
        "TaintToleration",
        "NodeShutdown",
        "SysctlForbidden",
        "AppArmor",
        "InvalidNodeInfo",
        "UnknownReason",
        "UnexpectedPredicateFailureType",
        "PodOSNotSupported",
        "PodOSSelectorNodeLabelDoesNotMatch",
        "SupplementalGroupsPolicyNotSupported",
        "PodLevelResourcesNotSupported",
        "InitContainerRestartPolicyForbidden",
    }
)
"""Values of ``status.reason`` of a pod that the kubelet refused, apart from ``OutOfX`` and ``Evicted``."""
OUT_OF = "OutOf"
"""Start of the reason of a pod for whose resource the node has too little."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A text of the kubelet or of genplug: the groups of the pattern can be used in the other texts."""

    cause: str
    pattern: str
    explanation: str
    actions: tuple[str, ...]
    reason: str = ""
    """A pattern for ``status.reason``, or an empty text for any reason."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The meaning of a text. ``resource`` is the resource in the text, or an empty text."""

    cause: str
    explanation: str
    actions: tuple[str, ...]
    resource: str = ""


_MAX_CHARACTERS = 8192
"""Characters of a message that are searched: genplug limits its texts, and other device plugins need not."""
_RPC = r"rpc error: code = {} desc = "
_RECREATE = "delete the pod; if it has a controller, the controller has created another"
_ONCE = "nothing, if it happened once: the controller of the pod creates another"

_GENPLUG_RULES = (
    Rule(
        "limitPerContainer",
        r"(?P<resource>\S+) cannot be allocated to a container: it requests (?P<requested>\d+), and "
        r"share\.maxPerContainer is (?P<limit>\d+)(?: \((?P<location>.*?)\))?",
        "genplug refused: a container requests {requested} {resource}, and share.maxPerContainer of the configuration "
        "permits {limit} ({location}).",
        ("request at most {limit} {resource} in a container", "change share.maxPerContainer in the configuration"),
    ),
    Rule(
        "sameDevice",
        r"(?P<resource>\S+) cannot be allocated to a container: (?P<ids>\S+ and \S+) are the same device",
        "genplug refused: the kubelet chose {ids}, which are shares of the same device, and share.distinct is true.",
        (
            "request fewer {resource} in a container",
            "set preferredAllocation in the configuration, so that the kubelet chooses shares of different devices",
        ),
    ),
    Rule(
        "mountSourceMissing",
        r"(?P<resource>\S+) device (?P<device>\S+) cannot be allocated to a container: the mount source "
        r"(?P<path>\S+) (?P<why>.*)",
        "genplug refused: the source {path} of a mount for {resource} device {device} {why}.",
        (
            "create {path} on the node, or start the program that creates it",
            "set optional: true in the mount of the configuration if containers can run without it",
            "if {path} exists on the node, add its directory to daemonset.hostMounts",
        ),
    ),
    Rule(
        "deviceReplaced",
        r"(?P<resource>\S+) device (?P<device>\S+) cannot be allocated to a container: (?P<path>\S+) is now "
        r"(?P<why>.*)",
        "genplug refused: {path} of {resource} device {device} is another device than when it was found: it is now "
        "{why}.",
        (_ONCE, "use a glob over stable names, for example /dev/serial/by-id/*"),
    ),
    Rule(
        "samePath",
        r"(?P<resource>\S+) devices? .* cannot be allocated to a container: .*(?:both map to|both mounted at) "
        r"(?P<path>\S+)",
        "genplug refused: two devices of the container have the same path {path} in it.",
        ("request 1 {resource} in a container", "make the container path in the configuration a template"),
    ),
    Rule(
        "policy",
        r"desc = (?P<resource>[^\s:]+)(?: device \S+)?(?: cannot be allocated to a container)?: (?P<what>.*?) is "
        r"(?P<why>refused by '[^']*' of .*)",
        "genplug refused: {what} is {why}.",
        ("ask the administrator of the nodes to permit it in the policy", "remove it from the configuration"),
    ),
    Rule(
        "deviceGone",
        r"(?P<resource>\S+) device (?P<device>\S+) cannot be allocated to a container: (?P<path>/\S+) (?P<why>.*)",
        "genplug refused: {resource} device {device} is not usable: {path} {why}.",
        (
            "connect the device or load its driver; it becomes healthy under the same ID",
            "nothing, if it happened once: the device left after the kubelet had chosen it",
        ),
    ),
    Rule(
        "unknownDevice",
        r"(?P<resource>\S+) has no device '?(?P<device>[^\s']+)'? on this node",
        "The kubelet chose {resource} device {device}, which the agent has removed in the meantime.",
        (_ONCE, "see which devices the agent has: genplug status -o wide"),
    ),
    Rule(
        "genplugRefused",
        r"(?P<resource>\S+) (?:device \S+ )?cannot be allocated to a container: (?P<why>.*)",
        "genplug refused: {resource} cannot be allocated: {why}.",
        ("correct what the text names, in the configuration or on the node", _RECREATE),
    ),
)

_KUBELET_RULES = (
    Rule(
        "notEnoughDevices",
        r"requested number of devices unavailable for (?P<resource>\S+)\. Requested: (?P<requested>\d+), Available: "
        r"(?P<available>\d+)",
        "When the pod arrived on the node, {available} of the {requested} requested {resource} were available: devices "
        "became unhealthy or another pod received them after the scheduler had chosen the node, or the pod names its "
        "node and bypasses the scheduler.",
        (
            _ONCE,
            "remove nodeName from the pod if it has one, so that the scheduler chooses a node",
            "see which devices are unhealthy: kubectl genplug status -o wide",
        ),
    ),
    Rule(
        "noHealthyDevices",
        r"no healthy devices present; cannot allocate unhealthy devices (?P<resource>\S+)",
        "The kubelet knows {resource}, and no device of it is healthy: all devices failed, or the agent does not run.",
        ("check that the agent of the node runs: kubectl genplug status", "repair the devices, then delete the pod"),
    ),
    Rule(
        "previousDevicesUnhealthy",
        r"previously allocated devices are no longer healthy; cannot allocate unhealthy devices (?P<resource>\S+)",
        "The kubelet restarted and admits the pod again, and a {resource} device that the pod held is unhealthy or "
        "gone.",
        ("repair the device", _RECREATE),
    ),
    Rule(
        "unregistered",
        r"can(?:no|')t allocate unregistered device (?P<resource>\S+)",
        "No device plugin has registered {resource} since the kubelet started.",
        (
            "check that the agent of the node runs and has {resource}: kubectl genplug status",
            _RECREATE,
        ),
    ),
    Rule(
        "agentEnded",
        _RPC.format("(?:Unavailable|Canceled)") + r"(?P<why>.*?)(?:, which is unexpected)?$",
        "The device plugin ended during the request: {why}.",
        (_ONCE, "check the restarts of the agent: kubectl get pods --namespace genplug -o wide"),
    ),
    Rule(
        "noResponse",
        r"no containers return in allocation response",
        "The device plugin answered without devices. genplug never does, so another device plugin serves the resource.",
        ("remove one of the two device plugins from the node",),
    ),
    Rule(
        "preferredAllocation",
        r"device plugin GetPreferredAllocation rpc failed with err: (?P<why>.*?)(?:, which is unexpected)?$",
        "The device plugin did not answer which devices to prefer: {why}. genplug never returns an error there, so the "
        "agent ended, or another device plugin serves the resource.",
        (_ONCE, "check the restarts of the agent: kubectl get pods --namespace genplug -o wide"),
    ),
    Rule(
        "endpointStopped",
        r"endpoint .* has been stopped",
        "The connection of the device plugin to the kubelet ended less than five minutes ago.",
        ("wait until the agent has registered again: kubectl genplug status", _RECREATE),
    ),
    Rule(
        "unknownPlugin",
        r"unknown Device Plugin (?P<resource>\S+?)(?:, which is unexpected)?$",
        "The kubelet has devices of {resource} and no device plugin for them.",
        ("check that the agent of the node runs and has {resource}: kubectl genplug status", _RECREATE),
    ),
    Rule(
        "checkpoint",
        r'failed to write checkpoint file "(?P<file>[^"]*)": (?P<why>.*?)(?:, which is unexpected)?$',
        "The kubelet cannot write {file}, in which it records the devices of pods: {why}.",
        ("free space on the disk with /var/lib/kubelet, or make it writable", _RECREATE),
    ),
    Rule(
        "changedRequest",
        r'changed request for resource "(?P<resource>\S+)" from (?P<old>\d+) to (?P<new>\d+)',
        "A pod with the same UID requests another number of {resource}: {new} instead of {old}. A static pod was "
        "edited.",
        ("delete the pod, or rename the static pod",),
    ),
    Rule(
        "lessThanRequired",
        r"unexpectedly allocated less resources than required\. Requested: (?P<requested>\d+), Got: (?P<got>\d+)",
        "The kubelet's own lists of the devices of the pod are inconsistent: it found {got} of {requested}.",
        (_RECREATE, "report it to Kubernetes if it happens again"),
    ),
    Rule(
        "notEnoughCpus",
        r"not enough cpus available to satisfy request: requested=(?P<requested>\d+), available=(?P<available>\d+)",
        "The CPU manager of the kubelet has {available} exclusive CPUs, and the pod requests {requested}.",
        ("request fewer CPUs, or end a pod with exclusive CPUs on the node",),
    ),
    Rule(
        "notEnoughMemory",
        r"\[memorymanager\] (?P<why>.*?)(?:, which is unexpected)?$",
        "The memory manager of the kubelet cannot reserve the memory of the pod: {why}.",
        ("request less memory, or end a pod with reserved memory on the node",),
    ),
    Rule(
        "otherPlugin",
        _RPC.format(r"(?P<code>\w+)") + r"(?P<why>.*?)(?:, which is unexpected)?$",
        "The device plugin of the resource refused with {code}: {why}. The text is not from genplug.",
        ("read the documentation of the device plugin that serves the resource",),
    ),
    Rule(
        "nodeFull",
        r"Node didn't have enough resource: (?P<resource>\S+), requested: (?P<requested>\d+), used: (?P<used>\d+), "
        r"capacity: (?P<capacity>\d+)",
        "The pod came to the node without the scheduler, or two schedulers chose the node at the same time: the node "
        "has {capacity} {resource}, {used} are in use, and the pod requests {requested}.",
        (
            "remove nodeName from the pod, so that the scheduler chooses a node",
            _RECREATE,
        ),
        reason=f"{OUT_OF}.*",
    ),
    Rule(
        "topology",
        r"Resources cannot be allocated with Topology locality|pod with pod-level resources failed admission",
        "The topology manager of the kubelet found no NUMA node with all requested resources, and its policy requires "
        "one.",
        (
            "request fewer devices, CPUs or memory, so that a NUMA node has all of them",
            "set topology: none for the resource in the configuration if its locality does not matter",
            "use the policy best-effort of the topology manager",
        ),
        reason="TopologyAffinityError",
    ),
    Rule(
        "smtAlignment",
        r"SMT Alignment Error: (?P<why>.*)",
        "The CPU manager gives out whole cores only: {why}.",
        ("request a number of CPUs that is a multiple of the CPUs per core",),
        reason="SMTAlignmentError",
    ),
    Rule(
        "emptySharedPool",
        r"(?P<why>.+)",
        "The pod has no CPUs left for its containers without exclusive CPUs: {why}.",
        ("request more CPUs for the pod, or give each container exclusive CPUs",),
        reason="EmptyPodSharedPoolError",
    ),
    Rule(
        "nodeAffinity",
        r"Predicate NodeAffinity failed|didn't match Pod's node affinity/selector",
        "The labels of the node do not match nodeSelector or nodeAffinity of the pod: the pod names the node, or the "
        "labels changed after the scheduler had chosen it.",
        (
            "compare nodeSelector and nodeAffinity of the pod with kubectl get node --show-labels",
            "remove nodeName from the pod, so that the scheduler chooses a node",
            _RECREATE,
        ),
        reason="NodeAffinity",
    ),
    Rule(
        "taint",
        r"Predicate TaintToleration failed",
        "The node has a taint with the effect NoExecute that the pod does not tolerate.",
        ("add the toleration to the pod, or remove nodeName from it", "remove the taint from the node"),
        reason="TaintToleration",
    ),
    Rule(
        "hostPort",
        r"Predicate NodePorts failed",
        "Another pod of the node uses a host port that the pod requests.",
        ("use another host port, or end the other pod",),
        reason="NodePorts",
    ),
    Rule(
        "nodeName",
        r"Predicate NodeName failed",
        "The pod names another node.",
        (_RECREATE,),
        reason="NodeName",
    ),
    Rule(
        "evicted",
        r"The node had condition: \[(?P<why>[^\]]*)\]|(?P<low>The node was low on resource: .*)",
        "The node has too little memory or disk space ({why}{low}), so the kubelet refuses or ends pods. Devices are "
        "not the cause.",
        ("free memory or disk space on the node",),
        reason="Evicted",
    ),
    Rule(
        "nodeShutdown",
        r"Pod was rejected as the node is shutting down|node shutdown",
        "The node was shutting down.",
        (_RECREATE,),
        reason="NodeShutdown|Terminated",
    ),
    Rule(
        "sysctl",
        r"forbidden sysctl: (?P<why>.*)",
        "The pod sets a sysctl that the kubelet does not permit: {why}.",
        ("remove the sysctl from the pod, or permit it with --allowed-unsafe-sysctls of the kubelet",),
        reason="SysctlForbidden",
    ),
    Rule(
        "otherPredicate",
        r"(?P<why>.+)",
        "The kubelet cannot run the pod on this node: {why}",
        ("correct the pod, or run it on another node",),
        reason="AppArmor|InvalidNodeInfo|UnknownReason|UnexpectedPredicateFailureType|PodOS\\w+|"
        "SupplementalGroupsPolicyNotSupported|PodLevelResourcesNotSupported|InitContainerRestartPolicyForbidden",
    ),
)

_CONTAINER_RULES = (
    Rule(
        "endpointMissing",
        r"endpoint not found in cache for a registered resource: (?P<resource>\S+)",
        "The container restarts, and no device plugin has served {resource} for more than five minutes.",
        ("start the agent, or add {resource} to the configuration again; the kubelet retries",),
    ),
    Rule(
        "preStart",
        r"device plugin PreStartContainer rpc failed with err: (?P<why>.*)",
        "The program in preStart failed, or the agent did not answer: {why}.",
        ("correct what the text names; the kubelet retries",),
    ),
    Rule(
        "cdiUnresolved",
        r"unresolvable CDI devices (?P<names>.*)",
        "The container runtime found no CDI file that defines {names}.",
        (
            "for inject: cdi, check that the runtime reads daemonset.cdiSpecDir",
            "for cdiDevices, check that the runtime reads the same directories as genplug (daemonset.cdiSearchDirs)",
        ),
    ),
    Rule(
        "cdiDisabled",
        r"CDI support is explicitly disabled",
        "The configuration of the container runtime disables CDI.",
        ("enable CDI in containerd or CRI-O",),
    ),
    Rule(
        "nodeVanished",
        r"error stating device path|error gathering device information|/dev/\S+: no such file or directory",
        "A device node vanished after genplug had answered the kubelet.",
        ("delete the pod; if the device is gone, connect it first",),
    ),
)
RULES = (*_GENPLUG_RULES, *_KUBELET_RULES)
"""Texts of refused pods; the first that matches is used, so the rules of genplug precede those for any text."""


def is_refusal(reason: str) -> bool:
    """Return whether ``status.reason`` of a failed pod is that of a pod that the kubelet refused."""
    return reason in ADMISSION_REASONS or reason.startswith(OUT_OF)


def explain_refusal(reason: str, message: str) -> Explanation | None:
    """Return what the reason and the message of a refused pod mean, or None for an unknown text."""
    return _find(RULES, reason, message)


def explain_waiting(message: str) -> Explanation | None:
    """Return what the message of a container that does not start means, or None for an unknown text."""
    return _find(_CONTAINER_RULES, "", message)


def _find(rules: Sequence[Rule], reason: str, message: str) -> Explanation | None:
    text = message[:_MAX_CHARACTERS].removesuffix(", which is unexpected")
    for rule in rules:
        if rule.reason and not re.fullmatch(rule.reason, reason):
            continue
        if match := re.search(rule.pattern, text, re.DOTALL):
            groups = {name: value.rstrip(".") if value else "" for name, value in match.groupdict().items()}
            explanation = rule.explanation.format(**groups).replace(" ()", "")
            actions = tuple(action.format(**groups) for action in rule.actions)
            return Explanation(rule.cause, explanation, actions, groups.get("resource", "").rstrip(",.:"))
    return None
