"""Loading of whole configurations: errors of several files, and the digest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from genplug.config.decode.config import decode
from genplug.config.diagnostics import ConfigInvalidError, Diagnostics
from genplug.config.files import ConfigFile
from genplug.config.load import load, load_texts
from genplug.config.yaml_tree import MapNode
from genplug.spec.diagnostic import DiagnosticCode, ErrorCode
from genplug.spec.model import Config
from genplug.spec.policy import Policy
from tests.support.configs import CONFIG_HEADER, DEVICES, collect_diagnostics, find_diagnostics, render_config


def load_files(*texts: str) -> Config:
    return load_texts([ConfigFile(f"{number}.yaml", text) for number, text in enumerate(texts)])


def locate_diagnostics(*texts: str) -> list[tuple[DiagnosticCode, str]]:
    return [
        (diagnostic.code, str(diagnostic.location)) for diagnostic in collect_diagnostics(lambda: load_files(*texts))
    ]


def test_unreadable_file_adds_no_errors_to_other_files() -> None:
    # Without the first file, the second file would lack its version, its kind and its devices.
    assert locate_diagnostics(render_config(DEVICES) + "  - x", "resources: {example.com/x: {replicas: 2}}") == [
        (ErrorCode.SYNTAX, "0.yaml:6:3")
    ]


def test_wrong_version_is_reported_in_a_file_that_a_later_file_overrides() -> None:
    assert locate_diagnostics("apiVersion: genplug.io/v2\n", render_config(DEVICES)) == [
        (ErrorCode.WRONG_VERSION, "0.yaml:1:13")
    ]


def test_policy_among_the_configuration_files_is_reported_with_its_option() -> None:
    (diagnostic,) = find_diagnostics("apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\nresources: ['*']\n")
    assert (diagnostic.code, diagnostic.hint) == (
        ErrorCode.WRONG_VERSION,
        "a policy is not part of the configuration that it limits: pass its file with --policy",
    )


def test_empty_map_of_resources_is_valid() -> None:
    assert load_files(f"{CONFIG_HEADER}resources: {{}}\n").resources == {}


def test_digest_depends_on_the_content_and_not_on_its_layout() -> None:
    def digest(*texts: str) -> str:
        return load_files(*texts).sha256

    text = render_config("devices: [{glob: /dev/x*}]")
    other_layout = render_config("# a comment\ndevices:\n- 'glob': \"/dev/x*\"")
    assert digest(text) == digest(other_layout) == digest(text, "{}")
    assert digest(text) != digest(render_config("devices: [{glob: /dev/y*}]"))
    assert digest(text) != digest(text, "resources: {example.com/x: {tokens: 5}}")


def test_digest_depends_on_the_order_of_resources() -> None:
    entries = [f"  example.com/{name}: {{devices: [{{glob: /dev/x}}]}}\n" for name in "ab"]
    # The first of two resources that claim a device node gets it.
    first, second = (f"{CONFIG_HEADER}resources:\n{''.join(order)}" for order in (entries, reversed(entries)))
    assert load_files(first).sha256 != load_files(second).sha256


def test_configuration_is_decoded_again_only_if_its_files_or_its_policy_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[str, ...]] = []

    def record(tree: MapNode, files: tuple[str, ...], diagnostics: Diagnostics, policy: Policy | None) -> Config:
        decoded.append(files)
        return decode(tree, files, diagnostics, policy)

    monkeypatch.setattr("genplug.config.load.decode", record)
    directory, policy = tmp_path / "config", tmp_path / "policy.yaml"
    directory.mkdir()
    file = directory / "a.yaml"
    file.write_text(render_config(DEVICES))
    policy.write_text("apiVersion: genplug.io/v1alpha1\nkind: DevicePluginPolicy\n")
    first = load((directory,), policy=policy)
    file.write_text(render_config(DEVICES))
    same = load((directory,), policy=policy, previous=first)
    assert same.config is first.config
    assert len(decoded) == 1
    changes: tuple[Callable[[], object], ...] = (
        lambda: file.write_text(f"# a comment\n{render_config(DEVICES)}"),
        lambda: file.rename(directory / "b.yaml"),
        lambda: policy.write_text(f"{policy.read_text()}resources: ['*/*']\n"),
        lambda: (directory / "ignored.txt").write_text(render_config(DEVICES)),
    )
    for number, change in enumerate(changes, 2):
        change()
        changed = load((directory,), policy=policy, previous=first)
        assert len(decoded) == number
        assert changed.config.files
        first = changed


def test_invalid_files_are_not_the_previous_configuration(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(render_config(DEVICES))
    previous = load((file,))
    file.write_text("resources: 1")
    with pytest.raises(ConfigInvalidError):
        load((file,), previous=previous)
    file.unlink()
    with pytest.raises(ConfigInvalidError):
        load((file,), previous=previous)
