"""Dependencies of a scan, and the changes that affect them."""

from genplug.hardware.dependencies import Dependencies, is_affected, with_ancestors
from genplug.spec.globs import Glob, Segment


def parse_segment(text: str) -> Segment:
    return next(iter(Glob.parse(f"/{text}")))[0]


def test_change_affects_only_dependencies_in_its_directory() -> None:
    dependencies = Dependencies()
    dependencies.add_name("/dev", "kvm")
    dependencies.add_pattern("/dev", parse_segment("x*"))
    dependencies.add_any("/dev/dri")
    frozen = dependencies.freeze()
    assert is_affected(frozen, {"/dev": frozenset({"null", "x7"})})
    assert is_affected(frozen, {"/dev": frozenset({"kvm"})})
    assert is_affected(frozen, {"/dev/dri": frozenset({"whatever"})})
    assert not is_affected(frozen, {"/dev": frozenset({"null", "kvm0"})})
    assert not is_affected(frozen, {"/run": frozenset({"kvm"})})


def test_change_without_names_affects_any_dependency_in_its_directory() -> None:
    dependencies = Dependencies()
    dependencies.add_name("/dev", "kvm")
    assert is_affected(dependencies.freeze(), {"/dev": frozenset()})
    assert not is_affected(dependencies.freeze(), {"/run": frozenset()})


def test_names_that_a_pattern_matches_are_dropped() -> None:
    dependencies = Dependencies()
    dependencies.add_pattern("", parse_segment("x*"))
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
