"""The configuration files of container runtimes."""

from pathlib import Path

import pytest

from genplug.agent import Settings
from genplug.doctor.facts import Machine, Runtime, UnknownFactError
from genplug.doctor.runtime import DEFAULT_CDI_DIRS, read_runtime

DEFAULT_DIRS = ("/etc/cdi", "/run/cdi")
CONTAINERD = "etc/containerd/config.toml"


def read(root: Path, **files: str) -> Runtime:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_runtime(Machine(Settings((), root=root)))


@pytest.mark.parametrize(
    ("text", "has_cdi", "directories"),
    [
        ("version = 3\n", True, DEFAULT_DIRS),
        ("version = 2\n", None, DEFAULT_DIRS),
        ('version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nenable_cdi = true\n', True, DEFAULT_DIRS),
        ("version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = false\n", False, DEFAULT_DIRS),
        (
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\ncdi_spec_dirs = ['/var/run/cdi/', '/opt/cdi']\n",
            True,
            ("/run/cdi", "/opt/cdi"),
        ),
        ('version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nenable_cdi = "yes"\n', None, DEFAULT_DIRS),
    ],
)
def test_containerd_has_a_switch_whose_default_depends_on_the_version(
    text: str, has_cdi: object, directories: tuple[str, ...], tmp_path: Path
) -> None:
    expected = ("containerd", has_cdi, directories, (f"/{CONTAINERD}",))
    found = read(tmp_path, **{CONTAINERD: text})
    assert (found.name, found.has_cdi, found.cdi_dirs, found.files) == expected


def test_imported_file_of_containerd_overrides_the_first_file(tmp_path: Path) -> None:
    text = 'version = 2\nimports = ["conf.d/*.toml"]\n'
    switch = '[plugins."io.containerd.grpc.v1.cri"]\nenable_cdi = true\n'
    found = read(tmp_path, **{CONTAINERD: text, "etc/containerd/conf.d/cdi.toml": switch})
    assert found.has_cdi is True
    assert found.files == (f"/{CONTAINERD}", "/etc/containerd/conf.d/cdi.toml")


def test_import_of_containerd_does_not_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "outside.toml").write_text("broken = ")
    (tmp_path / "host/conf.d").mkdir(parents=True)
    (tmp_path / "host/conf.d/inside.toml").write_text("")
    text = 'version = 2\nimports = ["/../outside.toml", "../../../outside.toml", "../../../conf.d/*"]\n'
    found = read(tmp_path / "host", **{CONTAINERD: text})
    assert found.errors == ()
    assert found.files == (f"/{CONTAINERD}", "/conf.d/inside.toml")


def test_broken_file_is_reported(tmp_path: Path) -> None:
    found = read(tmp_path, **{CONTAINERD: "version = "})
    assert found.has_cdi is None
    assert found.errors[0].startswith(f"/{CONTAINERD}: ")


def test_containerd_without_a_file_has_its_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, **{"run/containerd/containerd.sock": ""})
    assert (found.name, found.has_cdi, found.cdi_dirs) == ("containerd", None, DEFAULT_CDI_DIRS)


def test_crio_always_injects_cdi_devices(tmp_path: Path) -> None:
    found = read(tmp_path, **{"etc/crio/crio.conf": "[crio.runtime]\n"})
    assert found == Runtime("CRI-O", True, DEFAULT_DIRS, ("/etc/crio/crio.conf",))  # noqa: FBT003 - a row of a table
    found = read(tmp_path, **{"etc/crio/crio.conf.d/10-cdi.conf": "[crio.runtime]\ncdi_spec_dirs = ['/opt/cdi']\n"})
    assert found.cdi_dirs == ("/opt/cdi",)


def test_machine_without_a_runtime_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UnknownFactError, match="Run genplug doctor on the node itself"):
        read(tmp_path)


@pytest.mark.parametrize("imports", ['["conf.d/**.toml"]', '["\\u0000"]', "1", "true", "[1]"])
def test_invalid_imports_of_containerd_are_ignored(imports: str, tmp_path: Path) -> None:
    found = read(tmp_path, **{CONTAINERD: f"version = 3\nimports = {imports}\n"})
    assert (found.has_cdi, found.files) == (True, (f"/{CONTAINERD}",))


def test_invalid_glob_of_an_import_is_reported(tmp_path: Path) -> None:
    found = read(tmp_path, **{CONTAINERD: 'imports = ["conf.d/**.toml"]\n'})
    assert found.errors[0].startswith("/etc/containerd/conf.d/**.toml: Invalid pattern")
