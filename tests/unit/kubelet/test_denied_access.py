"""The map of user IDs: in the initial user namespace, every ID exists."""

from pathlib import Path

import pytest

from genplug.kubelet.denied_access import is_in_user_namespace


@pytest.mark.parametrize(
    ("text", "is_inside"),
    [
        ("         0          0 4294967295\n", False),
        # A pod with hostUsers: false, unshare --map-root-user, and rootless podman.
        ("         0 2147352576      65536\n", True),
        ("         0          0          1\n", True),
        ("         0       1000          1\n         1     100000      65536\n", True),
    ],
)
def test_user_namespace_has_other_user_ids(text: str, is_inside: bool, tmp_path: Path) -> None:  # noqa: FBT001
    path = tmp_path / "uid_map"
    path.write_text(text)
    assert is_in_user_namespace(path) is is_inside


def test_kernel_without_user_namespaces_has_no_map(tmp_path: Path) -> None:
    assert not is_in_user_namespace(tmp_path / "uid_map")
