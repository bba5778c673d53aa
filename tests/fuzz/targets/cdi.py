"""CDI files of other programs."""

import json

import yaml

from genplug.hardware.cdi_files import parse_cdi_file, reduce_cdi_file
from genplug.spec.names import cdi_device_error
from tests.fuzz.documents import document_mutator
from tests.fuzz.target import Target
from tests.support.configs import format_cdi_spec

_SPECS = [json.loads(format_cdi_spec(kind, "a", "b0")) for kind in ("vendor.example/class", "nvidia.com/gpu")]


def run_cdi_file(content: bytes) -> None:
    file = parse_cdi_file(content)
    assert bool(file.devices) != bool(file.error)
    for device in file.devices:
        assert not cdi_device_error(device)
    # A capture defines the same devices.
    assert parse_cdi_file(reduce_cdi_file(content)).devices == file.devices


def list_cdi_files() -> list[bytes]:
    return [text.encode() for spec in _SPECS for text in (json.dumps(spec), yaml.safe_dump(spec))]


TARGETS = (
    Target(
        "cdi-file",
        "CDI files of other programs",
        run_cdi_file,
        list_cdi_files,
        words=(
            "cdiVersion: 0.6.0\n",
            "kind: a.b/c\n",
            "devices:\n",
            "- name: ",
            "containerEdits:\n",
            "&a ",
            "*a",
            "{",
            "[",
        ),
        mutate=document_mutator(values=_SPECS),
    ),
)
