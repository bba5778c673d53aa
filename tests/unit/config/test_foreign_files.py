"""A file of another program is one error, which names the program and what to do with the file."""

import re

import pytest

from genplug.config.files import ConfigFile
from genplug.config.load import load_text
from genplug.config.policy import decode_policy
from genplug.spec.diagnostic import ErrorCode
from tests.docs.blocks import all_blocks
from tests.support.chart import CHART, CI_FILES
from tests.support.configs import CONFIG_HEADER, collect_diagnostics
from tests.support.pages import ROOT

FILES = {
    "values file of genplug's chart": [
        "config: {resources: {a.example/x: {devices: [{glob: /dev/x}]}}}",
        "daemonset: {privileged: true}",
        "pools: {lab: {}}\nmetrics: {port: 1}",
        (CHART / "values.yaml").read_text(),
        *(path.read_text() for path in CI_FILES),
    ],
    "NVIDIA device plugin": [
        "version: v1\nflags: {migStrategy: none}",
        "sharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}",
        "version: v1\nsharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}",
    ],
    "values file of NVIDIA's chart": [
        "config: {map: {default: 'version: v1'}}",
        "driver: {enabled: false}\ndevicePlugin: {enabled: true}\nimage: {repository: x}",
    ],
    "values file of another chart": ["image: {repository: ghcr.io/squat/generic-device-plugin, tag: latest}\nargs: []"],
    "NVIDIA GPU Operator": ["apiVersion: nvidia.com/v1\nkind: ClusterPolicy\nspec: {}"],
    "generic-device-plugin": [
        "devices: [{name: serial, groups: [{paths: [{path: /dev/ttyUSB*}]}]}]",
        "- name: serial\n  groups: [{paths: [{path: /dev/ttyUSB*}]}]",
        "name: serial\ngroups: [{count: 10, usb: [{vendor: '1a86'}]}]",
        '{"domain": "squat.ai", "devices": [{"name": "a", "groups": [{"usb": [{"vendor": "1a86"}]}]}]}',
    ],
    "smarter-device-manager": [
        "- devicematch: ^ttyUSB[0-9]*$\n  nummaxdevices: 1",
        "- deviceMatch: ^snd$\n",
    ],
    "SR-IOV network device plugin": ['{"resourceList": [{"resourceName": "x", "selectors": {"vendors": ["8086"]}}]}'],
    "SR-IOV Network Operator": ["apiVersion: sriovnetwork.openshift.io/v1\nkind: SriovNetworkNodePolicy\nspec: {}"],
    "RDMA shared device plugin": ['{"configList": [{"resourceName": "hca", "rdmaHcaMax": 1000}]}'],
    "Akri": ["apiVersion: akri.sh/v0\nkind: Configuration\nmetadata: {name: camera}\nspec: {capacity: 2}"],
    "Intel Device Plugins Operator": ["apiVersion: deviceplugin.intel.com/v1\nkind: GpuDevicePlugin\nspec: {}"],
    "AMD GPU Operator": ["apiVersion: amd.com/v1alpha1\nkind: DeviceConfig\nspec: {}"],
    "KubeVirt": ["apiVersion: kubevirt.io/v1\nkind: KubeVirt\nspec: {}", "permittedHostDevices: {pciHostDevices: []}"],
    "k8s-host-device-plugin": ['{"resourceName": "a.b/c", "hostDevices": [{"hostPath": "/dev/x"}]}'],
    "k8s-hostdevice-plugin": ['{"socketPrefix": "x", "devices": {"a.b/c": {"containerPath": "/dev/x"}}}'],
    "Chart.yaml of a Helm chart": [(CHART / "Chart.yaml").read_text()],
    "kustomization": ["resources: [deployment.yaml, configmap.yaml]\nnamespace: x"],
    "CDI file": ["cdiVersion: 0.6.0\nkind: vendor.example/gpu\ndevices: []"],
    "Compose file": ["services: {a: {devices: [/dev/x:/dev/x]}}"],
    "object of kind Pod": [
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}",
        "apiVersion: v1\nkind: Service\nspec: {}\n---\napiVersion: v1\nkind: Pod\nspec: {}"[35:],
    ],
    "object of kind DaemonSet": [
        "apiVersion: apps/v1\nkind: DaemonSet\nspec: {template: {spec: {containers: []}}}\n---\nkind: Pod"
    ],
    "object of kind ClusterRole": ["apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nrules: []"],
    "template of a Helm chart": ["config:\n  {{- toYaml .Values.config | nindent 2 }}\n"],
}
IMAGES = {
    "squat/generic-device-plugin:0.2.0": "generic-device-plugin",
    "nvcr.io/nvidia/k8s-device-plugin:v0.17.1": "nvidia",
    "intel/intel-qat-plugin:0.36.0": "intel",
}
CASES = [(name, text) for name, texts in FILES.items() for text in texts]


@pytest.mark.parametrize(("name", "text"), CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def test_file_of_another_program_is_one_error_with_the_name_of_the_program(name: str, text: str) -> None:
    for call in (lambda: load_text(text, "a.yaml"), lambda: decode_policy(ConfigFile("a.yaml", text))):
        (diagnostic,) = collect_diagnostics(call)
        assert diagnostic.code is ErrorCode.WRONG_VERSION
        assert diagnostic.message.startswith("expected a configuration or policy of genplug, found ")
        assert name in diagnostic.message
        assert diagnostic.hint


@pytest.mark.parametrize("image", IMAGES)
def test_workload_of_another_plugin_has_the_command_that_converts_it(image: str) -> None:
    text = f"apiVersion: apps/v1\nkind: DaemonSet\nspec: {{template: {{spec: {{containers: [{{image: '{image}'}}]}}}}}}"
    (diagnostic,) = collect_diagnostics(lambda: load_text(text, "a.yaml"))
    assert diagnostic.hint.startswith(f"run 'genplug convert --from {IMAGES[image]} FILE'")


@pytest.mark.parametrize("text", [text for _, text in CASES])
def test_guide_that_the_error_names_exists(text: str) -> None:
    (diagnostic,) = collect_diagnostics(lambda: load_text(text, "a.yaml"))
    for page in re.findall(r"/docs/(\S+\.md)", diagnostic.hint):
        assert (ROOT / "docs" / page).is_file()


GUIDES = [
    block
    for block in all_blocks("yaml", "json")
    if block.page.parent.name == "migrate" and block.not_checked.startswith("configuration of")
]


@pytest.mark.parametrize("block", GUIDES, ids=[block.location for block in GUIDES])
def test_configuration_in_a_migration_guide_is_recognized(block: object) -> None:
    text = getattr(block, "text", "")
    diagnostics = collect_diagnostics(lambda: load_text(text, "a.yaml"))
    assert [diagnostic.code for diagnostic in diagnostics] == [ErrorCode.WRONG_VERSION], text


@pytest.mark.parametrize(
    "text",
    [
        f"{CONFIG_HEADER}pools: {{}}\nresources: {{}}\n",
        "apiVersion: genplug.io/v1\nkind: DevicePluginConfig\nresources: {}\n",
        "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfigs\nresources: {}\n",
        "resources: {}\n",
        "resources: {}\nconfig: {}\n",
        "devices: []\nresources: {}\n",
        f'{CONFIG_HEADER}resources: {{a.example/x: {{allocate: {{env: {{A: "{{{{ .Name }}}}"}}}}}}\n',
        "[]",
        "",
    ],
)
def test_file_with_an_error_is_not_a_file_of_another_program(text: str) -> None:
    diagnostics = collect_diagnostics(lambda: load_text(text, "a.yaml"))
    assert diagnostics
    assert not [diagnostic for diagnostic in diagnostics if "found a" in diagnostic.message.partition("genplug, ")[2]]
