"""A configuration editor cannot change which programs a container runs, or which devices a container runtime adds."""

import pytest

from genplug.spec.container_rules import mount_target_error, variable_error
from genplug.spec.policy import DEFAULT_POLICY
from genplug.testing.node.fake_node import FakeNode
from tests.attacks.editor.attempts import quote, run_attacked_agent
from tests.support.configs import read_policy
from tests.support.resources import write_policy

MOUNTS = "mounts: {allow: [/opt], writable: [/opt/w]}\n"
PROGRAMS = [
    *("/bin/sh", "/usr/bin/sh", "/usr//bin/./sh", "//usr/bin/sh", "/bin/bash", "/usr/bin/busybox", "/usr/bin/env"),
    *("/sbin/init", "/usr/sbin/init", "/init", "/usr/lib/systemd/systemd", "/usr/local/bin/tini", "/usr/bin/sudo"),
    *("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-x86_64.so.1", "/lib64/ld64.so.2"),
    *("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/usr/lib/ld-2.31.so", "/lib/ld.so.1"),
    *("/usr/lib/x86_64-linux-gnu/libc.so.6", "/lib/libc.musl-x86_64.so.1", "/usr/lib64/libpthread.so.0"),
    *("/lib/x86_64-linux-gnu/libnss_files.so.2", "/usr/lib/libc-2.31.so", "/usr/lib64/libstdc++.so.6"),
    *("/etc/ld.so.preload", "/etc/ld.so.conf.d/a.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls"),
    *("/proc/sys/kernel/core_pattern", "/sys/fs/cgroup", "/dev", "/dev/null", "/run/secrets/x", "/root/.ssh"),
    *("/var/run/secrets/kubernetes.io/serviceaccount/token", "/bin", "/usr/bin", "/usr/lib"),
]
GOVERNED = ["/usr/bin/python3", "/bin/cat", "/usr/local/bin/app", "/usr/sbin/nginx", "/usr/libexec/git-core/git"]
FREE = [
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "/usr/lib/libm2m.so",
    "/opt/driver",
    "/usr/local/nvidia/bin",
    "/ld.so",
]


@pytest.mark.parametrize("path", PROGRAMS)
def test_mount_over_programs_and_libraries_is_refused_under_every_policy(path: str) -> None:
    assert mount_target_error(path, read_policy("mounts: {allow: ['/**'], targets: ['/**']}"))


@pytest.mark.parametrize("path", GOVERNED)
def test_mount_in_a_directory_of_programs_needs_a_rule(path: str) -> None:
    assert mount_target_error(path, DEFAULT_POLICY) == (
        "is refused by 'mounts.targets' of the default policy, which allows nothing"
    )
    assert not mount_target_error(path, read_policy(f"mounts: {{targets: [{path}]}}"))
    assert mount_target_error(path, read_policy(f"mounts: {{targets: [{path}.d]}}"))


@pytest.mark.parametrize("path", FREE)
def test_mount_at_another_path_needs_no_rule(path: str) -> None:
    assert not mount_target_error(path, DEFAULT_POLICY)


TARGETS = ("/usr/bin/sh", "/usr//bin/sh", "/usr/bin/python3", "/lib64/ld-linux-x86-64.so.2", "/opt/../usr/bin/sh")


@pytest.mark.parametrize("target", TARGETS)
async def test_rendered_mount_target_is_refused_to_the_pod(node: FakeNode, target: str) -> None:
    node.write("/opt/w/tool", "")
    async with run_attacked_agent(node, write_policy(node, MOUNTS)) as attacked:
        mounts = "allocate: {mounts: [{hostPath: /opt/w/tool, containerPath: %s, readOnly: false}]}"
        outcome = await attacked.attempt(f"devices: [{{glob: /dev/x*}}]\n{mounts % quote(target)}")
        assert "error[GP0" in outcome.rejection
        # The text before the first template decides nothing, and a value cannot be checked at load.
        attributes = f"attributes: {{t: {{value: '${{name|replace:x0:{target}}}'}}}}"
        outcome = await attacked.attempt(f"devices: [{{glob: /dev/x*, {attributes}}}]\n{mounts % quote('${t}')}")
        # The device is unhealthy before a pod requests it.
        assert (outcome.rejection, outcome.responses, outcome.healthy) == ("", (), frozenset())
        [refusal] = outcome.refusals
        assert f"a mount at '{target}'" in refusal


RUNTIME_VARIABLES = {
    "NVIDIA_VISIBLE_DEVICES": "/dev/nvidia*",
    "AMD_VISIBLE_DEVICES": "/dev/{kfd,dri/renderD*}",
    "HABANA_VISIBLE_DEVICES": "/dev/{hl,accel/accel}*",
    "ASCEND_VISIBLE_DEVICES": "/dev/davinci*",
    "AWS_NEURON_VISIBLE_DEVICES": "/dev/neuron*",
    "MTHREADS_VISIBLE_DEVICES": "/dev/mtgpu.*",
}


@pytest.mark.parametrize(("name", "nodes"), RUNTIME_VARIABLES.items())
@pytest.mark.parametrize("value", ["0", "0,1,2,3", "0-7", "GPU-1"])
def test_variable_that_selects_devices_needs_a_policy_that_allows_the_devices(
    name: str, nodes: str, value: str
) -> None:
    other = read_policy("devices: {allow: [/dev/fuse]}")
    assert "makes a container runtime add the devices of its value" in variable_error(name, value, other)
    assert not variable_error(name, value, read_policy(f"devices: {{allow: ['{nodes}']}}"))
    denied = read_policy(f"devices: {{deny: ['{nodes}']}}")
    assert variable_error(name, value, denied).startswith("is refused by 'env.allow' of policy.yaml")
    assert not variable_error(name, value, read_policy(f"devices: {{deny: ['{nodes}']}}\nenv: {{allow: [{name}]}}"))
    assert not variable_error(name, value, DEFAULT_POLICY)


def test_card_that_the_policy_denies_denies_the_variable() -> None:
    for rules in ("devices: {deny: [/dev/nvidia3]}", "devices: {allow: ['/dev/nvidia[0-3]']}"):
        assert variable_error("NVIDIA_VISIBLE_DEVICES", "0", read_policy(rules))
    assert not variable_error("HABANA_VISIBLE_DEVICES", "0", read_policy("devices: {allow: ['/dev/hl*']}"))


LOADER_VARIABLES = [
    *("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "PATH", "BASH_ENV", "ENV", "IFS", "PYTHONPATH"),
    *("NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "RUBYOPT", "PERL5LIB", "PERL5OPT", "http_proxy", "HTTPS_PROXY", "NO_PROXY"),
    *("KUBERNETES_SERVICE_HOST", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_REQUIRE_CUDA", "NVIDIA_MIG_CONFIG_DEVICES"),
    *("NVIDIA_MIG_MONITOR_DEVICES", "NVIDIA_IMEX_CHANNELS", "ASCEND_RUNTIME_OPTIONS", "ASCEND_VNPU_SPECS"),
    *("MTHREADS_DRIVER_CAPABILITIES", "OMP_TOOL_LIBRARIES", "ZE_ENABLE_ALT_DRIVERS", "UR_ADAPTERS_FORCE_LOAD"),
    *("SDL_DYNAMIC_API", "HDF5_PLUGIN_PATH", "TPU_LIBRARY_PATH", "JUPYTER_CONFIG_PATH", "IPYTHONDIR", "CUDA_VERSION"),
]


@pytest.mark.parametrize("name", LOADER_VARIABLES)
def test_variable_that_controls_what_a_container_runs_is_refused(name: str) -> None:
    assert "is refused by 'env.allow' of the default policy: it " in variable_error(name, "x", DEFAULT_POLICY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LD_${t|replace:x0:PRELOAD}", "/opt/w/hook.so"),
        ("${t|replace:x0:NVIDIA}_VISIBLE_DEVICES", "0"),
        ("NVIDIA_VISIBLE_DEVICES", "${t|replace:x0:0,1}"),
        ("HTTP_${t|replace:x0:PROXY}", "http://10.0.0.1"),
        ("AMD_${t|replace:x0:VISIBLE}_DEVICES", "${t|replace:x0:all}"),
    ],
)
async def test_rendered_name_and_value_of_a_variable_are_refused_to_the_pod(
    node: FakeNode, name: str, value: str
) -> None:
    source = "devices: [{glob: /dev/x*, attributes: {t: {value: '${name}'}}}]"
    async with run_attacked_agent(node, write_policy(node, "devices: {allow: ['/dev/{x,other}*']}\n")) as attacked:
        outcome = await attacked.attempt(f"{source}\nallocate: {{env: {{{quote(name)}: {quote(value)}}}}}")
    assert outcome.responses == ()
    [refusal] = outcome.refusals or [outcome.rejection]
    assert "is refused by 'env.allow'" in refusal
