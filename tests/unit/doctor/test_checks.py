"""The checks as functions of facts: each check has facts with which it is ok, and facts with which it is not."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from genplug.agent import Settings
from genplug.doctor.checks import CHECKS
from genplug.doctor.facts import (
    CgroupLimit,
    Clock,
    Configuration,
    ConfiguredResource,
    Driver,
    Facts,
    Inotify,
    Kubelet,
    Machine,
    Mount,
    Needs,
    PluginsDirectory,
    Runtime,
    SecurityModules,
    Socket,
    Unknown,
)
from genplug.doctor.findings import Report, Severity, run_checks
from tests.support.golden import check_golden
from tests.support.outputs import check_output
from tests.unit.doctor.example import CONFIGURATION, FACTS, PROCESS, expect_finding, run_check

GOLDEN = Path(__file__).parent / "golden"
ERROR, WARNING, OK, UNKNOWN = Severity.ERROR, Severity.WARNING, Severity.OK, Severity.UNKNOWN
IN_CONTAINER = Machine(Settings((), root=Path("/host")))
CDI = replace(CONFIGURATION, needs=Needs(cdi=True, cdi_files=True))
DRA = replace(CONFIGURATION, needs=Needs(cdi=True, cdi_files=True, dra=True))


def with_configuration(configuration: Configuration) -> Facts:
    return replace(FACTS, configuration=configuration)


def with_needs(needs: Needs) -> Facts:
    return with_configuration(replace(CONFIGURATION, needs=needs))


BAD: list[tuple[str, Facts, Severity, str]] = [
    ("configuration", with_configuration(Configuration(("a.yaml:1:1: GP001",))), ERROR, "a.yaml:1:1: GP001"),
    ("configuration", with_configuration(Configuration(warnings=("a.yaml: GP101",))), WARNING, "GP101"),
    ("scan", with_configuration(Configuration(stalls=("a.io/x: read hangs",))), ERROR, "read hangs"),
    (
        "devices",
        with_configuration(Configuration(resources=(ConfiguredResource("a.io/x", 0, 0, reasons=("no match",)),))),
        WARNING,
        "a.io/x has no device: no match",
    ),
    (
        "expected-devices",
        with_configuration(Configuration(resources=(ConfiguredResource("a.io/x", 3, 2, 3),))),
        ERROR,
        "a.io/x has 2 of 3 expected healthy devices",
    ),
    ("programs", with_configuration(Configuration(program_errors=("/x does not exist",))), ERROR, "/x does not exist"),
    ("kubelet-directory", replace(FACTS, plugins=PluginsDirectory("/k: no such directory")), ERROR, "/k: no such"),
    ("kubelet-socket", replace(FACTS, kubelet_socket=Socket(Path("/k"), "refuses")), ERROR, "/k refuses"),
    ("pod-resources-socket", replace(FACTS, pod_resources=Socket(Path("/p"), "is gone")), WARNING, "/p is gone"),
    ("kubelet-root-dir", replace(FACTS, kubelet=Kubelet("/data/kubelet")), WARNING, "--root-dir /data/kubelet"),
    ("kubelet-root-dir", replace(FACTS, kubelet=Kubelet()), UNKNOWN, "no kubelet process"),
    (
        "kubelet-features",
        replace(FACTS, kubelet=Kubelet("", "/c.yaml", {"DevicePlugins": False})),
        ERROR,
        "/c.yaml disables the feature gate DevicePlugins",
    ),
    (
        "kubelet-features",
        replace(FACTS, kubelet=Kubelet("", "/c", {"DevicePluginCDIDevices": False}), configuration=CDI),
        ERROR,
        "DevicePluginCDIDevices",
    ),
    (
        "kubelet-features",
        replace(FACTS, kubelet=Kubelet("", "/c", {"DynamicResourceAllocation": False}), configuration=DRA),
        ERROR,
        "DynamicResourceAllocation",
    ),
    (
        "dra-directories",
        replace(FACTS, driver=Driver(("/k/plugins_registry does not exist",)), configuration=DRA),
        ERROR,
        "/k/plugins_registry does not exist",
    ),
    (
        "api-server-account",
        replace(FACTS, driver=Driver(account_error="no token"), configuration=DRA),
        ERROR,
        "no token",
    ),
    (
        "kubelet-features",
        replace(FACTS, kubelet=Kubelet("", "/c", {"KubeletPodResources": False})),
        WARNING,
        "KubeletPodResources",
    ),
    (
        "other-plugins",
        replace(
            FACTS, registered={"a.io/x": frozenset({"0"})}, plugins=PluginsDirectory(sockets=("a.sock", "kubelet.sock"))
        ),
        WARNING,
        "other device IDs for a.io/x; sockets of other plugins: a.sock",
    ),
    ("user", replace(FACTS, process=replace(PROCESS, user=1000)), WARNING, "user ID 1000"),
    (
        "user-namespace",
        replace(FACTS, process=replace(PROCESS, is_in_initial_user_namespace=False, uid_map="0 1000 1")),
        WARNING,
        "0 1000 1",
    ),
    (
        "security-modules",
        replace(
            FACTS,
            security=SecurityModules("enforcing"),
            process=replace(PROCESS, label="system_u:system_r:container_t:s0:c1,c2"),
        ),
        ERROR,
        "SELinux is enforcing, the process has system_u:system_r:container_t",
    ),
    (
        "security-modules",
        replace(FACTS, process=replace(PROCESS, label="system_u:system_r:container_t:s0")),
        WARNING,
        "SELinux is active, and its mode is not visible",
    ),
    ("inotify-watches", replace(FACTS, inotify=Inotify(100, 128, 95, 2)), WARNING, "95 of 100 watches"),
    ("inotify-watches", replace(FACTS, inotify=Inotify(4, 128, 0, 2)), ERROR, "needs about 5 watches"),
    ("inotify-instances", replace(FACTS, inotify=Inotify(8192, 128, 0, 128)), WARNING, "128 of 128 instances"),
    ("uevents", replace(FACTS, uevents_error="Operation not permitted"), WARNING, "Operation not permitted"),
    (
        "kernel-log",
        replace(with_needs(Needs(kernel_log=True)), kernel_log_error="denied"),
        ERROR,
        "denied, and a probe needs",
    ),
    ("device-access", with_needs(Needs(open_probes=True)), WARNING, "not privileged"),
    ("dev", replace(FACTS, mounts=(Mount("/", "overlay"), Mount("/dev", "tmpfs"))), WARNING, "/dev is a tmpfs"),
    ("dev", replace(FACTS, machine=IN_CONTAINER), WARNING, "/host/dev is a directory, not a mount"),
    ("sysfs", replace(FACTS, mounts=(Mount("/", "overlay"),)), WARNING, "/sys is a directory, not a mount"),
    (
        "mount-propagation",
        replace(FACTS, machine=IN_CONTAINER, mounts=(Mount("/host/dev", "devtmpfs"), Mount("/host/opt/lib", "ext4"))),
        WARNING,
        "do not appear below /host/opt/lib",
    ),
    ("file-descriptors", replace(with_needs(Needs(resource_names=600)), process=PROCESS), ERROR, "needs about 1264"),
    ("memory-limit", replace(FACTS, memory=CgroupLimit(64 << 20, 1, "memory.max")), ERROR, "64 MiB (memory.max)"),
    ("memory-limit", replace(FACTS, memory=CgroupLimit(80 << 20, 1, "memory.max")), WARNING, "30 MiB more"),
    ("process-limit", replace(FACTS, pids=CgroupLimit(20, 1, "pids.max")), WARNING, "20 processes and threads"),
    ("clock", replace(FACTS, clock=Clock(1_000_000.0, 1_799_000_000.0)), ERROR, "before genplug was built"),
    (
        "clock",
        replace(FACTS, clock=Clock(1_800_000_000.0, 0.0, ("/k.sock", 1_800_001_000.0))),
        WARNING,
        "/k.sock is of",
    ),
    ("clock", replace(FACTS, clock=Clock(1_800_000_000.0, 0.0, is_synchronized=False)), WARNING, "no time service"),
    ("container-runtime", replace(FACTS, runtime=Runtime("CRI-O", errors=("a: broken",))), WARNING, "a: broken"),
    ("cdi", replace(FACTS, configuration=CDI, runtime=Runtime("containerd", has_cdi=False)), ERROR, "enable_cdi"),
    ("cdi", replace(FACTS, configuration=CDI, runtime=Runtime("containerd")), UNKNOWN, "containerd 1.7"),
    (
        "cdi",
        replace(FACTS, configuration=CDI, runtime=Runtime("CRI-O", has_cdi=True, cdi_dirs=("/etc/cdi",))),
        ERROR,
        "reads CDI files from /etc/cdi, and the agent writes to /run/cdi",
    ),
    (
        "cdi",
        replace(
            FACTS,
            configuration=replace(CDI, needs=Needs(cdi=True)),
            runtime=Runtime("CRI-O", has_cdi=True, cdi_dirs=("/etc/cdi",)),
        ),
        WARNING,
        "and the agent searches /etc/cdi, /var/run/cdi",
    ),
]


def test_every_check_is_ok_on_a_machine_that_is_ready() -> None:
    for finding in run_checks(CHECKS, FACTS):
        assert finding.severity is OK, finding
        assert finding.observation.found
    for name in ("cdi", "kubelet-features", "dra-directories", "api-server-account"):
        assert run_check(name, replace(FACTS, configuration=DRA))[0].severity is OK


def test_driver_matters_only_for_a_resource_that_it_serves() -> None:
    facts = replace(FACTS, driver=Driver(("/k is missing",), "no token"), configuration=CDI)
    for name in ("dra-directories", "api-server-account"):
        expect_finding(name, facts, OK, "does not use Dynamic Resource Allocation")


@pytest.mark.parametrize(("name", "facts", "severity", "text"), BAD)
def test_check_reports_what_is_wrong(name: str, facts: Facts, severity: Severity, text: str) -> None:
    expect_finding(name, facts, severity, text)


def test_every_check_has_facts_with_which_it_fails() -> None:
    assert {check.name for check in CHECKS} == {name for name, *_ in BAD}


def test_kernel_log_matters_only_for_a_probe_that_reads_it() -> None:
    expect_finding("kernel-log", replace(FACTS, kernel_log_error="denied"), OK, "no probe needs it")


@pytest.mark.parametrize(
    ("security", "label"),
    [
        (SecurityModules("permissive"), "system_u:system_r:container_t:s0"),
        (SecurityModules("enforcing"), "system_u:system_r:container_device_plugin_t:s0"),
        (SecurityModules(has_apparmor=True), "cri-containerd.apparmor.d (enforce)"),
    ],
)
def test_security_module_that_allows_the_sockets_is_ok(security: SecurityModules, label: str) -> None:
    facts = replace(FACTS, security=security, process=replace(PROCESS, label=label))
    expect_finding("security-modules", facts, OK, label)


def test_privileged_process_may_open_device_nodes() -> None:
    facts = replace(with_needs(Needs(open_probes=True)), process=replace(PROCESS, capabilities=frozenset({21})))
    expect_finding("device-access", facts, OK, "is privileged")


def test_mount_that_receives_mounts_of_the_host_is_ok() -> None:
    mounts = (
        Mount("/host/dev", "devtmpfs"),
        Mount("/host/var/run/cdi", "ext4"),
        Mount("/host/opt", "ext4", receives_mounts=True),
    )
    expect_finding("mount-propagation", replace(FACTS, machine=IN_CONTAINER, mounts=mounts), OK, "receives them")


def test_invalid_configuration_leaves_the_checks_of_its_devices_unknown() -> None:
    facts = with_configuration(Configuration(("wrong",)))
    for name in ("scan", "devices", "expected-devices", "programs"):
        expect_finding(name, facts, UNKNOWN, "the configuration is invalid")


def test_unknown_facts_are_unknown_findings_and_no_error() -> None:
    unknown = {name: Unknown("it hangs") for name in Facts.__struct_fields__ if name != "machine"}
    findings = run_checks(CHECKS, Facts(machine=FACTS.machine, **unknown))
    assert {finding.severity for finding in findings} == {UNKNOWN, OK}
    # Without a configuration, neither CDI nor a driver is needed; without --root, nothing has to propagate.
    expected = ["dra-directories", "api-server-account", "mount-propagation", "cdi"]
    assert [finding.check.name for finding in findings if finding.severity is OK] == expected
    assert Report(findings, None).is_ready


def test_document_has_the_format_of_its_schema() -> None:
    facts = replace(FACTS, kubelet_socket=Socket(Path("/k"), "refuses"))
    document = Report(run_checks(CHECKS, facts), "node-1").as_json()
    check_output(document)
    check_golden(GOLDEN / "report.json", json.dumps(document, indent=2) + "\n")
