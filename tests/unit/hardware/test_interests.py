"""Which changes matter to a scan."""

from genplug.hardware.dependencies import Dependencies, is_affected, with_ancestors
from genplug.spec.globs import Glob, Segment


def pattern(text: str) -> Segment:
    return next(iter(Glob.parse(f"/{text}")))[0]


def test_a_name_a_pattern_or_anything_matters_only_in_its_directory() -> None:
    dependencies = Dependencies()
    dependencies.add_name("/dev", "kvm")
    dependencies.add_pattern("/dev", pattern("x*"))
    dependencies.add_any("/dev/dri")
    frozen = dependencies.freeze()
    assert is_affected(frozen, {"/dev": frozenset({"null", "x7"})})
    assert is_affected(frozen, {"/dev": frozenset({"kvm"})})
    assert is_affected(frozen, {"/dev/dri": frozenset({"whatever"})})
    assert not is_affected(frozen, {"/dev": frozenset({"null", "kvm0"})})
    assert not is_affected(frozen, {"/run": frozenset({"kvm"})})


def test_a_change_without_names_always_matters_in_a_directory_that_does() -> None:
    dependencies = Dependencies()
    dependencies.add_name("/dev", "kvm")
    assert is_affected(dependencies.freeze(), {"/dev": frozenset()})
    assert not is_affected(dependencies.freeze(), {"/run": frozenset()})


def test_what_a_pattern_covers_is_kept_once() -> None:
    dependencies = Dependencies()
    dependencies.add_pattern("", pattern("x*"))
    for number in range(1000):
        dependencies.add_name("", f"x{number}")
    assert dependencies.freeze()["/"].names == frozenset()


def test_paths_with_ancestors_include_every_directory_above() -> None:
    assert with_ancestors(["/sys/x/state", "/dev/dri/"]) == {
        "/sys/x/state",
        "/sys/x",
        "/sys",
        "/dev/dri/",
        "/dev/dri",
        "/dev",
    }
