"""Attempts of a configuration editor under the default policy, on a running agent with device nodes."""

import pytest

from genplug.testing.node.fake_node import FakeNode
from tests.attacks.editor.attempts import run_attacked_agent

X0 = "devices: [{glob: /dev/x0}]\n"
REJECTED = {
    "mount of the root": (f"{X0}allocate: {{mounts: [{{hostPath: /, containerPath: /host}}]}}", "mounts.allow"),
    "mount of /etc": (f"{X0}allocate: {{mounts: [{{hostPath: /etc, containerPath: /e}}]}}", "mounts.allow"),
    "mount of a rendered path": (
        f"{X0}allocate: {{mounts: [{{hostPath: '/${{name|replace:x0:etc}}', containerPath: /e}}]}}",
        "mounts.allow",
    ),
    "mount of the runtime's socket": (
        f"{X0}allocate: {{mounts: [{{hostPath: /run/containerd/containerd.sock, containerPath: /c}}]}}",
        "mounts.allow",
    ),
    "LD_PRELOAD": (f"{X0}allocate: {{env: {{LD_PRELOAD: /x.so}}}}", "env.allow"),
    "all cards": (f"{X0}allocate: {{env: {{NVIDIA_VISIBLE_DEVICES: all}}}}", "env.allow"),
    "CDI device in a variable": (f"{X0}allocate: {{env: {{NVIDIA_VISIBLE_DEVICES: a.io/gpu=0}}}}", "env.allow"),
    "annotation of a runtime": (f"{X0}allocate: {{annotations: {{run.oci.keep_original_groups: '1'}}}}", "annotations"),
    "annotation of CDI": (f"{X0}allocate: {{annotations: {{cdi.k8s.io/x: a.io/gpu=all}}}}", "GP016"),
    "CDI device": (f"{X0}allocate: {{cdiDevices: ['management.nvidia.com/gpu=all']}}", "cdi.allow"),
    "program before start": (f"{X0}preStart: {{exec: {{command: [/bin/sh, -c, id]}}}}", "exec.allow"),
    "program of a probe": (f"{X0}health: {{probes: [{{exec: {{command: [/bin/sh]}}}}]}}", "exec.allow"),
    "open probe": (f"{X0}health: {{probes: [{{open: {{}}}}]}}", "openProbe"),
    "group": (f"{X0}allocate: {{inject: cdi, supplementalGroups: [6]}}", "supplementalGroups.allow"),
    "metadata service": (f"{X0}health: {{probes: [{{http: {{url: 'http://169.254.169.254/'}}}}]}}", "http.allow"),
    "kubelet API": (f"{X0}health: {{probes: [{{tcpSocket: {{port: 10250}}}}]}}", "http.allow"),
    "socket of the runtime": (
        f"{X0}health: {{probes: [{{unixSocket: {{path: /run/containerd/containerd.sock}}}}]}}",
        "unixSocket.allow",
    ),
    "file of the host": (
        "devices: [{glob: /dev/x0, attributes: {s: {path: /etc/shadow}}}]\nallocate: {env: {S: '${s}'}}",
        "read.allow",
    ),
    "listing of the host": ("devices: [{glob: '{/dev/x0,/etc/*}', type: any}]", "read.allow"),
    "growing template": (f"{X0}allocate: {{env: {{A: '${{name{'|replace:x:xxxxxxxxxx' * 9}}}'}}}}", "GP012"),
    "many alternatives": ("devices: [{glob: '/dev/{0..9}{0..9}{0..9}{0..9}'}]", "GP011"),
    "endless loop": (f"{X0}health: {{periodSeconds: 1e-310, probes: [{{tcpSocket: {{port: 1}}}}]}}", "at least 0.1"),
    "expression with look-behind": ("devices: [{glob: /dev/x0, where: {name: {matches: '(?<=a)+'}}}]", "RE2"),
    "aliases of YAML": (
        "devices: [{glob: /dev/x0}]\nallocate:\n  env: &a\n    A: x\n"
        + "".join(f"  k{number}: [{', '.join(['*a'] * 50)}]\n" for number in range(100)),
        "error[",
    ),
}


@pytest.mark.parametrize(("body", "rule"), REJECTED.values(), ids=REJECTED)
async def test_attempt_gives_nothing_and_leaves_other_resources_served(node: FakeNode, body: str, rule: str) -> None:
    async with run_attacked_agent(node) as attacked:
        outcome = await attacked.attempt(body)
        assert "error[GP" in outcome.rejection
        assert rule in outcome.rejection
        assert outcome.responses == ()


@pytest.mark.parametrize(
    ("path", "numbers", "glob"),
    [
        ("/dev/x-mem", ("char", 1, 1), "/dev/x-*"),
        ("/dev/x-kmsg", ("char", 1, 11), "/dev/x-*"),
        ("/dev/x-disk", ("block", 8, 0), "/dev/x-*"),
        ("/dev/x-loop-control", ("char", 10, 237), "/dev/**/x-*"),
        ("/dev/x-console", ("char", 5, 1), "{/dev/x-console,/dev/none}"),
        ("/dev/a/x-uinput", ("char", 10, 223), "/dev/*/x-*"),
    ],
)
async def test_device_node_that_controls_the_node_is_not_offered_under_another_name(
    node: FakeNode, path: str, numbers: tuple[str, int, int], glob: str
) -> None:
    kind, major, minor = numbers
    node.plug(path, kind="block" if kind == "block" else "char", major=major, minor=minor)
    node.link("/dev/x-link", path)
    # The second device of the resource shows that the scan has ended.
    async with run_attacked_agent(node) as attacked:
        outcome = await attacked.attempt(f"devices: [{{glob: '{glob}'}}, {{glob: /dev/x-link}}, {{glob: /dev/x0}}]")
        assert outcome.rejection == ""
        assert outcome.healthy == {"x0"}
        [response] = outcome.responses
        assert 'host_path: "/dev/x0"' in response
