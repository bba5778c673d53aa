"""A configuration editor learns nothing of files and variables that the policy does not allow to read.

Two nodes differ only in such files and variables. For every configuration, the output that an editor or a pod can see
must be equal on both: otherwise a secret, or whether a file exists, is visible.
"""

import asyncio
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from genplug.allocation.allocate import allocate_edits
from genplug.allocation.errors import AllocationError
from genplug.allocation.offer import build_offer
from genplug.cli.main import main
from genplug.config.diagnostics import ConfigInvalidError, format_diagnostics
from genplug.config.load import load_text
from genplug.hardware.discovery import discover
from genplug.hardware.explain import explain
from genplug.hardware.host import Host
from genplug.health.binding import bind_probes
from genplug.health.probe_kind import Effect
from genplug.health.workers.file_reader import CachedFileReader
from genplug.health.workers.main import run_request
from genplug.spec.model import Config
from genplug.spec.policy import Policy
from genplug.spec.read_rules import parse_read_rules
from genplug.testing.node.fake_node import FakeNode
from genplug.testing.node.file_trees import build_tree
from tests.attacks.editor.attempts import quote, run_attacked_agent
from tests.support.allocation import mark_healthy
from tests.support.configs import render_config

COMMON = """
/dev/x0 char 240:0
/dev/out -> /etc/shadow
/dev/fd -> /proc/self/fd
/sys/out -> /etc/shadow
/sys/class/x/x0/device -> /etc
/sys/class/x/x0/state = ok
/sys/fs/ directory
/sys/kernel/ directory
/sys/dev/char/240:0 -> ../../class/x/x0
/run/udev/data/out -> /root/.ssh/id_rsa
/run/udev/data/c240:0 = I:1
/proc/driver/x/out -> /proc/1/environ
/proc/self -> 1
/proc/thread-self -> 1/task/1
/proc/1/fd/3 -> /etc/shadow
/proc/1/root -> /
"""
SECRETS = (
    *("/etc/shadow", "/root/.ssh/id_rsa", "/proc/1/environ", "/proc/1/task/1/environ", "/proc/cmdline", "/sysx/a"),
    *("/sys/kernel/debug/a/b", "/sys/firmware/efi/efivars/a", "/sys/class/x/x0/password", "/sys/class/x/x0/key"),
    *("/sys/module/m/sections/text", "/sys/fs/selinux/policy", "/run/secrets/token", "/run/udev/datax/a", "/dev/shm/a"),
    *("/var/lib/kubelet/pki/kubelet.key", "/sys/kernel/tracing/trace"),
)
"""Files that the default policy does not allow to read. In a directory of their own, they exist on one node only."""
ALIASES = (
    *("/dev/out", "/sys/out", "/sys/class/x/x0/device/shadow", "/run/udev/data/out", "/proc/driver/x/out"),
    *(
        "/proc/self/environ",
        "/proc/thread-self/environ",
        "/proc/1/fd/3",
        "/dev/fd/3",
        "/proc/1/root/etc/shadow",
        "/proc/self/root/etc/shadow",
    ),
)
"""Other paths of these files."""
ONLY_ON_THE_FIRST = (
    "/sys/kernel/debug/a/b",
    "/var/lib/kubelet/pki/kubelet.key",
    "/sys/fs/selinux/policy",
    "/run/udev/datax/a",
)
FIRST, SECOND = "alpha-secret", "omega-secret"
VARIABLE = "GENPLUG_TEST_SECRET"
STRICT = Policy(cdi=("*",), annotations=("*",))
"""The default policy for reads; what a container gets is not limited, so that a secret would be visible."""
PERMISSIVE = Policy(cdi=("*",), annotations=("*",), read=parse_read_rules(("/**", *SECRETS)), read_env=("*",))


class TwoNodes(Struct, frozen=True):
    """The roots of two nodes that differ only in their secrets."""

    first: Path
    second: Path

    def compare(self, text: str, policy: Policy) -> tuple[str, str]:
        """Return everything that is visible with a configuration on each node."""
        return observe(text, self.first, FIRST, policy), observe(text, self.second, SECOND, policy)


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    """Give two nodes."""
    with TemporaryDirectory() as directory:
        roots = TwoNodes(Path(directory, "1"), Path(directory, "2"))
        for root, secret in ((roots.first, FIRST), (roots.second, SECOND)):
            paths = [path for path in SECRETS if root == roots.first or path not in ONLY_ON_THE_FIRST]
            build_tree(COMMON + "".join(f"{path} = {secret}\n" for path in paths), root)
        yield roots


def observe(text: str, root: Path, secret: str, policy: Policy) -> str:
    """Return what a configuration shows to an editor and to pods: errors, devices, reasons, probes and responses."""
    try:
        config = load_text(text, "c.yaml", policy)
    except ConfigInvalidError as error:
        return format_diagnostics(error.diagnostics)
    host = Host(root, stand_ins=True, environment={VARIABLE: secret, "NODE_NAME": "node-7"})
    return "\n".join(_observe_node(config, host)).replace(str(root), "ROOT")


def _observe_node(config: Config, host: Host) -> Iterator[str]:
    inventory = discover(config, host)
    yield from map(repr, inventory.outcomes)
    yield from map(repr, inventory.unmatched_globs)
    yield from map(repr, inventory.conflicts)
    yield from map(repr, explain(inventory, host))
    reader = CachedFileReader(host)
    for name, devices in inventory.devices.items():
        yield f"{name}: {devices}"
        resource = inventory.resources[name]
        for bound in bind_probes(resource, devices):
            yield f"{bound.request} {bound.error}"
            polling = bound.kind.polling
            if bound.request is not None and polling is not None and polling.effect is Effect.READ:
                answer, error = run_request(bound.request, reader, 5)
                result = "" if error else polling.evaluate(bound.spec.check, answer, None, 0)
                yield f"{answer} {error} {result}"
        offer = build_offer(resource, mark_healthy(*devices))
        for grant in offer.grants:
            try:
                yield repr(allocate_edits(offer, [grant], host))
            except AllocationError as error:
                yield str(error)


ATTRIBUTE = "devices: [{glob: /dev/x0, attributes: {s: %s}%s}]\nallocate: {env: {S: '${s|default:-}'}}"
READ = "devices: [{glob: /dev/x0, attributes: {s: {path: PATH}}}]"
FEATURES: Mapping[str, str] = {
    "attribute": ATTRIBUTE % ("{path: PATH}", ""),
    "part of a text": ATTRIBUTE % ("{path: PATH, find: '^(.)', all: true}", ""),
    "directory": ATTRIBUTE % ("{path: PATH, find: alpha, dir: true}", ""),
    "alternative": ATTRIBUTE % ("{path: [/sys/none, PATH]}", ""),
    "condition on a value": ATTRIBUTE % ("{path: PATH}", ", where: {s: {in: ['alpha*']}}"),
    "condition on existence": ATTRIBUTE % ("{path: PATH}", ", where: {s: {exists: true}}"),
    "ID": ATTRIBUTE % ("{path: PATH}", ", id: '${s|default:none}'"),
    "annotation": READ + "\nallocate: {annotations: {a.io/s: '${s}'}}",
    "CDI device": READ + "\nallocate: {cdiDevices: ['a.io/b=${s}']}",
    "variable name": READ + "\nallocate: {env: {'A_${s}': x}}",
    "group": "devices: [{glob: /dev/x0, attributes: {s: {path: PATH}}, groupBy: '${s}'}]",
    "URL of a probe": (READ + "\nhealth: {probes: [{http: {url: 'http://127.0.0.1:9/${s}'}}]}"),
    "path of a node": "devices: [{glob: /dev/x0, attributes: {s: {path: PATH}}, nodes: ['/dev/${s}']}]",
    "value of a probe": "devices: [{glob: /dev/x0}]\nhealth: {probes: [{file: {path: PATH, equals: alpha-secret}}]}",
    "expression of a probe": "devices: [{glob: /dev/x0}]\nhealth: {probes: [{file: {path: PATH, matches: '^a'}}]}",
    "limit of a probe": (
        "devices: [{glob: /dev/x0}]\n"
        "health: {probes: [{file: {path: /sys/class/x/x0/state, equalsFile: PATH, missing: ok}}]}"
    ),
}
"""Each way to read a file, with PATH in place of the path as a YAML string."""
EXISTENCE_FEATURES: Mapping[str, str] = {
    "probe of existence": "devices: [{glob: /dev/x0}]\nhealth: {probes: [{file: {path: PATH, exists: false}}]}",
    "candidate": "devices: [{glob: PATH, type: any}]",
    "companion": "devices: [{glob: /dev/x0, with: [{path: PATH, optional: true}]}]",
    "directory in sysfs": "devices: [{glob: /dev/x0, sysfs: PATH}]\nallocate: {env: {S: '${attr.b|default:-}'}}",
    "mount": "devices: [{glob: /dev/x0}]\nallocate: {mounts: [{hostPath: PATH, containerPath: /m, optional: true}]}",
}
"""Each way that names a path without reading it."""
ENVIRONMENT_FEATURES: Mapping[str, str] = {
    "variable": "devices: [{glob: /dev/x0}]\nallocate: {env: {S: '${env.GENPLUG_TEST_SECRET}'}}",
    "alternative": "devices: [{glob: /dev/x0}]\nallocate: {env: {S: '${usb.serial|or:env.GENPLUG_TEST_SECRET}'}}",
    "condition": "devices: [{glob: /dev/x0, where: {env.GENPLUG_TEST_SECRET: {in: ['alpha*']}}}]",
    "attribute": "devices: [{glob: /dev/x0, attributes: {s: {value: '${env.GENPLUG_TEST_SECRET}', find: '^a'}}}]",
    "path": "devices: [{glob: /dev/x0, attributes: {s: {path: '/sys/${env.GENPLUG_TEST_SECRET}'}}}]\n"
    "allocate: {env: {S: '${s}'}}",
    "probe": "devices: [{glob: /dev/x0}]\nhealth: {probes: [{file: {path: '/sys/${env.GENPLUG_TEST_SECRET}'}}]}",
}


def render(feature: str, path: str) -> str:
    """Return a configuration that uses a path."""
    return render_config(feature.replace("PATH", quote(path)))


@pytest.mark.parametrize("feature", FEATURES.values(), ids=FEATURES)
def test_secret_is_visible_only_if_the_policy_allows_to_read_it(nodes: TwoNodes, feature: str) -> None:
    for path in ("/etc/shadow", "/sys/out", "/sys/class/x/x0/password"):
        text = render(feature, path)
        first, second = nodes.compare(text, PERMISSIVE)
        # Otherwise the test would not notice a secret.
        assert first != second
        first, second = nodes.compare(text, STRICT)
        assert first == second


@pytest.mark.parametrize("feature", EXISTENCE_FEATURES.values(), ids=EXISTENCE_FEATURES)
@pytest.mark.parametrize("path", ONLY_ON_THE_FIRST)
def test_existence_of_a_file_is_not_visible(nodes: TwoNodes, feature: str, path: str) -> None:
    first, second = nodes.compare(render(feature, path), STRICT)
    assert first == second


def test_existence_of_a_file_would_be_visible_with_another_policy(nodes: TwoNodes) -> None:
    for name in ("probe of existence", "candidate"):
        first, second = nodes.compare(render(EXISTENCE_FEATURES[name], ONLY_ON_THE_FIRST[1]), PERMISSIVE)
        assert first != second


@pytest.mark.parametrize("feature", ENVIRONMENT_FEATURES.values(), ids=ENVIRONMENT_FEATURES)
def test_variable_of_the_agent_is_visible_only_if_the_policy_allows_it(nodes: TwoNodes, feature: str) -> None:
    text = render_config(feature)
    first, second = nodes.compare(text, PERMISSIVE)
    assert first != second
    first, second = nodes.compare(text, STRICT)
    assert first == second


def spell(path: str, how: int) -> str:
    """Return another spelling of a path: as a glob, or as a template that renders to the path or to a path above."""
    names = path.strip("/").split("/")
    directory, last = "/".join(names[:-1]), names[-1]
    return (
        path,
        path.replace("/", "//"),
        path.replace("/", "/./"),
        f"/{directory}/*",
        f"/{directory}/?{last[1:]}",
        f"/{directory}/[{last[0]}]{last[1:]}",
        f"/{directory}/{{{last},none}}",
        f"{{/sys/class/x/x0/state,{path}}}",
        f"/{names[0]}/**",
        f"/**/{last}",
        f"/sys/class/../..{path}",
        f"/sys/class/x/{'../' * 3}{path[1:]}",
        f"/proc/driver/..{path.removeprefix('/proc')}",
        f"/${{name|replace:x0:{names[0]}}}/{'/'.join(names[1:])}",
        f"${{name|replace:x0:{path}}}",
        f"/sys/${{name|replace:x0:../{path[1:]}}}",
        f"/{directory}/${{name|replace:x0:{last}}}",
        f"${{none|or:path|replace:/dev/x0:{path}}}",
        f"{path}/",
        f"{path}\0",
    )[how]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    feature=st.sampled_from([*FEATURES.values(), *EXISTENCE_FEATURES.values()]),
    path=st.sampled_from([*SECRETS, *ALIASES]),
    spelling=st.integers(0, 19),
)
def test_spelling_of_a_path_does_not_make_a_secret_visible(
    nodes: TwoNodes, feature: str, path: str, spelling: int
) -> None:
    first, second = nodes.compare(render(feature, spell(path, spelling)), STRICT)
    assert first == second


MAGIC_PATHS = (
    *("/proc/self/environ", "/proc/thread-self/environ", "/proc/self/root/etc/passwd", "/proc/self/cwd/pyproject.toml"),
    *("/proc/1/root/etc/passwd", "/dev/fd/../../self/environ", "/proc/driver/../self/environ", "/sys/../etc/passwd"),
)
"""Paths of this machine through links that the kernel follows without their text (proc(5))."""


@pytest.mark.parametrize("path", MAGIC_PATHS)
def test_links_of_the_kernel_lead_to_no_file_of_another_place(path: str) -> None:
    host = Host(Path("/"), environment={})
    for spelling in (path, spell(path, 13), spell(path, 16), spell(path, 3), spell(path, 5)):
        for feature in (FEATURES["attribute"], FEATURES["limit of a probe"]):
            text = render(feature.replace("/dev/x0", "/dev/null"), spelling)
            try:
                config = load_text(text, "c.yaml", STRICT)
            except ConfigInvalidError:
                continue
            output = "\n".join(_observe_node(config, host))
            # Every Linux has this account, and this process has this variable.
            assert "root:x:0" not in output
            assert "PATH=" not in output
            assert "[project]" not in output


LITERAL = [path for path in ALIASES if path.startswith(("/sys/", "/run/udev/data/", "/proc/driver/"))]
READS = {f"s{number}": path for number, path in enumerate([*LITERAL, "/sys/class/*/*/k*", spell("/etc/shadow", 13)])}
"""Attributes whose paths are valid in a configuration, and lead to secrets."""
BODY = "\n".join(
    (
        "devices:",
        "- glob: '/dev/{x0,out,fd/*,shm/*}'",
        "  type: any",
        f"  attributes: {json.dumps({name: {'path': path} for name, path in READS.items()})}",
        f"allocate: {{env: {json.dumps({name.upper(): f'${{{name}|default:-}}' for name in READS})}}}",
        "health: {probes: [{file: {path: /sys/out}}, {name: k, file: {path: '/sys/class/*/*/k*', missing: ok}}]}",
    )
)


def read_archive(path: Path) -> bytes:
    """Return the names and contents of all files of an archive, and of the archives in it."""
    found = b""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            content = file.read() if file is not None else b""
            found += f"{member.name} {member.linkname}\n".encode() + content
            if member.name.endswith(".tar.gz"):
                inner = path.with_name(f"inner-{path.name}")
                inner.write_bytes(content)
                found += read_archive(inner)
    return found


async def test_no_output_of_a_running_agent_has_a_secret(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for path in SECRETS:
        node.write(path, FIRST)
    for line in COMMON.splitlines():
        path, _, target = line.partition(" -> ")
        if target:
            node.link(path, target)
    monkeypatch.setenv(VARIABLE, FIRST)
    async with run_attacked_agent(node) as attacked:
        rejected = await attacked.attempt(ENVIRONMENT_FEATURES["variable"])
        assert "error[GP019]" in rejected.rejection
        outcome = await attacked.attempt(BODY, 2)
        assert outcome.rejection == ""
        assert outcome.responses or outcome.refusals
        outputs = await attacked.collect_outputs()
        options = ["--config", str(node.config_dir), "--root", str(node.root)]
        address = f"127.0.0.1:{attacked.agent.http_port}"
        kubelet = ["--kubelet-dir", str(node.kubelet_dir), "--address", address]
        for command in (["capture", *options], ["bundle", *options, *kubelet]):
            output = tmp_path / f"{command[0]}.tar.gz"
            assert await asyncio.to_thread(main, [*command, "-o", str(output)]) == 0
            assert FIRST.encode() not in read_archive(output)
    assert "read.allow" in outputs
    assert FIRST not in f"{rejected} {outcome} {outputs}"
