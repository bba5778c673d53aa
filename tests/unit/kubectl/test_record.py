"""``kubectl genplug record`` with a stand-in for kubectl."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from genplug.config.load import load_text
from genplug.kubectl.main import main
from genplug.record.facts import find_facts
from tests.support.golden import check_golden
from tests.support.kubectl import KubectlStandIn, Object, make_agent_pod, make_daemon_set, make_node
from tests.support.outputs import check_output
from tests.support.pages import ROOT

GOLDEN = Path(__file__).parent / "golden"
NODE_RECORD = Path(__file__).parents[1] / "record/golden/node.json"
CONFIG = """\
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources: {example.com/fuse: {devices: [{glob: /dev/fuse}], tokens: 10}}
"""
OVERLAY = "resources: {example.com/fuse: {tokens: 20}}\n"
LATER = "resources: {example.com/fuse: {tokens: 15}}\n"
"""A file that follows the file of a node by its name, and precedes it when the files are merged."""
POLICY = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nresources: [example.com/*]\n"
RBAC = "rbac.authorization.k8s.io"
LABELS = {
    "app.kubernetes.io/instance": "genplug",
    "app.kubernetes.io/managed-by": "Helm",
    "helm.sh/chart": "genplug-0.1.0",
}
HELM = {"meta.helm.sh/release-name": "genplug", "meta.helm.sh/release-namespace": "genplug"}
POD_SPEC: Object = {
    "serviceAccountName": "genplug",
    "automountServiceAccountToken": False,
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "terminationGracePeriodSeconds": 10,
    "containers": [
        {
            "name": "genplug",
            "image": "example.com/genplug:0.1.0",
            "imagePullPolicy": "IfNotPresent",
            "args": [
                "run",
                "--config",
                "/etc/genplug",
                "--policy",
                "/etc/genplug-policy/policy.yaml",
                "--root",
                "/host",
            ],
            "env": [
                {"name": "TOKEN", "value": "s3cret"},
                {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "main"}}},
            ],
            "securityContext": {
                "runAsUser": 0,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/genplug", "readOnly": True},
                {"name": "policy", "mountPath": "/etc/genplug-policy", "readOnly": True},
                {"name": "dev", "mountPath": "/host/dev", "readOnly": True},
                {"name": "extra", "mountPath": "/host/opt"},
            ],
        }
    ],
    "volumes": [
        {"name": "config", "configMap": {"name": "genplug-config"}},
        {"name": "policy", "configMap": {"name": "genplug-policy"}},
        {"name": "dev", "hostPath": {"path": "/dev", "type": "Directory"}},
        {"name": "extra", "hostPath": {"path": "/opt"}},
    ],
}
Record = Callable[..., Any]


def make_object(kind: str, name: str, namespace: str = "", **parts: Any) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"kind": kind, "metadata": {**metadata, **parts.pop("metadata", {})}, **parts}


def make_binding(name: str, role: str, subject: Object, namespace: str = "", kind: str = "ClusterRole") -> Object:
    return make_object(
        "RoleBinding" if namespace else "ClusterRoleBinding",
        name,
        namespace,
        roleRef={"kind": kind, "name": role},
        subjects=[subject],
    )


def make_release_set(pool: str = "default", **spec: Any) -> Object:
    name = "genplug" if pool == "default" else f"genplug-{pool}"
    daemon_set = make_daemon_set(name, pool=pool, pod_spec={**POD_SPEC, **spec}, desired=2, ready=2)
    daemon_set["metadata"]["labels"] |= LABELS
    daemon_set["metadata"] |= {"annotations": HELM, "managedFields": [{"manager": "helm"}, {"manager": "kubelet"}]}
    daemon_set["spec"]["updateStrategy"] = {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0},
    }
    return daemon_set


def make_release_pod(node: str, digest: str = "0", **changes: Any) -> Object:
    pod = make_agent_pod(node, **changes)
    pod["status"]["containerStatuses"][0]["imageID"] = f"example.com/genplug@sha256:{64 * digest}"
    pod["spec"] |= {"priorityClassName": "system-node-critical", "priority": 2000001000}
    return pod


def digest_of(tokens: int) -> str:
    """Return the digest of the configuration with this number of tokens."""
    return load_text(CONFIG.replace("tokens: 10", f"tokens: {tokens}"), "c.yaml").sha256


def make_record(sha256: str, version: str = "24.10-1.1.4") -> str:
    """Return the record of a node with this digest of the configuration and this version of its driver."""
    record = json.loads(NODE_RECORD.read_text())
    record["configuration"]["activeSha256"]["value"] = sha256
    record["drivers"]["drivers"]["value"][0]["version"]["value"] = version
    return json.dumps(record)


@pytest.fixture
def release(kubectl: KubectlStandIn) -> KubectlStandIn:
    """Return a stand-in with the objects of a release on two nodes; node-2 has a file of its own."""
    managed = {"resourceVersion": "41", "labels": LABELS, "managedFields": [{"manager": "helm"}]}
    kubectl.list("daemonsets.apps", make_release_set())
    kubectl.list("pods", make_release_pod("node-2"), make_release_pod("node-1"))
    nodes = [make_node(name) for name in ("node-1", "node-2")]
    for number, node in enumerate(nodes):
        node["status"]["nodeInfo"] = {
            "kernelVersion": f"6.{number}.0",
            "osImage": "Debian",
            "containerRuntimeVersion": "containerd://2.0.0",
            "kubeletVersion": "v1.34.4",
        }
    kubectl.list("nodes", *nodes)
    maps = {
        "genplug-config": {"genplug.yaml": CONFIG, "node.node-2.yaml": OVERLAY, "z.yaml": LATER, "notes.txt": "x"},
        "genplug-policy": {"policy.yaml": POLICY},
    }
    for name, data in maps.items():
        answer = make_object("ConfigMap", name, "genplug", metadata=managed, data=data)
        kubectl.answer(f"get configmap {name} ", json.dumps(answer))
    kubectl.answer("get serviceaccount genplug ", json.dumps(make_object("ServiceAccount", "genplug", "genplug")))
    edit = {"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "update", "patch"]}
    own = {**edit, "resourceNames": ["genplug-config"], "verbs": ["update"]}
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    ann, ops = {"kind": "User", "name": "ann"}, {"kind": "Group", "name": "ops"}
    kubectl.list(f"roles.{RBAC}", make_object("Role", "own", "genplug", rules=[own]))
    kubectl.list(
        f"clusterroles.{RBAC}",
        make_object("ClusterRole", "edit", rules=[edit]),
        make_object("ClusterRole", "cluster-admin", rules=[everything]),
        make_object("ClusterRole", "view", rules=[{**edit, "verbs": ["get"]}]),
    )
    kubectl.list(
        f"rolebindings.{RBAC}",
        make_binding("editors", "edit", ann, "genplug"),
        make_binding("own", "own", {"kind": "User", "name": "bob"}, "genplug", "Role"),
        make_binding("viewers", "view", ann, "genplug"),
        make_binding("elsewhere", "edit", {"kind": "User", "name": "eve"}, "other"),
    )
    kubectl.list(f"clusterrolebindings.{RBAC}", make_binding("admins", "cluster-admin", ops))
    name = "genplug-editors.genplug"
    policy = {
        "failurePolicy": "Fail",
        "validations": [{"expression": "x", "message": "Only its editors may change it."}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    kubectl.list("validatingadmissionpolicies", make_object("ValidatingAdmissionPolicy", name, spec=policy))
    kubectl.list("validatingadmissionpolicybindings", make_object("X", name, spec=binding))
    ports = [{"port": "metrics", "protocol": "TCP"}]
    selector = {"matchLabels": {"app.kubernetes.io/name": "genplug"}}
    expressions = {"matchExpressions": [{"key": "genplug.io/pool", "operator": "DoesNotExist"}]}
    rules = {"policyTypes": ["Ingress", "Egress"], "ingress": [{"ports": ports}], "egress": []}
    kubectl.list(
        "networkpolicies.networking.k8s.io",
        make_object("NetworkPolicy", "genplug", "genplug", spec={**rules, "podSelector": selector}),
        make_object("NetworkPolicy", "other", "genplug", spec={**rules, "podSelector": expressions}),
    )
    kubectl.list(
        "resourcequotas",
        make_object("ResourceQuota", "gpu", "team", spec={"hard": {"requests.example.com/fuse": "4", "pods": "9"}}),
        make_object("ResourceQuota", "pods", "team", spec={"hard": {"pods": "9"}}),
    )
    kubectl.answer("exec *genplug-node-1 ", make_record(digest_of(15)))
    kubectl.answer("exec *genplug-node-2 ", make_record("c0ffee", "25.01"))
    return kubectl


@pytest.fixture
def record(capsys: pytest.CaptureFixture[str]) -> Record:
    """Return a function that runs the command and returns the document that it prints."""

    def run(kubectl: KubectlStandIn, *arguments: str) -> Any:
        assert main(["record", f"--kubectl={kubectl.program}", *arguments, "-o", "json"]) == 0
        document = json.loads(capsys.readouterr().out)
        check_output(document)
        return document

    return run


def test_record_has_the_documented_keys_in_each_format(
    release: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {}
    for output, suffix in {"json": "json", "yaml": "yaml", "markdown": "md"}.items():
        assert main(["record", f"--kubectl={release.program}", "-o", output]) == 0
        text = capsys.readouterr().out
        at = yaml.safe_load(text)["generated"]["at"] if suffix != "md" else text.partition("- At: ")[2].split("\n")[0]
        texts[suffix] = text.replace(str(at), "2026-11-27T18:00:00Z")
        check_golden(GOLDEN / f"record.{suffix}", texts[suffix])
    document = json.loads(texts["json"])
    check_output(document)
    assert yaml.safe_load(texts["yaml"]) == document
    plain = texts["md"].replace("\\", "")
    facts = find_facts(document).values()
    assert [fact["reason"] for fact in facts if not fact["known"] and fact["reason"] not in plain] == []
    assert [fact["source"] for fact in facts if fact["known"] and fact["source"] not in plain] == []


def test_nodes_with_another_configuration_are_named_with_both_digests(release: KubectlStandIn, record: Record) -> None:
    configuration, policy = record(release)["configuration"]["value"]
    assert configuration["sameNodes"]["value"] == ["node-1"]
    [different] = configuration["differentNodes"]["value"]
    assert different["node"] == "node-2"
    assert different["found"] == "c0ffee"
    assert different["expected"] not in {"c0ffee", digest_of(15)}
    assert policy["configMap"] == "genplug-policy"
    assert policy["sameNodes"]["value"] == ["node-1", "node-2"]


def test_file_of_a_node_is_part_of_its_digest(release: KubectlStandIn, record: Record) -> None:
    release.answer("exec *genplug-node-2 ", make_record(digest_of(20)))
    [configuration, _] = record(release)["configuration"]["value"]
    assert configuration["sameNodes"]["value"] == ["node-1", "node-2"]
    assert configuration["differentNodes"]["value"] == []


def test_values_of_variables_are_not_shown(release: KubectlStandIn, record: Record) -> None:
    document = record(release)
    assert "s3cret" not in json.dumps(document)
    assert {entry["name"]: entry["origin"] for entry in document["environment"]["value"]} == {
        "TOKEN": "value in the pod template",
        "NODE_NAME": "fieldRef: v1 spec.nodeName",
        "KEY": "secretKeyRef: main keys",
    }


def test_each_host_mount_of_the_chart_has_a_purpose(release: KubectlStandIn, record: Record) -> None:
    template = (ROOT / "deploy/helm/genplug/templates/daemonset.yaml").read_text()
    names = re.findall(r"- name: (\S+)(?: .*)?\n +hostPath:", template.replace("{{ $index }}", "0"))
    assert {"dev", "audit", "cdi-0", "host-0"} <= set(names)
    container = {
        **POD_SPEC["containers"][0],
        "volumeMounts": [{"name": name, "mountPath": f"/host/{name}"} for name in names],
    }
    volumes = [{"name": name, "hostPath": {"path": f"/{name}"}} for name in names]
    release.list("daemonsets.apps", make_release_set(containers=[container], volumes=volumes))
    mounts = record(release)["hostMounts"]["value"]
    assert [mount["path"] for mount in mounts if not mount["purpose"]["known"]] == []
    assert len(mounts) == len(names)


def test_editors_are_subjects_with_a_right_to_change_objects_of_the_namespace(
    release: KubectlStandIn, record: Record
) -> None:
    access = record(release)["access"]
    found = [(entry["subject"], entry["object"], entry["names"]) for entry in access["editors"]["value"]]
    assert found == [
        ("Group ops", "configmaps", []),
        ("Group ops", "daemonsets", []),
        ("Group ops", "pods", []),
        ("User ann", "configmaps", []),
        ("User bob", "configmaps", ["genplug-config"]),
    ]
    assert access["editors"]["value"][3]["verbs"] == ["update", "patch"]
    assert access["roles"]["value"] == []
    assert access["admissionPolicies"]["value"][0]["restrictions"] == ["Only its editors may change it."]


def test_roles_of_the_service_account_are_listed_with_their_rules(release: KubectlStandIn, record: Record) -> None:
    account = {"kind": "ServiceAccount", "name": "genplug", "namespace": "genplug"}
    everyone = {"kind": "Group", "name": "system:serviceaccounts"}
    release.list(
        f"clusterrolebindings.{RBAC}",
        make_binding("agents", "view", account),
        make_binding("lost", "missing", everyone),
        make_binding("others", "view", {**account, "namespace": "other"}),
    )
    roles = record(release)["access"]["roles"]["value"]
    assert [(role["subject"], role["role"]) for role in roles] == [
        ("Group system:serviceaccounts", "ClusterRole missing"),
        ("ServiceAccount genplug/genplug", "ClusterRole view"),
    ]
    assert roles[0]["rules"] == {"known": False, "reason": "the ClusterRole missing does not exist"}
    assert roles[1]["rules"]["value"][0]["resources"] == ["configmaps", "secrets"]


@pytest.mark.parametrize(
    ("resource", "paths"),
    [
        ("nodes", ["drivers.kernels"]),
        (f"clusterroles.{RBAC}", ["access.roles", "access.editors"]),
        (f"rolebindings.{RBAC}", ["access.roles", "access.editors"]),
        ("validatingadmissionpolicies", ["access.admissionPolicies"]),
        ("networkpolicies", ["objects.networkPolicies"]),
        ("resourcequotas", ["objects.resourceQuotas"]),
        ("configmap genplug-config ", ["configuration.value[0].files", "configuration.value[0].sameNodes"]),
    ],
)
def test_forbidden_objects_are_not_known(
    release: KubectlStandIn, record: Record, resource: str, paths: list[str]
) -> None:
    release.forbid(f"get {resource}")
    facts = find_facts(record(release))
    for path in paths:
        assert not facts[path]["known"]
        assert facts[path]["reason"].startswith("forbidden: your user may not read")


def test_pods_that_cannot_be_listed_end_the_command_with_the_reason(
    release: KubectlStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    release.forbid("get pods", resource="pods")
    assert main(["record", f"--kubectl={release.program}"]) == 1
    assert "pods is forbidden" in capsys.readouterr().err


def test_name_of_a_config_map_is_not_read_as_an_option(release: KubectlStandIn, record: Record) -> None:
    volumes = [*POD_SPEC["volumes"][1:], {"name": "config", "configMap": {"name": "--server=http://example.com"}}]
    release.list("daemonsets.apps", make_release_set(volumes=volumes))
    configurations = record(release)["configuration"]["value"]
    assert [entry["files"]["known"] for entry in configurations] == [True, False]
    assert [call for call in release.calls() if "--server" in call] == []


def test_agents_that_do_not_respond_are_named(release: KubectlStandIn, record: Record) -> None:
    release.answer("exec *genplug-node-1 ", stderr="Error from server: error dialing backend", code=1)
    document = record(release)
    nodes = {node["name"]: node for node in document["nodes"]["value"]}
    assert "error dialing backend" in nodes["node-1"]["version"]["reason"]
    assert nodes["node-2"]["version"]["value"] == "0.1.0"
    assert document["resources"]["source"].endswith("1 of 2 nodes")
    release.answer("exec *genplug-node-2 ", "not JSON")
    facts = find_facts(record(release))
    for path in ("resources", "drivers.drivers", "health", "plugin.versions", "status.devices"):
        assert facts[path]["reason"].startswith("no agent returned a record: ")


def test_drivers_are_counted_by_version(release: KubectlStandIn, record: Record) -> None:
    drivers = record(release)["drivers"]
    versions = {driver["version"]["value"]: driver["nodes"] for driver in drivers["drivers"]["value"]}
    assert versions == {"24.10-1.1.4": 1, "25.01": 1}
    devices = {device["resource"]: (device["devices"], device["nodes"]) for device in drivers["devices"]["value"]}
    assert devices == {"example.com/hca": (2, 2), "example.com/fuse": (2, 2)}


def test_different_images_are_listed_with_their_nodes(release: KubectlStandIn, record: Record) -> None:
    assert record(release)["plugin"]["sameImage"]["value"] is True
    release.list("pods", make_release_pod("node-1"), make_release_pod("node-2", "f"))
    plugin = record(release)["plugin"]
    assert plugin["sameImage"]["value"] is False
    assert [entry["nodes"] for entry in plugin["imageDigests"]["value"]] == [["node-1"], ["node-2"]]


@pytest.mark.parametrize(
    ("annotations", "manager", "tool"),
    [
        (HELM, "helm", "Helm release genplug in namespace genplug, chart genplug-0.1.0"),
        ({"kubectl.kubernetes.io/last-applied-configuration": "{}"}, "kubectl-client-side-apply", "kubectl apply"),
        ({}, "kubectl", "kubectl"),
        ({"argocd.argoproj.io/tracking-id": "x"}, "argocd-controller", "Argo CD"),
        ({}, "agent", None),
        ({"app.kubernetes.io/managed-by": "kustomize-v5.4.2"}, "kubectl", "kustomize-v5.4.2"),
    ],
)
def test_tool_is_that_of_the_annotations_or_field_managers(
    release: KubectlStandIn, record: Record, annotations: dict[str, str], manager: str, tool: str | None
) -> None:  # fmt: skip
    daemon_set = make_release_set()
    daemon_set["metadata"] |= {"annotations": annotations, "managedFields": [{"manager": manager}]}
    daemon_set["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
    release.list("daemonsets.apps", daemon_set)
    assert record(release)["deployment"]["tool"].get("value") == tool


@pytest.mark.parametrize(
    ("context", "annotations", "profile"),
    [
        ({"appArmorProfile": {"type": "Localhost", "localhostProfile": "genplug"}}, {}, "Localhost genplug"),
        ({}, {"container.apparmor.security.beta.kubernetes.io/genplug": "runtime/default"}, "runtime/default"),
        ({}, {}, None),
    ],
)
def test_profile_of_apparmor_is_that_of_the_field_or_the_annotation(
    release: KubectlStandIn, record: Record, context: Object, annotations: dict[str, str], profile: str | None
) -> None:
    daemon_set = make_release_set(securityContext=context)
    daemon_set["spec"]["template"]["metadata"]["annotations"] = annotations
    release.list("daemonsets.apps", daemon_set)
    assert record(release)["security"]["value"][0]["appArmor"].get("value") == profile


def test_pools_have_a_row_each(release: KubectlStandIn, record: Record) -> None:
    release.list("daemonsets.apps", make_release_set("lab", hostPID=True), make_release_set())
    release.list("pods", make_release_pod("node-1"), make_release_pod("node-2", daemon_set="genplug-lab", pool="lab"))
    release.answer("exec *genplug-lab-node-2 ", make_record("c0ffee"))
    document = record(release)
    assert [(pool["name"], pool["nodes"]) for pool in document["pools"]["value"]] == [
        ("default", ["node-1"]),
        ("lab", ["node-2"]),
    ]
    assert [entry["hostNamespaces"]["value"] for entry in document["security"]["value"]] == [[], ["hostPID"]]
    assert document["resources"]["value"][0]["pools"] == ["default", "lab"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), "found genplug in namespace genplug, second in namespace genplug; pass RELEASE and --namespace"),
        (("third",), "found genplug in namespace genplug, second in namespace genplug; check RELEASE"),
    ],
)
def test_release_must_be_unambiguous(
    release: KubectlStandIn, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], found: str
) -> None:
    other = make_release_set("lab")
    other["metadata"]["labels"] |= {"app.kubernetes.io/instance": "second"}
    release.list("daemonsets.apps", make_release_set(), other)
    assert main(["record", f"--kubectl={release.program}", *arguments]) == 2
    assert found in capsys.readouterr().err


def test_broken_objects_and_records_do_not_end_the_command(release: KubectlStandIn, record: Record) -> None:
    daemon_set = make_release_set()
    daemon_set["spec"]["template"]["spec"]["containers"][0] |= {"args": "run", "env": "x", "securityContext": []}
    release.list("daemonsets.apps", daemon_set)
    release.answer("exec *genplug-node-1 ", json.dumps({"kind": "NodeRecord", "resources": [], "drivers": {"x": 1}}))
    document = record(release)
    assert document["configuration"]["value"] == []
    assert [node["name"] for node in document["nodes"]["value"]] == ["node-1", "node-2"]


def test_only_reads_are_sent_to_the_cluster(release: KubectlStandIn, record: Record) -> None:
    record(release)
    calls = release.calls()
    assert {call.split(" ")[0] for call in calls} == {"get", "exec"}
    assert not any("secret" in call for call in calls)
    assert [call for call in calls if call.startswith("exec") and not call.endswith("-- genplug record -ojson")] == []
