"""Why a node is not possible for a pod: taints, node selector, node affinity, and requests other than devices.

The functions are pure. They follow the filters of kube-scheduler in their order: NodeUnschedulable, TaintToleration,
NodeAffinity and NodeResourcesFit (k8s.io/kubernetes, pkg/scheduler/framework/plugins; k8s.io/component-helpers,
scheduling/corev1 and resource). Ports, volumes, pod affinity and topology spread are not evaluated;
``Pod.unevaluated_rules`` names those that a pod has.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from genplug.kubectl.json_values import JSON, read_maps, read_text
from genplug.kubectl.objects import Node, Pod, Scheduling, Taint, Toleration
from genplug.kubectl.quantity import format_quantity, parse_quantity

Amounts = Mapping[str, Fraction]
"""Amounts by the name of the resource."""

_POD_LEVEL_RESOURCES = ("cpu", "memory", "hugepages-")
"""Start of the names of the resources that a pod can request as a whole; others are requested by containers."""
_CORDON_TAINT = "node.kubernetes.io/unschedulable"
"""The taint that the node lifecycle controller adds to a cordoned node."""
_NOT_READY_TAINTS = {
    "node.kubernetes.io/not-ready": "is not ready",
    "node.kubernetes.io/unreachable": "is unreachable",
    "node.cloudprovider.kubernetes.io/uninitialized": "is not initialized by the cloud provider",
    "node.cloudprovider.kubernetes.io/shutdown": "is shut down",
}
_EXCLUDING_EFFECTS = ("NoSchedule", "NoExecute")
_MAX_DIGITS = 19
"""Digits of an integer of 64 bits."""


class ObstacleKind(StrEnum):
    """Why a node is not possible for a pod, whatever devices it has."""

    CORDONED = "cordoned"
    NOT_READY = "notReady"
    TAINT = "taint"
    NODE_SELECTOR = "nodeSelector"
    NODE_AFFINITY = "nodeAffinity"
    SHORTAGE = "shortage"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason for which a node is not possible; ``text`` continues "the node ..."."""

    kind: ObstacleKind
    text: str
    remedies: tuple[str, ...] = ()
    """The changes that remove the obstacle, most useful first."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on a label or a field of a node."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether the labels meet the condition (k8s.io/apimachinery, pkg/labels/selector.go)."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                bound = self.values[0] if len(self.values) == 1 else ""
                return _is_beyond(value or "", bound, self.operator)
        return False

    def __str__(self) -> str:
        """Return the condition as a label selector of kubectl writes it."""
        values = ", ".join(self.values)
        match self.operator:
            case "In" if len(self.values) == 1:
                return f"{self.key}={values}"
            case "NotIn" if len(self.values) == 1:
                return f"{self.key}!={values}"
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case "Gt" | "Lt":
                return f"{self.key}{'>' if self.operator == 'Gt' else '<'}{values}"
        return f"{self.key} {self.operator.lower()} ({values})"


@dataclass(frozen=True, slots=True)
class SelectorTerm:
    """Conditions on the labels and the fields of a node; all of them must be met."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    @classmethod
    def decode(cls, term: JSON) -> "SelectorTerm":
        """Return a term of a node affinity."""
        return cls(
            tuple(_decode_requirements(term, "matchExpressions")),
            tuple(_decode_requirements(term, "matchFields")),
        )

    def list_unmet(self, node: Node) -> tuple[Requirement, ...]:
        """Return the conditions that a node does not meet."""
        fields = {"metadata.name": node.name}
        return (
            *(requirement for requirement in self.labels if not requirement.matches(node.labels)),
            *(requirement for requirement in self.fields if not requirement.matches(fields)),
        )


def is_extended(resource: str) -> bool:
    """Return whether a resource is extended (k8s.io/kubernetes, pkg/apis/core/v1/helper, IsExtendedResourceName)."""
    return "/" in resource and "kubernetes.io/" not in resource and not resource.startswith("requests.")


def parse_amounts(texts: Mapping[str, str]) -> dict[str, Fraction]:
    """Return the amounts for quantities."""
    return {name: parse_quantity(text) for name, text in texts.items()}


def sum_requests(pod: Pod) -> dict[str, Fraction]:
    """Return what the scheduler reserves for a pod (component-helpers, resource/helpers.go, PodRequests).

    Containers and sidecars run at the same time, so their requests are added. Init containers run one after another,
    each with the sidecars that precede it, so the largest of these sums is a minimum. Requests of the whole pod replace
    those of its containers, and the overhead of the runtime class is added.
    """
    total: dict[str, Fraction] = {}
    sidecars: dict[str, Fraction] = {}
    largest: dict[str, Fraction] = {}
    for container in pod.containers:
        requests = parse_amounts(container.requests)
        if container.is_init and not container.is_sidecar:
            _add(requests, sidecars)
            _raise_to(largest, requests)
            continue
        _add(total, requests)
        if container.is_sidecar:
            _add(sidecars, requests)
    _raise_to(total, largest)
    pod_level = parse_amounts(pod.pod_requests)
    total |= {name: amount for name, amount in pod_level.items() if name.startswith(_POD_LEVEL_RESOURCES)}
    _add(total, parse_amounts(pod.overhead))
    return total


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Return whether a toleration matches a taint (k8s.io/api, core/v1/toleration.go).

    `Gt` and `Lt` compare numbers. They require the feature gate TaintTolerationComparisonOperators of Kubernetes 1.35,
    and the API server refuses them without it.
    """
    if (toleration.effect and toleration.effect != taint.effect) or (toleration.key and toleration.key != taint.key):
        return False
    match toleration.operator:
        case "" | "Equal":
            return toleration.value == taint.value
        case "Exists":
            return True
        case "Gt" | "Lt":
            return _is_beyond(taint.value, toleration.value, toleration.operator)
    return False


def find_exclusions(scheduling: Scheduling, node: Node) -> Iterator[Obstacle]:
    """Yield the rules of a pod and a node for which the scheduler does not consider the node, in its order."""
    tolerations = scheduling.tolerations
    untolerated = [
        taint
        for taint in node.taints
        if taint.effect in _EXCLUDING_EFFECTS and not any(tolerates(toleration, taint) for toleration in tolerations)
    ]
    cordon = Taint(_CORDON_TAINT, "", "NoSchedule")
    is_cordoned = node.is_unschedulable and not any(tolerates(toleration, cordon) for toleration in tolerations)
    if is_cordoned or any(taint.key == _CORDON_TAINT for taint in untolerated):
        yield Obstacle(ObstacleKind.CORDONED, "is cordoned", (f"uncordon the node: kubectl uncordon {node.name}",))
    for taint in untolerated:
        if taint.key in _NOT_READY_TAINTS:
            hint = f"check the kubelet of {node.name}: kubectl describe node {node.name}"
            yield Obstacle(ObstacleKind.NOT_READY, f"{_NOT_READY_TAINTS[taint.key]} (taint {taint})", (hint,))
        elif taint.key != _CORDON_TAINT:
            yield _describe_taint(taint, node)
    yield from _find_affinity_obstacles(scheduling, node)


def find_shortages(requests: Amounts, node: Node, in_use: Amounts, pods_on_node: int) -> Iterator[Obstacle]:
    """Yield the resources that are not extended and of which a node has less than a pod requests.

    ``in_use`` is what the pods of the node request, and ``pods_on_node`` is their number.
    """
    allocatable = parse_amounts(node.allocatable)
    zero = Fraction(0)
    max_pods = allocatable.get("pods", zero)
    if pods_on_node + 1 > max_pods:
        text = f"runs {pods_on_node} pods, and its limit is {format_quantity('pods', max_pods)}"
        yield Obstacle(ObstacleKind.SHORTAGE, text, (f"end a pod on {node.name}",))
    for name, requested in requests.items():
        if is_extended(name):
            continue
        total = allocatable.get(name, zero)
        free = max(total - in_use.get(name, zero), zero)
        if requested > free:
            text = (
                f"has {format_quantity(name, free)} of {format_quantity(name, total)} {name} free, "
                f"and the pod requests {format_quantity(name, requested)}"
            )
            remedy = f"request less {name} in the pod, or end pods on {node.name}"
            yield Obstacle(ObstacleKind.SHORTAGE, text, (remedy,))


def _describe_taint(taint: Taint, node: Node) -> Obstacle:
    operator = f"operator: Equal, value: {taint.value}" if taint.value else "operator: Exists"
    remedies = (
        f"add to tolerations of the pod: {{key: {taint.key}, {operator}, effect: {taint.effect}}}",
        f"remove the taint: kubectl taint nodes {node.name} {taint}-",
    )
    return Obstacle(ObstacleKind.TAINT, f"has the taint {taint}, which the pod does not tolerate", remedies)


def _find_affinity_obstacles(scheduling: Scheduling, node: Node) -> Iterator[Obstacle]:
    required = [Requirement(key, "In", (value,)) for key, value in sorted(scheduling.node_selector.items())]
    if unmet := [requirement for requirement in required if not requirement.matches(node.labels)]:
        labels = " ".join(map(str, unmet))
        remedies = (
            f"correct nodeSelector of the pod, which requires {labels}",
            f"label the node: kubectl label node {node.name} {labels} --overwrite",
        )
        text = "; ".join(_describe_unmet(requirement, node) for requirement in unmet)
        yield Obstacle(ObstacleKind.NODE_SELECTOR, f"does not match nodeSelector: {text}", remedies)
    if scheduling.affinity_terms is None:
        return
    terms = [SelectorTerm.decode(term) for term in scheduling.affinity_terms]
    # A term without conditions matches no node (component-helpers, nodeaffinity.go).
    unmet_terms = [term.list_unmet(node) for term in terms if term.labels or term.fields]
    if unmet_terms and not all(unmet_terms):
        return
    text = "no term has a condition"
    if unmet_terms:
        closest = min(unmet_terms, key=len)
        others = f" (the closest of {len(unmet_terms)} terms)" if len(unmet_terms) > 1 else ""
        text = "; ".join(_describe_unmet(requirement, node) for requirement in closest) + others
    remedy = f"correct the required nodeAffinity of the pod, or the labels of {node.name}"
    yield Obstacle(ObstacleKind.NODE_AFFINITY, f"does not match the required nodeAffinity: {text}", (remedy,))


def _describe_unmet(requirement: Requirement, node: Node) -> str:
    if requirement.key == "metadata.name":
        return f"{requirement} is required"
    found = node.labels.get(requirement.key)
    return f"{requirement} is required, and the node has {'no such label' if found is None else f'{found!r}'}"


def _decode_requirements(term: JSON, key: str) -> Iterator[Requirement]:
    for entry in read_maps(term, key):
        values = entry.get("values")
        texts = tuple(map(str, values)) if isinstance(values, list) else ()
        yield Requirement(read_text(entry, "key"), read_text(entry, "operator"), texts)


def _is_beyond(text: str, bound: str, operator: str) -> bool:
    """Return whether an integer is greater (`Gt`) or less (`Lt`) than another; any other text is neither."""
    left, right = _parse_integer(text), _parse_integer(bound)
    if left is None or right is None:
        return False
    return left > right if operator == "Gt" else left < right


def _parse_integer(text: str) -> int | None:
    digits = text[1:] if text[:1] in {"+", "-"} else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return None
    return int(text)


def _add(total: dict[str, Fraction], amounts: Amounts) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, Fraction(0)) + amount


def _raise_to(total: dict[str, Fraction], amounts: Amounts) -> None:
    for name, amount in amounts.items():
        total[name] = max(total.get(name, Fraction(0)), amount)
