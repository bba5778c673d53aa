"""The status of all agents as a document of the kind ``FleetStatus``, which has the schema ``fleet-status``."""

from collections import Counter
from typing import Any

from genplug.kubectl.agent_status import AgentState, Counts
from genplug.kubectl.fleet import FleetStatus, NodeStatus, PoolStatus

Document = dict[str, Any]


def build_document(fleet: FleetStatus) -> Document:
    """Return the document."""
    nodes = [node for _, node in fleet.nodes]
    total = sum((counts for pool in fleet.pools for counts in pool.resources.values()), Counts())
    return {
        "apiVersion": "genplug.io/v1alpha1",
        "kind": "FleetStatus",
        "ready": fleet.is_ready,
        "notes": list(fleet.notes),
        "nodes": {
            "expected": len({node.node for node in nodes}),
            "notReady": len({node.node for node in nodes if node.is_ready is False}),
        },
        "agents": _agents(nodes, sum(pool.unlocated for pool in fleet.pools)),
        "devices": _counts(total),
        "pools": [_pool(pool) for pool in fleet.pools],
    }


def _pool(pool: PoolStatus) -> Document:
    return {
        "name": pool.name,
        "namespace": pool.namespace,
        "daemonSet": pool.daemon_set,
        "ready": pool.is_fine,
        "version": pool.version,
        "configSha256": pool.config_sha256,
        "agents": _agents(pool.nodes, pool.unlocated),
        "resources": [{"name": name, **_counts(counts)} for name, counts in pool.resources.items()],
        "nodes": [_node(pool, node) for node in pool.nodes],
    }


def _node(pool: PoolStatus, node: NodeStatus) -> Document:
    return {
        "name": node.node,
        "ready": node.is_ready,
        "reason": node.unready_reason,
        "agent": {
            "state": str(node.agent),
            "pod": node.pod,
            "responded": node.has_answered,
            "reasons": list(node.reasons),
            "version": node.version,
            "versionDiffers": pool.has_other_version(node),
        },
        "config": {
            "sha256": node.config.sha256,
            "files": list(node.config.files),
            "differs": pool.has_other_config(node),
            "error": node.config.error,
        },
        "resources": [
            {
                "name": resource.name,
                **_counts(resource.counts),
                "source": str(resource.source),
                "remarks": list(resource.remarks),
            }
            for resource in node.resources
        ],
    }


def _agents(nodes: "list[NodeStatus] | tuple[NodeStatus, ...]", unlocated: int) -> Document:
    states = Counter(node.agent for node in nodes)
    return {
        "expected": len(nodes) + unlocated,
        "ready": states[AgentState.READY],
        "notReady": states[AgentState.NOT_READY],
        "unreachable": states[AgentState.UNREACHABLE],
        "missing": states[AgentState.MISSING] + unlocated,
        "responded": sum(node.has_answered for node in nodes),
    }


def _counts(counts: Counts) -> Document:
    return {
        "healthy": counts.healthy,
        "unhealthy": counts.unhealthy,
        "inUse": counts.in_use,
        "free": counts.free,
    }
