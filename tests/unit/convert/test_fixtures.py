"""Configurations of other plugins and what they are converted into: ``fixtures`` and ``golden``.

The fixtures have the structure of the examples in the repositories of the plugins, and every key that they document.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from genplug.cli.convert import FORMATS as CLI_FORMATS
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics
from genplug.config.files import ConfigFile
from genplug.config.load import load_text
from genplug.config.policy import decode_policy
from genplug.config.schema import schema_text
from genplug.convert.conversion import Conversion, Kind
from genplug.convert.formats import FORMATS, convert_text
from genplug.convert.shares import MAX_POOL_TOKENS, MAX_REPLICAS
from genplug.convert.yaml_writer import format_conversion, format_document
from genplug.spec.model import Config
from genplug.spec.policy import DEFAULT_POLICY
from tests.support.golden import check_golden

FIXTURES = sorted((Path(__file__).parent / "fixtures").iterdir())
GOLDEN = Path(__file__).parent / "golden"
KEYS = {
    "generic-device-plugin": "domain devices name groups count paths path mountPath permissions readOnly type limit "
    "optional usb vendor product serial listen log-level plugin-directory",
    "smarter": "devicematch nummaxdevices",
    "rdma-shared": "periodicUpdateInterval configList resourceName resourcePrefix rdmaHcaMax devices selectors vendors "
    "deviceIDs drivers ifNames linkTypes",
    "sriov": "resourceList resourceName resourcePrefix deviceType excludeTopology selectors additionalInfo vendors "
    "devices drivers pciAddresses acpiIndexes pfNames rootDevices linkTypes ddpProfiles pKeys isRdma needVhostNet "
    "vdpaType auxTypes",
    "nvidia": "version flags migStrategy failOnInitError mpsRoot nvidiaDriverRoot nvidiaDevRoot gdrcopyEnabled "
    "gdsEnabled mofedEnabled useNodeFeatureAPI deviceDiscoveryStrategy plugin passDeviceSpecs deviceListStrategy "
    "deviceIDStrategy cdiAnnotationPrefix nvidiaCTKPath containerDriverRoot sharedDevicesAllocationPolicy gfd "
    "resources sharing timeSlicing mps renameByDefault failRequestsGreaterThanOne name rename devices replicas imex "
    "channelIDs required",
    "intel": "image initImage allowIDs denyIDs preferredAllocationPolicy bypathMode monitoringMode tolerations "
    "sharedDevNum logLevel enableMonitoring nodeSelector provisioningConfig dpdkDriver kernelVfDrivers maxNumDevices "
    "enclaveLimit provisionLimit dcapInfraResources driver mode shared-dev-num allow-ids deny-ids allocation-policy "
    "enable-monitoring health-management",
    "akri": "discoveryHandler name discoveryDetails udevRules groupRecursive permissions discoveryProperties capacity "
    "brokerSpec instanceServiceSpec configurationServiceSpec brokerProperties",
    "kubevirt": "permittedHostDevices pciHostDevices pciVendorSelector resourceName externalResourceProvider "
    "mediatedDevices mdevNameSelector usb selectors vendor product",
}
"""Every key that the sources of a plugin define (the modules of ``genplug/convert`` name them)."""


def fixtures_of(plugin: str) -> list[Path]:
    return [path for path in FIXTURES if path.stem.startswith(plugin)]


def load_conversion(conversion: Conversion) -> Config:
    """Return the configuration of a conversion, decoded under the policy of the conversion."""
    policy = DEFAULT_POLICY
    if conversion.policy is not None:
        policy = decode_policy(ConfigFile("policy.yaml", format_document(conversion.policy)), Diagnostics())
    return load_text(format_conversion(conversion), "genplug.yaml", policy)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_conversion_is_the_golden_file_and_valid(path: Path) -> None:
    conversion = convert_text(path.read_text(), path.name)
    check_golden(GOLDEN / f"{path.stem}.yaml", format_conversion(conversion))
    assert list(load_conversion(conversion).resources) == list(conversion.resources)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_format_of_a_fixture_is_recognized(path: Path) -> None:
    found = convert_text(path.read_text(), path.name)
    assert path.stem.startswith(found.plugin)
    assert convert_text(path.read_text(), path.name, found.plugin) == found


def test_command_lists_all_formats() -> None:
    assert tuple(FORMATS) == CLI_FORMATS
    assert set(KEYS) == set(FORMATS)


@pytest.mark.parametrize("plugin", FORMATS)
def test_fixtures_have_every_key_of_the_format(plugin: str) -> None:
    text = "\n".join(path.read_text() for path in fixtures_of(plugin))
    missing = {key for key in KEYS[plugin].split() if not re.search(rf"(?<!\w){key}(?!\w)", text)}
    # Another key of a pair, of which a file has one.
    assert missing <= {"deny-ids", "allowIDs"}


OPAQUE = re.compile(
    r"metadata|image:|name: plugin|LISTEN|auxNetDevice|pattern:|devicePluginResourceName|brokerPodSpec|onvif|"
    r"^    version"
)
"""Lines with keys of Kubernetes, and with keys of parts that are left out or ignored as a whole."""


def renamed_keys(plugin: str) -> Iterator[tuple[Path, str]]:
    for path in fixtures_of(plugin):
        text = path.read_text()
        for match in re.finditer(r"""(?<=["{\s,-])([A-Za-z][\w-]*)(?="?: )""", text):
            line = text[text.rfind("\n", 0, match.start()) + 1 :].partition("\n")[0]
            if match[1] in KEYS[plugin].split() and not OPAQUE.search(line):
                yield path, f"{text[: match.start()]}{match[1]}x{text[match.end() :]}"


@pytest.mark.parametrize("plugin", FORMATS)
def test_misspelt_key_is_an_error_or_a_remark(plugin: str) -> None:
    silent = []
    cases = list(renamed_keys(plugin))
    known = {
        path: {remark.message for remark in convert_text(path.read_text(), path.name).remarks}
        for path in fixtures_of(plugin)
    }
    assert cases
    for path, text in cases:
        try:
            conversion = convert_text(text, path.name, plugin)
        except ConfigInvalidError:
            continue
        if not {remark.message for remark in conversion.remarks if remark.needs_attention} - known[path]:
            silent.append(text)
    assert silent == []


def test_misspelt_key_has_a_suggestion_and_a_location() -> None:
    text = "devices:\n- name: fuse\n  groups:\n  - cuont: 3\n    paths: [{path: /dev/fuse}]\n"
    (remark,) = [r for r in convert_text(text, "a.yaml").remarks if r.kind is Kind.UNKNOWN]
    assert (remark.key, remark.location.line, remark.location.column) == ("devices[0].groups[0].cuont", 4, 5)
    assert remark.action == "did you mean 'count'?"


def test_maxima_are_those_of_the_schema() -> None:
    resource = json.loads(schema_text("genplug.schema.json"))["definitions"]["resource"]["properties"]
    assert resource["replicas"]["maximum"] == MAX_REPLICAS
    assert resource["tokens"]["maximum"] == MAX_POOL_TOKENS
