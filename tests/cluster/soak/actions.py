"""The actions of a soak: each changes the machine or the API server, and the model in the same way."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from tests.cluster.cluster import NAMESPACE, Cluster
from tests.cluster.soak.model import (
    DEVICES,
    FAILED_VALUE,
    FUSE,
    LIDAR,
    MOTOR,
    ROLLOUT_ANNOTATION,
    Configuration,
    Pod,
    World,
)
from tests.cluster.soak.observation import find_agent_process

MAX_PODS = 8
_COUNTS = {MOTOR: (0, 1, 1, 2), LIDAR: (0, 0, 0, 1), FUSE: (0, 1, 2)}
"""The numbers of devices that a container of a random pod requests."""
_MAJOR = 240
_INVALID_TEXTS = ("resources: [", "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresurces: {}\n", "")
_DAEMON_SET = ("daemonset/genplug", "--namespace", NAMESPACE)


class Action(Struct, frozen=True):
    """An action. ``run`` performs it and returns a text for the log.

    ``is_alone`` actions change what the agent reads when it starts. They do not follow an action that starts an agent
    before the node has settled, because the model cannot know which text the agent reads first.
    """

    run: Callable[[Cluster, World, Random], str]
    weight: int
    is_alone: bool = False
    ends_agent: bool = False


def create_pods(cluster: Cluster, world: World, choose: Random) -> str:
    """Create up to three pods."""
    pods = []
    for _ in range(choose.randint(1, 3)):
        world.created += 1
        names = ["main", *(name for name in ("other", "sidecar", "first") if choose.random() < 0.25)]
        requests = {name: {resource: choose.choice(counts) for resource, counts in _COUNTS.items()} for name in names}
        pods.append(Pod(f"pod-{world.created}", requests))
    obsolete = list(world.pods)[: max(0, len(world.pods) + len(pods) - MAX_PODS)]
    _delete(cluster, world, *obsolete)
    world.pods |= {pod.name: pod for pod in pods}
    cluster.control.apply(*(pod.build() for pod in pods))
    return f"create {', '.join(pod.name for pod in pods)}; delete {', '.join(obsolete) or 'none'}"


def delete_pods(cluster: Cluster, world: World, choose: Random) -> str:
    """Delete some of the pods."""
    names = choose.sample(list(world.pods), choose.randint(min(1, len(world.pods)), min(3, len(world.pods))))
    _delete(cluster, world, *names)
    return f"delete {', '.join(names) or 'none'}"


def _delete(cluster: Cluster, world: World, *names: str) -> None:
    for name in names:
        del world.pods[name]
    if names:
        cluster.kubectl("delete", "pod", "--wait=false", *names)


def unplug_devices(cluster: Cluster, world: World, choose: Random) -> str:
    """Remove some device nodes."""
    names = choose.sample(sorted(world.plugged), min(len(world.plugged), choose.randint(1, 3)))
    for name in names:
        unplug(cluster, world, name)
    return f"unplug {', '.join(names)}"


def plug_devices(cluster: Cluster, world: World, choose: Random) -> str:
    """Create all missing device nodes, with new numbers."""
    names = [name for name in DEVICES if name not in world.plugged]
    choose.shuffle(names)
    for name in names:
        plug(cluster, world, name)
    return f"plug {', '.join(names) or 'none'}"


def flap_device(cluster: Cluster, world: World, choose: Random) -> str:
    """Remove and create a device node several times."""
    name, times = choose.choice(DEVICES), choose.randint(1, 20)
    pause = choose.choice((0, 0.01, 0.1))
    for _ in range(times):
        if name in world.plugged:
            unplug(cluster, world, name)
        time.sleep(pause)
        plug(cluster, world, name)
        time.sleep(pause)
    return f"flap {name} {times} times with pauses of {pause} s"


def plug(cluster: Cluster, world: World, name: str) -> None:
    """Create a device node with a number that no other device has had."""
    world.replugs += 1
    cluster.machine.plug(f"/dev/{name}", os.makedev(_MAJOR, 100 + world.replugs))
    world.plugged.add(name)


def unplug(cluster: Cluster, world: World, name: str) -> None:
    """Remove a device node."""
    cluster.machine.unplug(f"/dev/{name}")
    world.plugged.remove(name)


def change_probe(cluster: Cluster, world: World, _: Random) -> str:
    """Change the attribute in sysfs that the probe of the lidars reads."""
    set_probe(cluster, world, has_failed=not world.has_failed_probe)
    return f"set the attribute of the probe to {FAILED_VALUE if world.has_failed_probe else 'empty'}"


def set_probe(cluster: Cluster, world: World, *, has_failed: bool) -> None:
    """Write the attribute in sysfs that the probe of the lidars reads."""
    cluster.machine.run("ip", "link", "set", "node", "alias", FAILED_VALUE if has_failed else "")
    world.has_failed_probe = has_failed


def edit_configuration(cluster: Cluster, world: World, choose: Random) -> str:
    """Write another valid configuration to the ConfigMap."""
    previous = world.written or Configuration()
    tokens = choose.choice([number for number in (5, 10, 20) if number != previous.tokens])
    configuration = replace(previous, tokens=tokens, motors=choose.choice(("motor*", "motor[0-3]")))
    write_configuration(cluster, world, configuration)
    return f"write a configuration with {configuration}"


def write_configuration(cluster: Cluster, world: World, configuration: Configuration) -> None:
    """Write a valid configuration to the ConfigMap."""
    _patch_config_map(cluster, configuration.render())
    world.written = world.active = configuration


def break_configuration(cluster: Cluster, world: World, choose: Random) -> str:
    """Write an invalid text to the ConfigMap."""
    text = choose.choice(_INVALID_TEXTS)
    _patch_config_map(cluster, text)
    world.written = None
    return f"write the invalid configuration {text!r}"


def _patch_config_map(cluster: Cluster, text: str) -> None:
    patch = json.dumps({"data": {"genplug.yaml": text}})
    cluster.kubectl("patch", "configmap/genplug-config", "--namespace", NAMESPACE, "--patch", patch)
    # The kubelet updates the ConfigMap of a changed pod immediately.
    annotation = f"edited={time.time_ns()}"
    cluster.kubectl("annotate", "pods", "--all", "--namespace", NAMESPACE, "--overwrite", annotation)


def restart_kubelet(cluster: Cluster, _: World, choose: Random) -> str:
    """End the kubelet and start it, after a pause."""
    assert cluster.node.kubelet is not None
    number = choose.choice((signal.SIGTERM, signal.SIGKILL))
    pause = choose.choice((0, 0, 2, 5))
    try:
        cluster.node.kubelet.stop(number)
    except subprocess.TimeoutExpired:
        # A kubelet that receives SIGTERM while it starts can hang.
        cluster.node.kubelet.stop(signal.SIGKILL)
    time.sleep(pause)
    cluster.node.start_kubelet()
    return f"end the kubelet with {number.name}, start it after {pause} s"


def wipe_directory(cluster: Cluster, _: World, choose: Random) -> str:
    """Remove one socket or all sockets of the agent."""
    sockets = sorted((cluster.machine.kubelet / "device-plugins").glob("genplug-*.sock"))
    # The names of the sockets are random, so the choice must not depend on them.
    is_whole = choose.random() < 0.5
    for socket in sockets if is_whole else sockets[:1]:
        socket.unlink(missing_ok=True)
    return f"remove {'all sockets' if is_whole else 'a socket'} of the agent"


def stop_agent(cluster: Cluster, _: World, choose: Random) -> str:
    """Stop the process of the agent for some seconds."""
    pause = choose.choice((0.5, 1, 3))
    try:
        process = find_agent_process(cluster)
        os.kill(process, signal.SIGSTOP)
        time.sleep(pause)
        os.kill(process, signal.SIGCONT)
    except (LookupError, ProcessLookupError):
        return "stop the agent: it does not run"
    return f"stop the agent for {pause} s"


def kill_agent(cluster: Cluster, world: World, choose: Random) -> str:
    """End the agent with SIGKILL; its container restarts."""
    if world.was_agent_killed:
        return delete_agent(cluster, world, choose)
    try:
        os.kill(find_agent_process(cluster), signal.SIGKILL)
    except (LookupError, ProcessLookupError):
        return "kill the agent: it does not run"
    world.was_agent_killed = True
    world.restart_agent()
    return "kill the agent"


def delete_agent(cluster: Cluster, world: World, _: Random) -> str:
    """Delete the pod of the agent."""
    cluster.kubectl("delete", "pods", "--all", "--wait=false", "--namespace", NAMESPACE)
    _expect_new_pod(world)
    return "delete the pod of the agent"


def roll_out(cluster: Cluster, world: World, _: Random) -> str:
    """Change the DaemonSet, which replaces the agent."""
    world.rollouts += 1
    annotations = {ROLLOUT_ANNOTATION: str(world.rollouts)}
    patch = json.dumps({"spec": {"template": {"metadata": {"annotations": annotations}}}})
    cluster.kubectl("patch", *_DAEMON_SET, "--patch", patch)
    _expect_new_pod(world)
    return "roll out the DaemonSet"


def _expect_new_pod(world: World) -> None:
    world.was_agent_killed = False
    world.restart_agent()


ACTIONS = {
    "create": Action(create_pods, 8),
    "delete": Action(delete_pods, 5),
    "unplug": Action(unplug_devices, 4),
    "plug": Action(plug_devices, 5),
    "flap": Action(flap_device, 5),
    "probe": Action(change_probe, 3),
    "config": Action(edit_configuration, 4, is_alone=True),
    "bad-config": Action(break_configuration, 2, is_alone=True),
    "kubelet": Action(restart_kubelet, 3),
    "wipe": Action(wipe_directory, 2),
    "stop": Action(stop_agent, 2),
    "kill": Action(kill_agent, 2, ends_agent=True),
    "delete-agent": Action(delete_agent, 1, ends_agent=True),
    "roll-out": Action(roll_out, 1, ends_agent=True),
}
"""The actions by name."""


def read_footprint(process: int) -> dict[str, int]:
    """Return the descriptors, threads, child processes and resident memory (KiB) of a process."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    children = sum(len(path.read_text().split()) for path in Path(f"/proc/{process}/task").glob("*/children"))
    return {
        "descriptors": len(os.listdir(f"/proc/{process}/fd")),  # noqa: PTH208 - names, not paths
        "threads": int(status["Threads"]),
        "child processes": children,
        "KiB of resident memory": int(status["VmRSS"].split()[0]),
    }
