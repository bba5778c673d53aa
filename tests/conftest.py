"""Plugins of all tests, and the requirements of markers: a test is skipped if its requirement is not met."""

import importlib.util
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.network import has_ipv6, outside_addresses

pytest_plugins = ["genplug.testing.plugin"]


TOOLS = Path(os.environ.get("GENPLUG_TOOLS", Path.home() / ".cache/genplug/tools"))
IS_ROOT = os.geteuid() == 0


PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
"""Debian installs apparmor_parser in a directory that is not in the PATH of users."""


def _has(*programs: str) -> bool:
    return all(shutil.which(program, path=PATH) for program in programs)


REQUIREMENTS = {
    "apparmor": (_has("apparmor_parser"), "needs apparmor_parser: run .ci/tools"),
    "browser": (
        _has("chromium") and (TOOLS / "axe.min.js").exists(),
        "needs Chromium and axe-core: as root, run .ci/tools",
    ),
    "cluster": (
        IS_ROOT
        and _has("etcd", "runc")
        and all(any(TOOLS.glob(pattern)) for pattern in ("containerd/*/ctr", "kubernetes/*/kubelet")),
        "needs a Kubernetes for tests: as root, run .ci/tools and tests/cluster/build",
    ),
    "docs": (
        all(importlib.util.find_spec(name) is not None for name in ("furo", "myst_parser", "sphinx")),
        "needs Sphinx: install the docs extra",
    ),
    "fuse": (
        IS_ROOT and Path("/dev/fuse").is_char_device(),
        "needs /dev/fuse for files that hang: as root, modprobe fuse",
    ),
    "fuzzer": (importlib.util.find_spec("atheris") is not None, "needs atheris: install the fuzz extra on x86-64"),
    "generator": (importlib.util.find_spec("grpc_tools") is not None, "needs grpcio-tools: install the dev extra"),
    "helm": (
        all((TOOLS / name).exists() for name in ("helm3", "helm4", "kubectl"))
        and _has("promtool")
        and importlib.util.find_spec("kubernetes_validate") is not None,
        "needs helm 3 and 4, kubectl and promtool, and the dev extra: run .ci/tools",
    ),
    "image": (
        IS_ROOT and _has("buildah", "mmdebstrap", "runc", "umoci"),
        "needs buildah, mmdebstrap, runc and umoci: as root, run .ci/tools",
    ),
    "ipv6": (has_ipv6(), "needs IPv6: enable it on the loopback interface (net.ipv6.conf.lo.disable_ipv6=0)"),
    "network": (
        bool(outside_addresses()),
        "needs an address that is not a loopback address, with a route: connect the machine to a network",
    ),
    "openssl": (_has("openssl"), "needs openssl, which makes certificates: install it"),
    "packages": (
        IS_ROOT and (TOOLS / "nfpm").exists() and _has("dpkg", "rpm") and importlib.util.find_spec("shiv") is not None,
        "needs nfpm, dpkg and rpm, and the dev extra: as root, run .ci/tools",
    ),
    "podman": (
        IS_ROOT and _has("podman", "runc", "busybox"),
        "needs podman, runc and busybox to read CDI files: as root, run .ci/tools",
    ),
    "shells": (_has("fish", "zsh"), "needs fish and zsh to read the completion scripts: run .ci/tools"),
    "root": (IS_ROOT, "needs root: run pytest as root for the tests on real device nodes and mounts"),
}
"""Marker to whether its requirement is met, and what to do if it is not."""


SHARED_BUILDS = ("tests/cluster/", "tests/image/test_image.py", "tests/packages/")
"""Tests of these modules share builds or clusters, which take minutes."""


def pytest_configure() -> None:
    # A shell without job control starts a program in the background with an ignored SIGINT, and every program that the
    # tests start would inherit it. Tests send Ctrl-C to such programs.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Return the scheduler of ``pytest -n 2``: it runs tests that share a fixture in :func:`find_group` in one process.

    The marker ``xdist_group`` has no effect with pytest 9.2: xdist 3.8 sets an attribute that pytest no longer reads.
    """
    # The hook is called only if xdist is installed.
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # noqa: PLC0415

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = find_group  # noqa: SLF001 - the documentation of xdist says to override this method
    return scheduler


def find_group(nodeid: str) -> str:
    """Return the group of a test: its module and the version of Kubernetes, or the test itself if it shares nothing.

    >>> find_group("tests/cluster/test_kubelet_alone.py::test_a[1.30.14]")
    'tests/cluster/test_kubelet_alone.py 1.30.14'
    """
    module = nodeid.partition("::")[0]
    version = re.search(r"\[(\d+\.\d+\.\d+)]$", nodeid)
    return f"{module} {version[1] if version else ''}".strip() if module.startswith(SHARED_BUILDS) else nodeid


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (is_met, reason) in REQUIREMENTS.items():
        if item.get_closest_marker(marker) is None or is_met:
            continue
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; CI must run this test")
        pytest.skip(reason)
