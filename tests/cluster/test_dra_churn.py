"""Dynamic Resource Allocation over many repeats: the trials of :mod:`tests.cluster.dra_trial`, with few repeats.

A number at the end of a test's name is that of an acceptance point of the driver. ``python -m tests.cluster.dra_trial``
runs the trials with the numbers of the points.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, poll_until
from tests.cluster.conftest import CLUSTER_PARAMS, create_machine, name_version
from tests.cluster.dra_trial.__main__ import KINDS
from tests.cluster.dra_trial.figures import Figure, find_misses
from tests.cluster.dra_trial.holders import build_script
from tests.cluster.dra_trial.trial import Trial, estimate_quantile, read_buckets
from tests.cluster.tools import TOOLS

SLACK = 10.0
"""How much longer than its limit something may take on a machine that does other things at the same time."""


@pytest.fixture(scope="module", params=CLUSTER_PARAMS[-1:], ids=name_version)
def cluster(request: pytest.FixtureRequest, busybox: Path, genplug_image: Path) -> Iterator[Cluster]:
    """Return a cluster of the newest Kubernetes."""
    with create_machine() as machine:
        cluster = Cluster(machine, request.param, TOOLS)
        cluster.start(busybox, genplug_image)
        yield cluster


@pytest.fixture(scope="module")
def trial(cluster: Cluster) -> Trial:
    trial = Trial(cluster)
    trial.prepare()
    return trial


def check(*figures: Figure) -> None:
    """Print the figures, and fail if one is outside its limits."""
    print("\n".join(map(str, figures)))
    assert not find_misses(figures, SLACK)


def on_cluster(test: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """Return a test with the marks of a test on a cluster."""
    for mark in (pytest.mark.cluster, pytest.mark.helm, pytest.mark.image, pytest.mark.timeout(300)):
        test = mark(test)
    return test


@on_cluster
def test_kubelet_waits_a_few_milliseconds_for_a_claim_dra_07(trial: Trial) -> None:
    check(*KINDS["prepare"].short(trial))


@on_cluster
def test_killed_kubelet_does_not_restart_pods_dra_10(trial: Trial) -> None:
    check(*KINDS["kubelet"].short(trial))


@on_cluster
def test_device_of_a_pod_deleted_by_force_is_not_given_twice_dra_15(trial: Trial) -> None:
    check(*KINDS["force"].short(trial))


@on_cluster
def test_absent_api_server_does_not_disturb_devices_in_use_dra_17(trial: Trial) -> None:
    check(*KINDS["outage"].short(trial))


@on_cluster
def test_unplugged_device_is_tainted_until_it_returns_dra_19(trial: Trial) -> None:
    check(*KINDS["unplug"].short(trial), *KINDS["flap"].short(trial))


@on_cluster
def test_resource_changes_its_api_while_pods_use_it_dra_21_22(trial: Trial) -> None:
    check(*KINDS["to-dra"].short(trial), *KINDS["back"].short(trial))


def test_container_reports_a_device_that_another_container_holds(tmp_path: Path) -> None:
    """The check of the trials itself fails when it has to."""
    (tmp_path / "disk0").touch()
    environment = os.environ | {"KIND": "disk", "DEVICES": str(tmp_path), "HOLDERS": str(tmp_path / "holders")}
    (tmp_path / "holders").mkdir()

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", build_script()], env=environment | {"NAME": name}, start_new_session=True)

    link, violations = tmp_path / "holders/disk0", tmp_path / "holders/violations"
    first = start("first")
    poll_until(link.is_symlink)
    assert start("second").wait() == 1
    assert violations.read_text() == f"second has disk0, which process {link.readlink()} has\n"
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    third = start("third")
    poll_until(lambda: link.is_symlink() and str(link.readlink()).startswith(f"{third.pid}:"))
    os.killpg(third.pid, signal.SIGKILL)
    third.wait()
    assert len(violations.read_text().splitlines()) == 1


def test_container_without_a_device_reports_it(tmp_path: Path) -> None:
    environment = os.environ | {"NAME": "pod", "KIND": "disk", "DEVICES": str(tmp_path), "HOLDERS": str(tmp_path)}
    assert subprocess.run(["sh", "-c", build_script()], env=environment, check=False).returncode == 1
    assert (tmp_path / "violations").read_text() == "pod has no device\n"


def test_slack_extends_the_limits_of_times_only() -> None:
    late, many = Figure("ready", 12, "s", 3), Figure("writes", 13, maximum=12)
    assert find_misses([late, many]) == [str(late), str(many)]
    assert find_misses([late, many], 5) == [str(many)]
    assert find_misses([Figure("calls", 3, minimum=4)], 5) == ["calls: 3 (at least 4)"]


def test_quantile_is_interpolated_in_its_bucket() -> None:
    page = """\
x_bucket{driver="a",le="0.01"} 10
x_bucket{driver="a",le="0.02"} 30
x_bucket{driver="a",le="+Inf"} 30
x_bucket{driver="b",le="0.01"} 99
"""
    buckets = read_buckets(page, "x", 'driver="a"')
    assert estimate_quantile({0.01: 10, 0.02: 10, float("inf"): 10}, buckets, 0.5) == pytest.approx(0.015)
    with pytest.raises(ValueError, match="found none"):
        estimate_quantile(buckets, buckets, 0.5)
