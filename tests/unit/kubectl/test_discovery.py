"""The nodes that should run an agent, by the rules of the DaemonSet controller."""

from typing import Any

import pytest

from genplug.kubectl.client import Kubectl
from genplug.kubectl.discovery import discover_cluster
from tests.support.kubectl import KubectlStandIn, Object, make_agent_pod, make_daemon_set, make_node


async def list_nodes(kubectl: KubectlStandIn, pod_spec: dict[str, Any], *nodes: Object) -> list[str]:
    """Return the names of the nodes on which the pods of a DaemonSet should run."""
    kubectl.list("daemonsets", make_daemon_set(pod_spec=pod_spec))
    kubectl.list("pods")
    kubectl.list("nodes", *nodes)
    cluster = await discover_cluster(Kubectl(str(kubectl.program)))
    return list(cluster.pools[0].nodes)


async def test_node_selector_and_affinity_select_nodes(kubectl: KubectlStandIn) -> None:
    def term(*expressions: dict[str, Any]) -> dict[str, Any]:
        return {"matchExpressions": list(expressions)}

    terms = [
        term({"key": "gpu", "operator": "Exists"}, {"key": "zone", "operator": "NotIn", "values": ["b"]}),
        term({"key": "count", "operator": "Gt", "values": ["4"]}),
    ]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    spec = {"nodeSelector": {"kubernetes.io/os": "linux"}, "affinity": affinity}
    nodes = {
        "gpu": {"gpu": ""},
        "gpu-in-b": {"gpu": "", "zone": "b"},
        "five": {"count": "5"},
        "four": {"count": "4"},
        "windows": {"gpu": "", "kubernetes.io/os": "windows"},
        "plain": {},
    }
    found = await list_nodes(kubectl, spec, *(make_node(name, labels=labels) for name, labels in nodes.items()))
    assert found == ["five", "gpu"]


@pytest.mark.parametrize(
    ("taint", "tolerations", "runs"),
    [
        ({"key": "gpu", "value": "yes", "effect": "NoSchedule"}, [], False),
        ({"key": "gpu", "value": "yes", "effect": "NoExecute"}, [], False),
        ({"key": "gpu", "value": "yes", "effect": "PreferNoSchedule"}, [], True),
        ({"key": "gpu", "value": "yes", "effect": "NoSchedule"}, [{"key": "gpu", "operator": "Exists"}], True),
        ({"key": "gpu", "value": "yes", "effect": "NoSchedule"}, [{"key": "gpu", "value": "no"}], False),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}, [], True),
        ({"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}, [], True),
        ({"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}, [], False),
    ],
)
async def test_taint_keeps_agents_away_unless_it_is_tolerated(
    kubectl: KubectlStandIn, taint: dict[str, str], tolerations: list[dict[str, str]], *, runs: bool
) -> None:
    found = await list_nodes(kubectl, {"tolerations": tolerations}, make_node("node-1", taints=[taint]))
    assert found == (["node-1"] if runs else [])


async def test_cordoned_node_should_run_an_agent(kubectl: KubectlStandIn) -> None:
    assert await list_nodes(kubectl, {}, make_node("node-1", is_unschedulable=True)) == ["node-1"]


async def test_pods_of_other_owners_are_not_agents(kubectl: KubectlStandIn) -> None:
    kubectl.list("daemonsets", make_daemon_set())
    kubectl.list("pods", make_agent_pod("node-1"), make_agent_pod("node-2", daemon_set="other"))
    kubectl.list("nodes", make_node("node-1"), make_node("node-2"))
    [pool] = (await discover_cluster(Kubectl(str(kubectl.program)))).pools
    assert list(pool.pods) == ["node-1"]


async def test_objects_that_only_have_the_label_or_the_owner_of_agents_are_not_agents(kubectl: KubectlStandIn) -> None:
    copied = make_agent_pod("node-2", namespace="tenant")
    copied["metadata"]["ownerReferences"] = make_agent_pod("node-2")["metadata"]["ownerReferences"]
    restricted = make_agent_pod("node-2")
    restricted["spec"]["volumes"] = []
    kubectl.list("daemonsets", make_daemon_set(), make_daemon_set(namespace="tenant", pod_spec={"volumes": []}))
    kubectl.list("pods", make_agent_pod("node-1"), copied, restricted)
    kubectl.list("nodes", make_node("node-1"), make_node("node-2"))
    [pool] = (await discover_cluster(Kubectl(str(kubectl.program)))).pools
    assert list(pool.pods) == ["node-1"]


async def test_agent_on_a_node_that_should_have_none_is_listed(kubectl: KubectlStandIn) -> None:
    kubectl.list("daemonsets", make_daemon_set(pod_spec={"nodeSelector": {"pool": "gpu"}}))
    kubectl.list("pods", make_agent_pod("node-1"))
    kubectl.list("nodes", make_node("node-1"))
    [pool] = (await discover_cluster(Kubectl(str(kubectl.program)))).pools
    assert pool.nodes == ("node-1",)


@pytest.mark.parametrize("item", [{}, {"metadata": 5, "spec": [], "status": "x"}, {"spec": {"taints": [5, {}]}}])
async def test_objects_with_missing_or_other_keys_are_read(kubectl: KubectlStandIn, item: Object) -> None:
    for resource in ("daemonsets", "pods", "nodes"):
        kubectl.list(resource, item)
    cluster = await discover_cluster(Kubectl(str(kubectl.program)))
    assert cluster.pools == ()
    assert len(cluster.nodes) == 1
