"""The systemd unit grants what the chart grants: the same memory, and every socket family that genplug opens."""

import re
from configparser import RawConfigParser

import yaml

from tests.support.chart import CHART, ROOT


def read_service() -> dict[str, str]:
    """Return the settings of the unit's [Service] section."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # systemd's keys are case-sensitive
    parser.read_string((ROOT / "deploy/systemd/genplug.service").read_text())
    return dict(parser["Service"])


def test_memory_limit_is_the_same_in_chart_unit_and_readme() -> None:
    resources = yaml.safe_load((CHART / "values.yaml").read_text())["daemonset"]["resources"]
    limit = resources["limits"]["memory"].removesuffix("Mi")
    # systemd's M is a MiB.
    assert read_service()["MemoryMax"] == f"{limit}M"
    assert f"{limit} MiB of memory" in (ROOT / "deploy/README.md").read_text()


def test_unit_permits_every_socket_family_that_genplug_opens() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "genplug").rglob("*.py"))
    # gRPC and http.server open the families that no line of ours names.
    opened = set(re.findall(r"\bAF_[A-Z0-9]+\b", sources)) | {"AF_UNIX", "AF_INET", "AF_INET6"}
    assert opened == set(read_service()["RestrictAddressFamilies"].split())
