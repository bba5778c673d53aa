"""Which changes matter to a scan."""

from genplug.hardware.dependencies import Interests, is_concerned
from genplug.spec.globs import Glob, Segment


def pattern(text: str) -> Segment:
    return next(iter(Glob.parse(f"/{text}")))[0]


def test_a_name_a_pattern_or_anything_matters_only_in_its_folder() -> None:
    interests = Interests()
    interests.add_name("/dev", "kvm")
    interests.add_pattern("/dev", pattern("x*"))
    interests.add_any("/dev/dri")
    frozen = interests.frozen()
    assert is_concerned(frozen, {"/dev": frozenset({"null", "x7"})})
    assert is_concerned(frozen, {"/dev": frozenset({"kvm"})})
    assert is_concerned(frozen, {"/dev/dri": frozenset({"whatever"})})
    assert not is_concerned(frozen, {"/dev": frozenset({"null", "kvm0"})})
    assert not is_concerned(frozen, {"/run": frozenset({"kvm"})})


def test_a_change_without_names_always_matters_in_a_folder_that_does() -> None:
    interests = Interests()
    interests.add_name("/dev", "kvm")
    assert is_concerned(interests.frozen(), {"/dev": frozenset()})
    assert not is_concerned(interests.frozen(), {"/run": frozenset()})


def test_what_a_pattern_covers_is_kept_once() -> None:
    interests = Interests()
    interests.add_pattern("", pattern("x*"))
    for number in range(1000):
        interests.add_name("", f"x{number}")
    assert interests.frozen()["/"].names == frozenset()
