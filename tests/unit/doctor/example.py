"""Facts of a machine on which every check is ok; tests replace single facts."""

from pathlib import Path

from genplug.agent import Settings
from genplug.doctor.checks import select_checks
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
    Process,
    Runtime,
    SecurityModules,
    Socket,
)
from genplug.doctor.findings import Finding, Severity

PROCESS = Process(0, frozenset({1, 2}), is_in_initial_user_namespace=True, uid_map="0 0 4294967295", open_files=1024)
NEEDS = Needs(read_probes=2, call_probes=1, resource_names=2, directories=5, devices=10)
CONFIGURATION = Configuration(resources=(ConfiguredResource("a.io/x", 2, 2, 2, frozenset({"x0", "x1"})),), needs=NEEDS)
FACTS = Facts(
    machine=Machine(Settings((Path("/etc/genplug"),))),
    plugins=PluginsDirectory(sockets=("genplug-x.sock", "kubelet.sock"), is_locked=True),
    kubelet_socket=Socket(Path("/var/lib/kubelet/device-plugins/kubelet.sock")),
    pod_resources=Socket(Path("/var/lib/kubelet/pod-resources/kubelet.sock")),
    kubelet=Kubelet("/var/lib/kubelet", "/var/lib/kubelet/config.yaml"),
    driver=Driver(),
    registered={"a.io/x": frozenset({"x0", "x1"})},
    process=PROCESS,
    security=SecurityModules(),
    inotify=Inotify(8192, 128, 10, 2),
    mounts=(Mount("/", "overlay"), Mount("/dev", "devtmpfs"), Mount("/sys", "sysfs")),
    kernel_log_error="",
    uevents_error="",
    memory=CgroupLimit(256 << 20, 60 << 20, "/sys/fs/cgroup/memory.max"),
    pids=CgroupLimit(None),
    clock=Clock(1_800_000_000.0, 1_799_000_000.0, ("kubelet.sock", 1_799_999_000.0), is_synchronized=True),
    runtime=Runtime("containerd", has_cdi=True, cdi_dirs=("/etc/cdi", "/run/cdi"), files=("config.toml",)),
    configuration=CONFIGURATION,
)


def run_check(name: str, facts: Facts) -> tuple[Finding, ...]:
    """Return the findings of a check."""
    (check,) = select_checks([name])
    return check.run(facts)


def expect_finding(name: str, facts: Facts, severity: Severity, text: str) -> Finding:
    """Assert that the first finding of a check has a severity and a text; return it."""
    finding, *_ = run_check(name, facts)
    assert finding.severity is severity, finding
    assert text in finding.observation.found
    # Everything but ok and unknown states what to do.
    assert bool(finding.observation.action) or severity in {Severity.OK, Severity.UNKNOWN}
    return finding
