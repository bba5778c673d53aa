"""Which nodes a pod may run on: node selector, required node affinity, taints and tolerations.

The rules are those of Kubernetes: k8s.io/component-helpers/scheduling/corev1 (nodeaffinity, helpers.go) and
pkg/controller/daemon/daemon_controller.go (NodeShouldRunDaemonPod) with pkg/controller/daemon/util (tolerations).
"""

from collections.abc import Iterable, Iterator

from attrs import evolve

from genplug.kubectl.json_values import JSON
from genplug.kubectl.objects import Node, Scheduling, Taint, Toleration

_DAEMON_TOLERATIONS = (
    Toleration("node.kubernetes.io/not-ready", "Exists", "", "NoExecute"),
    Toleration("node.kubernetes.io/unreachable", "Exists", "", "NoExecute"),
    Toleration("node.kubernetes.io/disk-pressure", "Exists", "", "NoSchedule"),
    Toleration("node.kubernetes.io/memory-pressure", "Exists", "", "NoSchedule"),
    Toleration("node.kubernetes.io/pid-pressure", "Exists", "", "NoSchedule"),
    Toleration("node.kubernetes.io/unschedulable", "Exists", "", "NoSchedule"),
)
"""Tolerations that the DaemonSet controller adds to its pods (AddOrUpdateDaemonPodTolerations)."""
_NETWORK_TOLERATION = Toleration("node.kubernetes.io/network-unavailable", "Exists", "", "NoSchedule")
"""Is added for pods with the network of the host."""
_EXCLUDING_EFFECTS = ("NoSchedule", "NoExecute")


def with_daemon_tolerations(scheduling: Scheduling) -> Scheduling:
    """Return what the pods of a DaemonSet require, with the tolerations that its controller adds."""
    added = (*_DAEMON_TOLERATIONS, _NETWORK_TOLERATION) if scheduling.is_host_network else _DAEMON_TOLERATIONS
    return evolve(scheduling, tolerations=(*scheduling.tolerations, *added))


def is_allowed(node: Node, scheduling: Scheduling) -> bool:
    """Return whether a pod may be scheduled to a node, whatever else runs there."""
    return not any(exclusion_reasons(node, scheduling))


def exclusion_reasons(node: Node, scheduling: Scheduling) -> Iterator[str]:
    """Yield each reason for which a pod may not be scheduled to a node.

    The taint of a cordoned node (``node.kubernetes.io/unschedulable``) is among the taints.
    """
    for key, value in scheduling.node_selector.items():
        if node.labels.get(key) != value:
            found = f"has {key}={node.labels[key]}" if key in node.labels else f"does not have the label {key}"
            yield f"nodeSelector requires {key}={value}, the node {found}"
    terms = scheduling.affinity_terms
    if terms is not None and not any(_matches_term(node, term) for term in terms):
        yield "the required node affinity does not match the labels of the node"
    for taint in node.taints:
        if taint.effect in _EXCLUDING_EFFECTS and not is_tolerated(taint, scheduling.tolerations):
            yield f"the taint {taint} is not tolerated"


def is_tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Return whether a toleration matches a taint."""
    return any(_tolerates(toleration, taint) for toleration in tolerations)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.operator == "Equal" and toleration.value == taint.value


def _matches_term(node: Node, term: JSON) -> bool:
    """Return whether a node matches all requirements of a term; a term without requirements matches no node."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not isinstance(expressions, list | tuple) or not isinstance(fields, list | tuple):
        return False
    requirements = [(node.labels, requirement) for requirement in expressions]
    requirements += [({"metadata.name": node.name}, requirement) for requirement in fields]
    return bool(requirements) and all(_meets(labels, requirement) for labels, requirement in requirements)


def _meets(labels: JSON, requirement: object) -> bool:
    if not isinstance(requirement, dict):
        return False
    value = labels.get(str(requirement.get("key")))
    values = requirement.get("values") or ()
    match requirement.get("operator"):
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _is_greater(value, next(iter(values), None))
        case "Lt":
            return _is_greater(next(iter(values), None), value)
    return False


def _is_greater(left: object, right: object) -> bool:
    try:
        return int(str(left)) > int(str(right))
    except ValueError:
        return False
