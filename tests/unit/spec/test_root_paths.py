"""Paths of the host below a root."""

import pytest

from genplug.spec.root_paths import OutsideRootError, strip_root


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/dev/kvm", "/", "/dev/kvm"),
        ("/host/dev/kvm", "/host", "/dev/kvm"),
        ("/host/dev/kvm", "/host/", "/dev/kvm"),
        ("/host/host/kvm", "/host", "/host/kvm"),
        ("/host", "/host", "/"),
        ("/", "/", "/"),
        ("tree/dev/kvm", "tree", "/dev/kvm"),
        ("dev/kvm", ".", "/dev/kvm"),
    ],
)
def test_path_below_the_root_is_a_path_of_the_host(path: str, root: str, expected: str) -> None:
    assert strip_root(path, root) == expected


@pytest.mark.parametrize("path", ["/hostile/dev/kvm", "/dev/kvm", "/", "host/dev/kvm", ""])
def test_path_outside_of_the_root_is_refused(path: str) -> None:
    with pytest.raises(OutsideRootError, match="expected a path below /host, found "):
        strip_root(path, "/host")
