"""Names, mounts, programs and CDI devices that the policy denies to a configuration."""

import json

import pytest

from genplug.spec.diagnostic import ErrorCode
from genplug.spec.policy import DEFAULT_POLICY, Policy
from tests.support.configs import (
    CONFIG_HEADER,
    DEVICES,
    NAME,
    find_diagnostics,
    read_policy,
    render_config,
    render_pre_start,
)


def render_mount(host_path: str, *, writable: bool = False) -> str:
    read_only = ", readOnly: false" if writable else ""
    return f"{DEVICES}\nallocate: {{mounts: [{{hostPath: '{host_path}', containerPath: /m{read_only}}}]}}"


def render_cdi_device(name: str) -> str:
    return f"{DEVICES}\nallocate: {{cdiDevices: ['{name}']}}"


def find_denials(body: str, policy: Policy, name: str = NAME) -> list[str]:
    """Return the messages with which a policy denies a resource."""
    found = find_diagnostics(render_config(body, name), policy)
    return [diagnostic.message for diagnostic in found if diagnostic.code is ErrorCode.NOT_ALLOWED]


@pytest.mark.parametrize(
    ("globs", "name", "is_allowed"),
    [
        ("['*']", "rdma/hca", True),
        ("[nvidia.com/*]", "nvidia.com/gpu", True),
        ("[nvidia.com/*]", "nvidia.com.evil.example/gpu", False),
        ("[nvidia.com/gpu]", "nvidia.com/gpu2", False),
        ("['{amd,nvidia}.com/gpu']", "amd.com/gpu", True),
        ("['nvidia.com/gpu.[!x]*']", "nvidia.com/gpu.x", False),
        ("[rdma/HCA]", "rdma/hca", False),
        ("[]", "rdma/hca", False),
    ],
)
def test_resource_name_must_be_allowed(globs: str, name: str, *, is_allowed: bool) -> None:
    denials = find_denials(DEVICES, read_policy(f"resources: {globs}"), name)
    assert (not denials) is is_allowed
    for denial in denials:
        assert denial.startswith(f"the resource '{name}' is refused by 'resources' of policy.yaml, which allows ")


def test_alias_must_be_allowed() -> None:
    denials = find_denials(
        f"{DEVICES}\naliases: [nvidia.com/gpu, old.example/gpu]",
        read_policy("resources: [nvidia.com/*]"),
        "nvidia.com/x",
    )
    assert denials == [
        "the resource 'old.example/gpu' is refused by 'resources' of policy.yaml, which allows nvidia.com/*"
    ]


def test_invalid_resource_name_is_not_checked_against_the_policy() -> None:
    found = find_diagnostics(render_config(DEVICES, "wrong"), read_policy("resources: [nvidia.com/*]"))
    assert [diagnostic.code for diagnostic in found] == [ErrorCode.RESOURCE_NAME]


def test_denied_names_are_reported_at_their_locations() -> None:
    body = """
devices: [{glob: /dev/x}]
allocate: {cdiDevices: ["nvidia.com/gpu=${index}", vendor.com/x=all]}
aliases: [a.io/y]
"""
    policy = read_policy("resources: [example.com/x]\ncdi: {allow: [nvidia.com/gpu=*]}")
    found = find_diagnostics(render_config(body), policy)
    assert [(diagnostic.code, str(diagnostic.location)) for diagnostic in found] == [
        (ErrorCode.NOT_ALLOWED, "c.yaml:6:56"),
        (ErrorCode.NOT_ALLOWED, "c.yaml:7:15"),
    ]
    assert find_diagnostics(render_config(body), read_policy("resources: ['*']\ncdi: {allow: ['*']}")) == ()


@pytest.mark.parametrize("path", ["/opt", "/opt/lib", "/${name}", "${path}"])
def test_default_policy_allows_no_mount(path: str) -> None:
    (denial,) = find_denials(render_mount(path), DEFAULT_POLICY)
    assert denial == f"the mount of {path!r} is refused by 'mounts.allow' of the default policy, which allows nothing"


@pytest.mark.parametrize(
    ("globs", "path", "is_allowed"),
    [
        ("[/opt]", "/opt", True),
        ("[/opt]", "/opt/", True),
        ("[/opt]", "/opt/a/b", True),
        ("[/opt]", "/option", False),
        ("[/opt]", "/", False),
        ("[/opt/*]", "/opt", False),
        ("[/opt/*/lib]", "/opt/a/lib/x", True),
        ("[/opt/*/lib]", "/opt/a/bin", False),
        ("['/opt/**']", "/opt/a/.hidden", True),
        ("['/**']", "/etc/shadow", True),
        ("[/srv, '/{usr,opt}/lib']", "/usr/lib", True),
    ],
)
def test_mount_is_allowed_if_a_glob_matches_the_path_or_a_parent(globs: str, path: str, *, is_allowed: bool) -> None:
    for rule, writable in (("allow", False), ("writable", False), ("writable", True)):
        denials = find_denials(render_mount(path, writable=writable), read_policy(f"mounts: {{{rule}: {globs}}}"))
        assert (not denials) is is_allowed


def test_writable_mount_needs_a_writable_rule() -> None:
    (denial,) = find_denials(
        render_mount("/opt/a", writable=True), read_policy("mounts: {allow: [/opt], writable: [/opt/b]}")
    )
    assert denial == "the mount of '/opt/a' is refused by 'mounts.writable' of policy.yaml, which allows /opt/b"


def test_templated_mount_is_not_checked_at_load() -> None:
    assert find_denials(render_mount("/state/${name}"), read_policy("mounts: {allow: [/opt]}")) == []


def test_default_policy_allows_no_program() -> None:
    (denial,) = find_denials(render_pre_start("/opt/reset"), DEFAULT_POLICY)
    assert denial == "running '/opt/reset' is refused by 'exec.allow' of the default policy, which allows nothing"


@pytest.mark.parametrize(
    ("globs", "program", "is_allowed"),
    [
        ("[/opt/reset]", "/opt/reset", True),
        ("[/opt/reset]", "/opt/reset2", False),
        ("[/opt]", "/opt/reset", False),
        ("[/opt/*]", "/opt/reset", True),
        ("[/opt/*]", "/opt/a/reset", False),
        ("['/opt/**']", "/opt/a/reset", True),
        ("['/opt/**']", "/opt", True),
        ("['/usr/{bin,sbin}/x']", "/usr/sbin/x", True),
        ("[/a, /b]", "/b", True),
    ],
)
def test_program_is_allowed_if_a_glob_matches_its_path(globs: str, program: str, *, is_allowed: bool) -> None:
    denials = find_denials(render_pre_start(program), read_policy(f"exec: {{allow: {globs}}}"))
    assert (not denials) is is_allowed


@pytest.mark.parametrize(
    ("globs", "name", "is_allowed"),
    [
        ("['*']", "a.io/b=x", True),
        ("[nvidia.com/gpu=*]", "nvidia.com/gpu=0", True),
        ("[nvidia.com/gpu=*]", "nvidia.com/gpu=0:1", True),
        ("[nvidia.com/gpu=*]", "nvidia.com/gpu2=0", False),
        ("[nvidia.com/gpu=*]", "evil.io/gpu=nvidia.com", False),
        ("['{nvidia,amd}.com/gpu=0']", "amd.com/gpu=0", True),
        ("[]", "a.io/b=x", False),
    ],
)
def test_cdi_device_name_must_be_allowed(globs: str, name: str, *, is_allowed: bool) -> None:
    denials = find_denials(render_cdi_device(name), read_policy(f"cdi: {{allow: {globs}}}"))
    assert (not denials) is is_allowed
    for denial in denials:
        assert denial.startswith(f"the CDI device '{name}' is refused by 'cdi.allow' of policy.yaml, which allows ")


@pytest.mark.parametrize("name", ["a.io/b=x", "nvidia.com/gpu=0", "management.nvidia.com/gpu=all", "example.com/x=x0"])
def test_default_policy_allows_no_cdi_device(name: str) -> None:
    (denial,) = find_denials(render_cdi_device(name), DEFAULT_POLICY)
    assert denial == f"the CDI device {name!r} is refused by 'cdi.allow' of the default policy, which allows nothing"


def render_allocate(key: str, name: str, value: str = "x") -> str:
    return f"{DEVICES}\nallocate: {json.dumps({key: {name: value}})}"


@pytest.mark.parametrize(
    "key",
    [
        "run.oci.keep_original_groups",
        "org.systemd.property.CPUWeight",
        "io.katacontainers.config.hypervisor.path",
        "devices.nri.io/container.x",
        "container.apparmor.security.beta.kubernetes.io/x",
        "IO.KUBERNETES.x",
        "x.cdi.k8s.io/x",
        "example.com/x",
    ],
)
def test_default_policy_allows_no_annotation(key: str) -> None:
    (denial,) = find_denials(render_allocate("annotations", key), DEFAULT_POLICY)
    assert (
        denial
        == f"the annotation {key!r} is refused by 'annotations.allow' of the default policy, which allows nothing"
    )
    assert find_denials(render_allocate("annotations", key), read_policy("annotations: {allow: ['*']}")) == []


def test_annotation_is_allowed_if_a_glob_matches_its_key() -> None:
    policy = read_policy("annotations: {allow: ['example.com/*']}")
    assert find_denials(render_allocate("annotations", "example.com/x"), policy) == []
    assert len(find_denials(render_allocate("annotations", "example.org/x"), policy)) == 1


def test_annotation_of_the_kubelet_is_invalid_under_any_policy() -> None:
    policy = read_policy("annotations: {allow: ['*']}")
    for key in ("cdi.k8s.io/x", "io.kubernetes.cri/x"):
        (diagnostic,) = find_diagnostics(render_config(render_allocate("annotations", key)), policy)
        assert diagnostic.code is ErrorCode.NAME


DENIED_VARIABLES = [
    *("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "GCONV_PATH", "PATH", "BASH_ENV", "ENV", "IFS"),
    *("PYTHONPATH", "PYTHONSTARTUP", "PERL5OPT", "RUBYOPT", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"),
    *("DOTNET_STARTUP_HOOKS", "KUBERNETES_SERVICE_HOST", "KUBERNETES_PORT", "DB_SERVICE_HOST", "DB_PORT_5432_TCP_ADDR"),
    *("http_proxy", "HTTPS_PROXY", "SSL_CERT_FILE", "GIT_SSH_COMMAND", "BASH_FUNC_ls%%", "NVIDIA_DRIVER_CAPABILITIES"),
    *("NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_REQUIRE_CUDA", "NVIDIA_DISABLE_REQUIRE", "CUDA_VERSION"),
    *("Http_Proxy", "socks_proxy", "Npm_Config_Registry", "yarn_registry", "PS1", "MAILPATH", "BASH_LOADABLES_PATH"),
    *("VK_ICD_FILENAMES", "VK_ADD_LAYER_PATH", "OCL_ICD_VENDORS", "__EGL_VENDOR_LIBRARY_DIRS", "LIBVA_DRIVERS_PATH"),
    *("GST_PLUGIN_PATH", "CUDA_INJECTION64_PATH", "NCCL_NET_PLUGIN", "UCX_MODULE_DIR", "XDG_DATA_DIRS", "KRB5_CONFIG"),
    *("AWS_CONFIG_FILE", "SPARK_JAVA_OPTS", "HADOOP_JAVA_OPTIONS", "MAKEFLAGS", "TERMINFO"),
]


@pytest.mark.parametrize("name", [name for name in DENIED_VARIABLES if "%" not in name])
def test_default_policy_denies_variables_that_control_programs(name: str) -> None:
    (denial,) = find_denials(render_allocate("env", name), DEFAULT_POLICY)
    assert denial.startswith(f"the environment variable {name!r} is refused by 'env.allow' of the default policy: it ")
    assert find_denials(render_allocate("env", name), read_policy(f"env: {{allow: [{name}]}}")) == []


@pytest.mark.parametrize(
    "name",
    [
        *("DAX_DEVICES", "PCIDEVICE_INTEL_COM_SRIOV", "NODE_NAME", "DEVICE_PORT", "path", "CUDA_DEVICE_ORDER"),
        *("NCCL_IB_HCA", "HL_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LIBVA_DRIVER_NAME", "CUDA_CACHE_PATH"),
        *("AWS_NEURON_VISIBLE_DEVICES", "AWS_REGION", "NCCL_TOPO_FILE", "UCX_NET_DEVICES", "PROXY_PORT", "ld_preload"),
    ],
)
def test_default_policy_allows_other_variables(name: str) -> None:
    assert find_denials(render_allocate("env", name, "1"), DEFAULT_POLICY) == []


@pytest.mark.parametrize("name", ["NVIDIA_VISIBLE_DEVICES", "HABANA_VISIBLE_DEVICES", "AMD_VISIBLE_DEVICES"])
@pytest.mark.parametrize("value", ["all", "void", "none", "ALL", "0,all", " all", "nvidia.com/gpu=all"])
def test_default_policy_denies_all_devices_or_none(name: str, value: str) -> None:
    (denial,) = find_denials(render_allocate("env", name, value), DEFAULT_POLICY)
    assert "it selects the devices of the container by the word" in denial
    assert find_denials(render_allocate("env", name, value), read_policy(f"env: {{allow: [{name}]}}")) == []


@pytest.mark.parametrize("value", ["vendor.example/gpu=0", "0, vendor.example/class=x"])
def test_default_policy_denies_cdi_devices_in_a_variable(value: str) -> None:
    (denial,) = find_denials(render_allocate("env", "NVIDIA_VISIBLE_DEVICES", value), DEFAULT_POLICY)
    assert "it selects a CDI device" in denial
    assert find_denials(render_allocate("env", "DEVICES", value), DEFAULT_POLICY) == []


def test_policy_allows_a_single_value_of_a_variable() -> None:
    policy = read_policy("env: {allow: [NVIDIA_VISIBLE_DEVICES=void]}")
    assert find_denials(render_allocate("env", "NVIDIA_VISIBLE_DEVICES", "void"), policy) == []
    assert len(find_denials(render_allocate("env", "NVIDIA_VISIBLE_DEVICES", "all"), policy)) == 1


def test_denied_variable_is_reported_at_its_name() -> None:
    (diagnostic,) = find_diagnostics(render_config(f"{DEVICES}\nallocate:\n  env:\n    LD_PRELOAD: /x"))
    assert (diagnostic.code, str(diagnostic.location)) == (ErrorCode.NOT_ALLOWED, "c.yaml:8:9")


@pytest.mark.parametrize("name", ["nvidia.com/gpu=${index}", "evil.io/${name}=x"])
def test_templated_cdi_device_is_not_checked_at_load(name: str) -> None:
    assert find_denials(render_cdi_device(name), read_policy("cdi: {allow: [a.io/*]}")) == []
    assert len(find_denials(render_cdi_device(name), DEFAULT_POLICY)) == 1


@pytest.mark.parametrize(
    ("defaults", "column", "key_path"),
    [
        ("{allocate: {mounts: [{hostPath: /etc, containerPath: /e}]}}", 43, "defaults.allocate.mounts[0]"),
        ("{preStart: {exec: {command: [/bin/sh]}}}", 40, "defaults.preStart.exec.command"),
    ],
)
def test_denied_default_is_reported_once_at_its_location(defaults: str, column: int, key_path: str) -> None:
    resources = f"{{a.io/x: {{{DEVICES}}}, a.io/y: {{{DEVICES}}}}}"
    (diagnostic,) = find_diagnostics(f"{CONFIG_HEADER}defaults: {defaults}\nresources: {resources}\n", DEFAULT_POLICY)
    assert (str(diagnostic.location), diagnostic.key_path) == (f"c.yaml:3:{column}", key_path)


def test_supplemental_group_must_be_allowed() -> None:
    body = f"{DEVICES}\nallocate: {{inject: cdi, supplementalGroups: [44, 6]}}"
    assert find_denials(body, DEFAULT_POLICY) == [
        f"the group {group} is refused by 'supplementalGroups.allow' of the default policy, which allows nothing"
        for group in (44, 6)
    ]
    assert find_denials(body, read_policy("supplementalGroups: {allow: [44, 992]}")) == [
        "the group 6 is refused by 'supplementalGroups.allow' of policy.yaml, which allows 44, 992"
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/", "http://127.0.0.1:0/", "http://[::1/", "http://[:::]/"])
def test_url_with_an_invalid_host_or_port_is_reported_at_load(url: str) -> None:
    health = f"{DEVICES}\nhealth: {{probes: [{{http: {{url: '{url}'}}}}]}}"
    messages = [diagnostic.message for diagnostic in find_diagnostics(render_config(health), DEFAULT_POLICY)]
    assert messages == ["the URL has an invalid host or port"]


@pytest.mark.parametrize("url", ["http://me:pw@127.0.0.1:9400/", "http://me@127.0.0.1/"])
def test_url_with_credentials_is_reported_at_load(url: str) -> None:
    health = f"{DEVICES}\nhealth: {{probes: [{{http: {{url: '{url}'}}}}]}}"
    messages = [diagnostic.message for diagnostic in find_diagnostics(render_config(health), DEFAULT_POLICY)]
    assert messages == ["the URL has a user name or a password, which the probe does not send"]


ENVIRONMENT_READS = {
    "allocate": "allocate: {env: {A: '${env.TOKEN}'}}",
    "alternative": "allocate: {env: {A: '${usb.serial|or:env.TOKEN}'}}",
    "default": "allocate: {env: {A: '${env.TOKEN|default:x}'}}",
    "name of a variable": "allocate: {env: {'A_${env.TOKEN}': x}}",
    "annotation": "allocate: {annotations: {a.io/b: '${env.TOKEN}'}}",
    "mount": "allocate: {mounts: [{hostPath: '/opt/${env.TOKEN}', containerPath: /m}]}",
    "CDI device": "allocate: {cdiDevices: ['a.io/b=${env.TOKEN}']}",
    "probe": "health: {probes: [{http: {url: 'http://127.0.0.1:1/${env.TOKEN}'}}]}",
    "file of a probe": "health: {probes: [{file: {path: '/sys/${env.TOKEN}', equals: x}}]}",
    "argument": "preStart: {exec: {command: [/opt/x, '${env.TOKEN}']}}",
}
ENVIRONMENT_READS_OF_SOURCES = {
    "condition": "where: {env.TOKEN: {exists: true}}",
    "ID": "id: '${env.TOKEN}'",
    "text of an attribute": "attributes: {a: {value: '${env.TOKEN}'}}",
    "path of an attribute": "attributes: {a: {path: '/sys/${env.TOKEN}'}}",
    "expression of an attribute": "attributes: {a: {path: /sys/a, find: '(.)${env.TOKEN}'}}",
    "companion": "with: ['/dev/${env.TOKEN}']",
    "sysfs": "sysfs: '/sys/${env.TOKEN}'",
}


@pytest.mark.parametrize(
    "body",
    [
        *(f"{DEVICES}\n{body}" for body in ENVIRONMENT_READS.values()),
        *(f"devices: [{{glob: /dev/x*, {source}}}]" for source in ENVIRONMENT_READS_OF_SOURCES.values()),
    ],
    ids=[*ENVIRONMENT_READS, *ENVIRONMENT_READS_OF_SOURCES],
)
def test_environment_of_the_agent_is_read_only_if_the_policy_allows_the_variable(body: str) -> None:
    permissive = "mounts: {allow: ['/**']}\nannotations: {allow: ['*']}\ncdi: {allow: ['*']}\nexec: {allow: ['/**']}\n"
    denials = find_denials(body, read_policy(permissive))
    assert denials
    assert all(
        denial.startswith(
            "reading the environment variable 'TOKEN' of the agent is refused by 'read.env' of policy.yaml, which "
            "allows NODE_NAME, "
        )
        for denial in denials
    )
    assert find_denials(body, read_policy(f"{permissive}read: {{env: [TO*]}}")) == []


def test_variable_in_the_name_of_a_resource_must_be_allowed() -> None:
    assert len(find_denials(DEVICES, DEFAULT_POLICY, "'a.io/${env.TOKEN}'")) == 1
    assert find_denials(DEVICES, DEFAULT_POLICY, "'a.io/${env.NODE_NAME}'") == []
