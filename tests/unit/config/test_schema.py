"""The JSON Schema of the configuration: it is valid, and each key has a description and valid examples."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import re2
from jsonschema import Draft7Validator

from genplug.config.diagnostics import Diagnostics
from genplug.config.schema import schema_text
from genplug.config.yaml_tree import parse_document, to_python

SCHEMA = json.loads(schema_text())
VALIDATOR = Draft7Validator(SCHEMA)


def find_keys(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key and every definition of a schema."""
    if not isinstance(schema, dict):
        return
    for group in ("properties", "definitions"):
        for name, inner in schema.get(group, {}).items():
            yield f"{path}/{name}", inner
            yield from find_keys(inner, f"{path}/{name}")
    for inner in ("items", "additionalProperties"):
        yield from find_keys(schema.get(inner), path)


KEYS = dict(find_keys(SCHEMA))


def test_schema_is_valid_under_draft_07() -> None:
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("path", "schema"), KEYS.items(), ids=KEYS)
def test_key_of_the_schema_has_a_description_and_valid_examples(path: str, schema: dict[str, Any]) -> None:
    assert schema["description"].endswith("."), path
    assert schema["examples"], path
    for example in [*schema["examples"], *([schema["default"]] if "default" in schema else [])]:
        # References resolve in the definitions of the whole schema.
        assert list(Draft7Validator({**schema, "definitions": SCHEMA["definitions"]}).iter_errors(example)) == []


@pytest.mark.parametrize(("path", "schema"), KEYS.items(), ids=KEYS)
def test_object_of_the_schema_rejects_unknown_keys(path: str, schema: dict[str, Any]) -> None:
    types = schema.get("type", [])
    if "object" in types and path != "/resources":
        assert "additionalProperties" in schema
        assert schema["additionalProperties"] is not True


def test_patterns_of_the_schema_compile_with_re2() -> None:
    patterns = [schema["pattern"] for schema in KEYS.values() if "pattern" in schema]
    assert patterns
    for pattern in patterns:
        re2.compile(pattern)


LANGUAGE = """
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
defaults: {health: {periodSeconds: 10}}
resources:
  rdma/hca:
    devices:
    - glob: "/dev/infiniband/{uverbs,umad,issm}*"
      exclude: [/dev/infiniband/umad9]
      type: char
      groupBy: ${ib.device}
      id: ${ib.device}
      with: [/dev/infiniband/rdma_cm, {path: /dev/x, as: /dev/y, permissions: rwm, optional: true}]
      nodes: ["${path}"]
      where:
        ib.linkLayer: InfiniBand
        pci.vendor: [0x10de, "10de"]
        attr.size: {min: 64Gi, max: 5, in: [a], notIn: b, matches: c, exists: true}
      attributes:
        bdf: {path: /proc/driver/nvidia/gpus/*/information, find: 'Device Minor:\\s*${minor}\\b', dir: true}
    replicas: 4
    tokens: 100
    slices: ${attr.core_count}
    share: {maxPerContainer: 1, distinct: true, overlap: false}
    aliases: [old.example/name]
    allocate:
      env: {NVIDIA_VISIBLE_DEVICES: "${uuid}"}
      mounts: [{hostPath: /usr/local/nvidia, containerPath: /usr/local/nvidia, readOnly: true, optional: false}]
      annotations: {}
      cdiDevices: ["nvidia.com/gpu=${uuid}"]
      inject: cdi
    preferredAllocation: {policy: packed, by: "${numaNode}"}
    topology: auto
    preStart: {exec: {command: [/opt/reset, "${pci.address}"]}, timeoutSeconds: 20}
    health:
      periodSeconds: 10
      timeoutSeconds: 2
      failureThreshold: 3
      successThreshold: 2
      onError: keep
      sticky: false
      removalGracePeriodSeconds: 60
      probes:
      - pci: {minLinkWidth: 8}
        name: link
        periodSeconds: 1
        onError: unhealthy
      - file: {path: "${sysfs}/aer_dev_fatal", find: 'F (?P<value>\\d+)', maxIncrease: 0, perSeconds: 3600}
      - file: {path: /x, equals: operating, notEquals: x, matches: y, notMatches: z, min: 1, max: 2, bitsClear: 0x4}
      - file: {path: /x, require: all, missing: fail}
      - kernelLog: {fail: 'NVRM: Xid', clear: 'GPU recovery'}
      - open: {mode: rw}
      - exec: {command: [/usr/bin/check, "${path}"]}
      - http: {url: "http://127.0.0.1:9400/health/${uuid}", expectStatus: 200}
      - unixSocket: {path: /run/sidecar.sock}
  fpga.intel.com/region-${compatId}:
    devices: [{glob: /dev/dfl-port.*}]
"""


def test_schema_accepts_every_key_of_the_language() -> None:
    tree = parse_document(LANGUAGE, "page", Diagnostics())
    assert tree is not None
    assert [error.message for error in VALIDATOR.iter_errors(to_python(tree))] == []
