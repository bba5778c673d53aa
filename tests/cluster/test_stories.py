"""The stories of ``docs/how-to/pending-pods.md``, played on the newest Kubernetes, and the filters of its scheduler."""

import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genplug.kubectl.objects import decode_node, decode_pod
from genplug.kubectl.obstacles import ObstacleKind, find_exclusions
from genplug.kubectl.quantity import parse_quantity
from tests.cluster.cluster import Cluster, poll_until
from tests.cluster.conftest import VERSIONS, create_machine
from tests.cluster.soak.__main__ import VALUES
from tests.cluster.soak.run import Soak
from tests.cluster.stories import (
    DOMAIN,
    STORIES,
    build_device_pod,
    install,
    read_page,
    run_commands,
    write_page,
)
from tests.cluster.tools import TOOLS

pytestmark = [pytest.mark.cluster, pytest.mark.helm, pytest.mark.image, pytest.mark.timeout(300)]

SEED = 7
PODS = 60
SOAK_STEPS = 6
SCHEDULER_TEXTS = {
    ObstacleKind.CORDONED: "node(s) were unschedulable",
    ObstacleKind.NOT_READY: "node(s) had untolerated taint(s)",
    ObstacleKind.TAINT: "node(s) had untolerated taint(s)",
    ObstacleKind.NODE_SELECTOR: "node(s) didn't match Pod's node affinity/selector",
    ObstacleKind.NODE_AFFINITY: "node(s) didn't match Pod's node affinity/selector",
}


@pytest.fixture(scope="module")
def stage(busybox: Path, genplug_image: Path) -> Iterator[Cluster]:
    """Return a cluster of the newest Kubernetes with genplug."""
    with create_machine() as machine:
        cluster = Cluster(machine, VERSIONS[-1], TOOLS)
        cluster.start(busybox, genplug_image)
        install(cluster, sys.executable, TOOLS / "kubectl")
        yield cluster


@pytest.mark.parametrize("name", STORIES)
def test_command_of_the_page_shows_the_cause(stage: Cluster, name: str) -> None:
    with STORIES[name].play(stage):
        output = run_commands(stage, STORIES[name])
    stage.kubectl("delete", "pods", "--all", "--grace-period", "0", "--force")
    if os.environ.get("GENPLUG_UPDATE_GOLDEN"):
        write_page(name, output)
    # The widths of columns depend on ages.
    assert output.split() == read_page()[name].split()


def test_short_soak_agrees_with_its_model(stage: Cluster) -> None:
    soak = Soak(stage, SEED)
    soak.prepare(VALUES)
    soak.run_steps(SOAK_STEPS)
    assert len(soak.figures.settle_seconds) == SOAK_STEPS + 1


def test_filters_agree_with_the_scheduler(stage: Cluster) -> None:
    """Rules of 60 random pods against 6 random nodes: the counts of each reason are those of the scheduler."""
    choose = random.Random(SEED)
    for number in range(6):
        taints = [taint for taint in TAINTS if choose.random() < 0.4]
        labels = {key: choose.choice(("1", "2", "3")) for key in ("zone", "size") if choose.random() < 0.7}
        stage.create_node(f"fake-{number}", labels=labels, taints=taints, **{choose.choice(("scope", "laser")): 1000})
    stage.kubectl("cordon", "fake-0")
    pods = [build_random_pod(f"random-{number}", choose) for number in range(PODS)]
    stage.control.apply(*pods)
    poll_until(lambda: all(has_verdict(pod) for pod in stage.get("pods")["items"]), 60)
    nodes = [decode_node(node) for node in stage.get("nodes")["items"]]
    verdicts = Counter[str]()
    for item in stage.get("pods")["items"]:
        pod = decode_pod(item)
        reasons = Counter(reason for node in nodes for reason in predict_reasons(pod, node))
        possible = {node.name for node in nodes if not list(predict_reasons(pod, node))}
        if pod.node:
            assert pod.node in possible, item["spec"]
        else:
            message = next(entry.message for entry in pod.conditions if entry.kind == "PodScheduled")
            assert reasons == parse_reasons(message), f"{message}\n{item['spec']}"
            assert not possible
        verdicts["scheduled" if pod.node else "unschedulable"] += 1
    # Both verdicts occur, so that the test does not pass with filters that always give the same.
    assert min(verdicts.values()) > PODS // 10, verdicts


TAINTS = (
    {"key": "dedicated", "value": "lab", "effect": "NoSchedule"},
    {"key": "dedicated", "value": "ml", "effect": "NoExecute"},
    {"key": "old", "effect": "NoSchedule"},
    {"key": "slow", "value": "7", "effect": "PreferNoSchedule"},
)


def build_random_pod(name: str, choose: random.Random) -> dict[str, Any]:
    tolerations = [
        {"key": "dedicated", "operator": "Equal", "value": "lab"},
        {"key": "dedicated", "operator": "Exists", "effect": "NoExecute"},
        {"key": "old", "operator": "Exists"},
        {"operator": "Exists", "effect": "NoSchedule"},
    ]
    spec: dict[str, Any] = {"tolerations": [entry for entry in tolerations if choose.random() < 0.6]}
    if choose.random() < 0.3:
        spec["nodeSelector"] = {"zone": choose.choice("12")}
    if choose.random() < 0.6:
        terms = [build_random_term(choose) for _ in range(choose.randint(1, 2))]
        required = {"nodeSelectorTerms": terms}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    resource = choose.choice(("scope", "laser"))
    return build_device_pod(name, **{resource: choose.choice((1, 1, 1, 2000))}, **spec)


def build_random_term(choose: random.Random) -> dict[str, Any]:
    expressions = []
    for key in ("zone", "size"):
        operator = choose.choice(("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"))
        counts = {"In": 2, "NotIn": 1, "Gt": 1, "Lt": 1}
        values = choose.sample(("1", "2", "3"), counts.get(operator, 0))
        expressions.append({"key": key, "operator": operator, **({"values": values} if values else {})})
    term: dict[str, Any] = {"matchExpressions": choose.sample(expressions, choose.randint(1, 2))}
    if choose.random() < 0.3:
        term["matchFields"] = [{"key": "metadata.name", "operator": "NotIn", "values": ["fake-1"]}]
    return term


def has_verdict(pod: dict[str, Any]) -> bool:
    return any(condition["type"] == "PodScheduled" for condition in pod["status"].get("conditions", ()))


def predict_reasons(pod: Any, node: Any) -> Iterator[str]:
    """Yield the reasons that the scheduler counts for a node: those of its first filter that fails."""
    if exclusion := next(find_exclusions(pod.scheduling, node), None):
        yield SCHEDULER_TEXTS[exclusion.kind]
        return
    for container in pod.containers:
        for name, count in container.requests.items():
            if name.startswith(DOMAIN) and parse_quantity(count) > parse_quantity(node.allocatable.get(name, "0")):
                yield f"Insufficient {name}"


def parse_reasons(message: str) -> Counter[str]:
    """Return the counts in ``0/7 nodes are available: 3 node(s) had ..., 4 Insufficient X. preemption: ...``."""
    text = message.partition(": ")[2].partition(". preemption:")[0].rstrip(".")
    return Counter({reason: int(count) for count, reason in re.findall(r"(\d+) (.+?)(?=, \d+ |$)", text)})
