"""Queries all agents of a cluster, a limited number at the same time."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from genplug.kubectl.agent_status import AgentStatus, decode_agent_status
from genplug.kubectl.agents import fetch_agent_status
from genplug.kubectl.client import Cause, Kubectl, KubectlError
from genplug.kubectl.discovery import Cluster
from genplug.kubectl.fleet import should_query
from genplug.kubectl.objects import Pod

_NO_RIGHT = re.compile(r'cannot \w+ resource "pods/exec"')
"""The message of RBAC; an admission policy can forbid single pods with another message."""


@dataclass(slots=True)
class Answers:
    """The answers of agents, by namespace and name of their pods."""

    by_pod: dict[tuple[str, str], AgentStatus | KubectlError] = field(default_factory=dict)
    forbidden: KubectlError | None = None
    """The error of the first agent that the operator has no right to query. Others in its namespace are not queried."""


async def query_agents(
    kubectl: Kubectl, cluster: Cluster, seconds: float, report: Callable[[int, int], None]
) -> Answers:
    """Return the answers of the agents that run; an error of an agent is its answer.

    Args:
        kubectl: the client.
        cluster: the agents.
        seconds: the time limit of each agent.
        report: is called with the number of answers and of queries after each answer.
    """
    pods = [
        pod for pool in cluster.pools for node, pod in pool.pods.items() if should_query(pod, cluster.nodes.get(node))
    ]
    answers, forbidden, waiting, done = Answers(), dict[str, KubectlError](), iter(pods), 0
    report(0, len(pods))

    async def query() -> None:
        nonlocal done
        for pod in waiting:
            if pod.namespace not in forbidden:
                await _query_agent(kubectl, pod, seconds, answers, forbidden)
            done += 1
            report(done, len(pods))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(kubectl.concurrency, len(pods))):
            group.create_task(query())
    answers.forbidden = next(iter(forbidden.values()), None)
    return answers


async def _query_agent(
    kubectl: Kubectl, pod: Pod, seconds: float, answers: Answers, forbidden: dict[str, KubectlError]
) -> None:
    try:
        answer: AgentStatus | KubectlError = decode_agent_status(await fetch_agent_status(kubectl, pod, seconds))
    except KubectlError as error:
        if error.cause is Cause.FORBIDDEN and _NO_RIGHT.search(error.reason):
            forbidden.setdefault(pod.namespace, error)
            return
        answer = error
    answers.by_pod[pod.namespace, pod.name] = answer
