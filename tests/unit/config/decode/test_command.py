"""The command of ``preStart``."""

import pytest

from genplug.config.load import load_text
from genplug.spec.diagnostic import ErrorCode
from tests.support.configs import DEVICES, NAME, find_diagnostics, read_policy, render_config, render_pre_start

ALL_PROGRAMS = read_policy("exec: {allow: ['/**']}")


def test_arguments_of_a_program_are_not_checked_against_the_policy() -> None:
    policy = read_policy("exec: {allow: [/opt/reset]}")
    spec = load_text(render_config(render_pre_start("/opt/reset", "/etc/shadow", "${path}", "")), "c.yaml", policy)
    found = spec.resources[NAME].pre_start
    assert found is not None
    assert [part.text for part in found.command] == ["/opt/reset", "/etc/shadow", "${path}", ""]
    assert found.timeout_seconds == 5


@pytest.mark.parametrize(
    "program", ["reset", "./reset", "", "~/reset", "/opt/${name}", "${path}", "/opt/../bin/sh", "/opt/.."]
)
def test_program_must_be_an_absolute_path_under_any_policy(program: str) -> None:
    (diagnostic,) = find_diagnostics(render_config(render_pre_start(program)), ALL_PROGRAMS)
    assert (diagnostic.code, diagnostic.message) == (
        ErrorCode.PATH,
        f"{program!r} is not the absolute path of a program",
    )


@pytest.mark.parametrize(
    "body",
    [
        "preStart: {}",
        "preStart: {exec: {}}",
        "preStart: {exec: {command: []}}",
        "preStart: {exec: {command: /opt/x}}",
        "preStart: {exec: {command: [/opt/x], shell: true}}",
        "preStart: {exec: {command: [/opt/x]}, timeoutSeconds: 0}",
        # The kubelet cancels PreStartContainer after 30 s.
        "preStart: {exec: {command: [/opt/x]}, timeoutSeconds: 30}",
    ],
)
def test_invalid_pre_start_is_reported_once(body: str) -> None:
    assert len(find_diagnostics(render_config(f"{DEVICES}\n{body}"), ALL_PROGRAMS)) == 1
