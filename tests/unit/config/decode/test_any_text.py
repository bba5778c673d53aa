"""Any text in place of a glob, template, regular expression or condition is valid or an error at its location."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genplug.config.diagnostics import ConfigInvalidError
from genplug.config.load import load_text

HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\nresources:\n  a.io/x:\n"
DEVICES = "    devices: [{glob: /dev/x}]\n"
PLACES = {
    "glob": "    devices: [{glob: TEXT}]\n",
    "exclude": "    devices: [{glob: /dev/x, exclude: TEXT}]\n",
    "condition": "    devices: [{glob: /dev/x, where: {name: TEXT}}]\n",
    "condition list": "    devices: [{glob: /dev/x, where: {name: {in: [TEXT], notIn: [TEXT]}}}]\n",
    "condition regex": "    devices: [{glob: /dev/x, where: {name: {matches: TEXT}}}]\n",
    "condition limit": "    devices: [{glob: /dev/x, where: {name: {min: TEXT, max: TEXT}}}]\n",
    "attribute name": "    devices: [{glob: /dev/x, attributes: {TEXT: {path: /x}}}]\n",
    "attribute path": "    devices: [{glob: /dev/x, attributes: {a: {path: TEXT}}}]\n",
    "attribute find": "    devices: [{glob: /dev/x, attributes: {a: {path: /x, find: TEXT}}}]\n",
    "sysfs": "    devices: [{glob: /dev/x, sysfs: TEXT}]\n",
    "companion": "    devices: [{glob: /dev/x, with: [TEXT]}]\n",
    "container path": "    devices: [{glob: /dev/x, nodes: [{path: TEXT, as: TEXT}]}]\n",
    "id": "    devices: [{glob: /dev/x, groupBy: TEXT, id: TEXT}]\n",
    "slices": DEVICES + "    slices: TEXT\n",
    "environment": DEVICES + "    allocate: {env: {A: TEXT}, annotations: {a.io/b: TEXT}}\n",
    "mount": DEVICES + "    allocate: {mounts: [{hostPath: TEXT, containerPath: TEXT}]}\n",
    "CDI device": DEVICES + "    allocate: {cdiDevices: [TEXT]}\n",
    "alias": DEVICES + "    aliases: [TEXT]\n",
    "file probe": DEVICES + "    health: {probes: [{file: {path: TEXT, find: TEXT, min: TEXT, bitsClear: TEXT}}]}\n",
    "kernel log probe": DEVICES + "    health: {probes: [{kernelLog: {fail: TEXT, ignore: TEXT, clear: TEXT}}]}\n",
    "http probe": DEVICES + "    health: {probes: [{http: {url: TEXT}}]}\n",
    "socket probe": DEVICES + "    health: {probes: [{tcpSocket: {host: TEXT, port: TEXT}}]}\n",
    "command": DEVICES + "    preStart: {exec: {command: [TEXT]}}\n",
    "resource name": DEVICES + "  TEXT:\n" + DEVICES,
}
PIECES = [
    *"{}[]()*?!^-,./$|:\\+ab019 \"'\n\t&é\0\udcff",
    "${name}",
    "${name|",
    "**",
    "..",
    "/dev/",
    "{0..3}",
    "[a-c]",
    "\\pL",
    "{1000}",
]
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=20)


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=150, deadline=None)
@example(text="/dev/*{,*}x")
@example(text="/dev/{a..z..0}")
@example(text="{" * 1500 + "a,b" + "}" * 1500)
@example(text="${name|replace:a:" + "b" * 1000 + "}")
@given(text=texts)
def test_any_text_is_valid_or_an_error_at_its_location(place: str, text: str) -> None:
    content = HEAD + PLACES[place].replace("TEXT", json.dumps(text))
    try:
        load_text(content, "config.yaml")
    except ConfigInvalidError as invalid:
        lines = content.count("\n") + 1
        for diagnostic in invalid.diagnostics:
            assert diagnostic.location.file == "config.yaml"
            assert 4 <= diagnostic.location.line <= lines, diagnostic
            assert diagnostic.message
