"""A configuration editor cannot add hooks or other instructions for the container runtime to a CDI file."""

import json
from typing import Any

import pytest

from genplug.observe.events import Event
from genplug.spec.diagnostic import ErrorCode
from genplug.spec.policy import Policy
from genplug.testing.node.events import next_event, record_events
from genplug.testing.node.fake_node import FakeNode
from tests.support.configs import find_diagnostics, render_config
from tests.support.resources import X, build_x_config

HOOK = "{hookName: createRuntime, path: /bin/sh, args: [sh, -c, id]}"
ALLOWED_KEYS = {"deviceNodes", "mounts", "additionalGids", "env"}
"""What genplug writes for a device: the runtime runs programs of ``hooks`` as root on the node."""
FILE = "/var/run/cdi/genplug-example.com_x.json"


def list_keys(value: Any) -> set[str]:
    """Return the keys of all objects in a document."""
    if isinstance(value, dict):
        return set(value).union(*map(list_keys, value.values()))
    return set().union(*map(list_keys, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize(
    "body",
    [
        f"devices: [{{glob: /dev/x*}}]\nallocate: {{inject: cdi, hooks: [{HOOK}]}}",
        f"devices: [{{glob: /dev/x*}}]\nallocate: {{inject: cdi, containerEdits: {{hooks: [{HOOK}]}}}}",
        f"devices: [{{glob: /dev/x*, hooks: [{HOOK}]}}]\nallocate: {{inject: cdi}}",
        f"devices: [{{glob: /dev/x*, nodes: [{{path: '${{path}}', hooks: [{HOOK}]}}]}}]\nallocate: {{inject: cdi}}",
        f"devices: [{{glob: /dev/x*}}]\nhooks: [{HOOK}]",
    ],
)
def test_hook_in_a_configuration_is_an_unknown_key(body: str) -> None:
    (diagnostic,) = find_diagnostics(render_config(body), Policy())
    assert diagnostic.code is ErrorCode.UNKNOWN_KEY


async def test_text_of_a_configuration_adds_no_key_to_a_cdi_file(node: FakeNode) -> None:
    name = 'x"}],"hooks":[{"hookName":"createRuntime","path":"id"}],"a":[{"b":"'
    node.plug(f"/dev/{name}")
    text = json.dumps('${name}"]}, "hooks": [{"path": "/bin/sh"}]').replace("'", "''")
    options = f"allocate: {{inject: cdi, env: {{X: {text}}}}}"
    async with node.run_agent(
        build_x_config(options, source=f"nodes: [{{path: '${{path}}', as: '/dev/y{name}'}}]")
    ) as agent:
        events = record_events(agent)
        await node.kubelet.wait_for_list(X, lambda devices: len(devices.ids) == 1)
        document = json.loads(node.locate(FILE).read_text())
        assert set(document) == {"cdiVersion", "kind", "devices"}
        [device] = document["devices"]
        assert set(device["containerEdits"]) <= ALLOWED_KEYS
        assert "hooks" not in list_keys(document)
        response = (await node.kubelet.admit(X)).response
        assert [found.name for found in response.cdi_devices] == [f"{document['kind']}={device['name']}"]

        # A configuration with a hook is rejected, and the active one continues.
        node.write_config(build_x_config(f"allocate: {{inject: cdi, hooks: [{HOOK}]}}"))
        await next_event(events, Event.CONFIG_INVALID, "hooks")
        assert "hooks" not in list_keys(json.loads(node.locate(FILE).read_text()))
