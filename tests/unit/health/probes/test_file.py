"""The probe ``file``: what the value is, which files exist, how files are read, and counters."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.hardware.host import Host
from genplug.health.counter import CounterLimit
from genplug.health.probes import file
from genplug.health.probes.file import FileCheck, Otherwise
from genplug.health.thresholds import Outcome, Result, initial_state, next_state
from genplug.health.value_check import ValueCheck
from genplug.health.workers.file_reader import NOT_A_FILE, CachedFileReader
from genplug.health.workers.main import run_request
from genplug.health.workers.protocol import encode
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.probes import OnError, ProbeTiming
from genplug.spec.read_rules import parse_read_rules
from genplug.spec.template import MissingAttributeError, Template, Values, merge_values
from tests.support.probes import PASSED, make_device, polling_of, request_of, run_once

t = Template.parse


def write(root: Path, path: str, text: str) -> Path:
    location = root / path.lstrip("/")
    location.parent.mkdir(parents=True, exist_ok=True)
    location.write_text(text)
    return location


def evaluate(check: FileCheck, *texts: str | int, path: str = "/sys/x") -> Result:
    """The result of a first run that found these texts, or an errno instead of a text."""
    return file.evaluate(check, ((path, tuple((f"{path}{n or ''}", text) for n, text in enumerate(texts))),), None, 0)[
        0
    ]


class Counting:
    """A counter that is read every 10 seconds."""

    def __init__(self, max_increase: float, window: float, *, expected: ValueCheck | None = None) -> None:
        self.check = FileCheck(
            t("/sys/n"), expected=expected or ValueCheck(), counter=CounterLimit(max_increase, window)
        )
        self.memory: file.Memory | None = None
        self.now = 0.0

    def __call__(self, *values: float | str) -> list[str]:
        """The outcomes of runs that found these values."""
        return [self.read(value).outcome.name for value in values]

    def read(self, value: float | str) -> Result:
        texts: file.Texts = (("/sys/n", str(value)),)
        result, self.memory = file.evaluate(self.check, (("/sys/n", texts),), self.memory, self.now)
        self.now += 10
        return result

    def fail(self, number: int) -> Result:
        result, self.memory = file.evaluate(self.check, (("/sys/n", (("/sys/n", number),)),), self.memory, self.now)
        self.now += 10
        return result


def test_find_uses_capture_named_value_else_first_capture_else_whole_match() -> None:
    text = "ue: 3\nce: 7"
    for find, value in ((r"ue: (\d+)\nce: (?P<value>\d+)", "7"), (r"ue: (\d+)\nce: (\d+)", "3"), (r"ce: \d+", "ce: 7")):
        assert evaluate(FileCheck(t("/sys/x"), find, ValueCheck(equals=value)), text) == PASSED
        assert evaluate(FileCheck(t("/sys/x"), find, ValueCheck(not_equals=value)), text).outcome is Outcome.FAILED


def test_unused_capture_is_no_match() -> None:
    result = evaluate(
        FileCheck(t("/sys/x"), r"(?P<value>ue: \d+)|inaccessible", ValueCheck(equals="ue: 0")), "inaccessible"
    )
    assert result == Result(Outcome.ERROR, r"/sys/x: no match of '(?P<value>ue: \d+)|inaccessible' in the text")


def test_empty_capture_is_a_value() -> None:
    assert evaluate(FileCheck(t("/sys/x"), "flags:(.*)", ValueCheck(equals="")), "flags:") == PASSED


def test_readable_file_passes_without_conditions() -> None:
    assert evaluate(FileCheck(t("/sys/x")), "whatever") == PASSED
    assert evaluate(FileCheck(t("/sys/x")), errno.EIO) == Result(
        Outcome.ERROR, "/sys/x cannot be read: Input/output error"
    )


def test_nvdimm_flags_fail_unless_only_notifications_are_set() -> None:
    flags = FileCheck(
        t("/sys/x"), expected=ValueCheck(not_matches=r"\b(save_fail|restore_fail|flush_fail|not_armed|map_fail)\b")
    )
    for text in ("", "smart_notify", "smart_event smart_notify"):
        assert evaluate(flags, text) == PASSED
    for text in ("save_fail", "smart_notify flush_fail", "not_armed smart_notify"):
        assert evaluate(flags, text).outcome is Outcome.FAILED


def test_text_without_match_keeps_the_state() -> None:
    check = FileCheck(t("/sys/x"), r"ue: (\d+)", ValueCheck(equals="0"))
    timing = ProbeTiming(failure_threshold=1, on_error=OnError.KEEP)
    state = next_state(initial_state(0), evaluate(check, "ue: 0"), timing, 0)
    for now in range(1, 10):
        state = next_state(state, evaluate(check, "Query currently inaccessible"), timing, now)
    assert state.healthy
    assert "no match of" in state.error


@pytest.mark.parametrize("passing", ["2: INIT", "3: ARMED"])
def test_transient_port_state_fails_only_if_it_lasts(passing: str) -> None:
    check, timing = FileCheck(t("/sys/x"), expected=ValueCheck(matches="ACTIVE")), ProbeTiming(failure_threshold=3)
    state = next_state(initial_state(0), evaluate(check, "4: ACTIVE"), timing, 0)
    for text in (passing, passing, "4: ACTIVE", passing, passing):
        state = next_state(state, evaluate(check, text), timing, 1)
        assert state.healthy
    state = next_state(state, evaluate(check, passing), timing, 2)
    assert not state.healthy
    assert state.reason == f"/sys/x is '{passing}', expected a match of 'ACTIVE'"


ORDER = [
    # "all" takes the worst file, "any" the best.
    ((0, 1, errno.EIO), "FAILED", "PASSED"),
    ((0, errno.EIO), "ERROR", "PASSED"),
    ((1, errno.EIO), "FAILED", "ERROR"),
    ((errno.EIO, 1), "FAILED", "ERROR"),
    ((1, 1), "FAILED", "FAILED"),
    ((0, 0), "PASSED", "PASSED"),
]


@pytest.mark.parametrize(("found", "of_all", "of_any"), ORDER)
def test_require_decides_between_worst_and_best_file(found: tuple[int, ...], of_all: str, of_any: str) -> None:
    texts = [value if value == errno.EIO else str(value) for value in found]
    for require_all, outcome in ((True, of_all), (False, of_any)):
        check = FileCheck(t("/sys/x*"), expected=ValueCheck(equals="0"), require_all=require_all)
        assert evaluate(check, *texts).outcome.name == outcome


def test_glob_without_match_is_missing(tmp_path: Path) -> None:
    write(tmp_path, "/sys/a/state", "ok")
    for missing, outcome in (
        (Otherwise.FAIL, Outcome.FAILED),
        (Otherwise.ERROR, Outcome.ERROR),
        (Otherwise.OK, Outcome.PASSED),
    ):
        check = FileCheck(t("/sys/${name}/st*"), expected=ValueCheck(equals="ok"), missing=missing)
        assert run_once(tmp_path, check, {"name": ("a", "b")}).outcome is outcome
        assert run_once(tmp_path, check, {"name": ("a",)}) == PASSED
    any_of = FileCheck(
        t("/sys/${name}/st*"), expected=ValueCheck(equals="ok"), missing=Otherwise.FAIL, require_all=False
    )
    assert run_once(tmp_path, any_of, {"name": ("a", "b")}) == PASSED


def test_path_below_a_file_or_behind_a_dangling_link_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path, "/sys/state", "ok")
    (tmp_path / "sys/link").symlink_to("nowhere")
    (tmp_path / "sys/circle").symlink_to("circle")
    for path in ("/sys/state/below", "/sys/link", "/sys/link*", "/sys/circle"):
        result = run_once(tmp_path, FileCheck(t(path), missing=Otherwise.FAIL))
        assert result.outcome is Outcome.FAILED
        assert result.reason.endswith(" does not exist")


def test_device_without_attribute_of_path_cannot_be_bound() -> None:
    with pytest.raises(MissingAttributeError, match=r"pci\.address"):
        request_of(FileCheck(t("/sys/${pci.address}/x")), {})


def test_devices_with_the_same_path_share_a_request() -> None:
    check = FileCheck(t("/sys/class/net/${bridge}/carrier"))
    assert request_of(check, {"bridge": ("br0",), "name": ("a",)}) == request_of(
        check, {"bridge": ("br0",), "name": ("b",)}
    )
    assert request_of(check, {"bridge": ("br0", "br1")})[2:] == (
        "/sys/class/net/br0/carrier",
        "/sys/class/net/br1/carrier",
    )


@pytest.mark.root
def test_device_node_matched_by_glob_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path, "/dev/a", "ok")
    # Reading /dev/zero would never end.
    os.mknod(tmp_path / "dev/b", 0o020600, os.makedev(1, 5))
    result = run_once(tmp_path, FileCheck(t("/dev/*"), expected=ValueCheck(equals="ok")))
    assert result == Result(Outcome.ERROR, "/dev/b cannot be read: it is not a regular file")


@pytest.mark.root
def test_device_node_that_replaces_a_file_is_not_read(tmp_path: Path) -> None:
    location, reader = write(tmp_path, "/run/state", "ok"), CachedFileReader(Host(tmp_path))
    assert reader.text("/run/state") == "ok"
    location.unlink()
    os.mknod(location, 0o020600, os.makedev(1, 3))
    reader.start_batch()
    assert reader.text("/run/state") == NOT_A_FILE


def test_failed_read_is_an_error_and_not_a_failure() -> None:
    # No memory is mapped at its start (proc_pid_mem(5)).
    result = run_once(
        Path("/"), FileCheck(t(f"/proc/{os.getpid()}/mem"), expected=ValueCheck(equals="1"), missing=Otherwise.FAIL)
    )
    assert result == Result(Outcome.ERROR, f"/proc/{os.getpid()}/mem cannot be read: {os.strerror(errno.EIO)}")


def test_unreadable_file_other_than_carrier_is_an_error() -> None:
    # The loopback device has no speed, whether it is up or down.
    result = run_once(Path("/"), FileCheck(t("/sys/class/net/lo/speed"), expected=ValueCheck(equals="0")))
    assert result == Result(Outcome.ERROR, f"/sys/class/net/lo/speed cannot be read: {os.strerror(errno.EINVAL)}")


def test_value_is_literal_in_a_path(tmp_path: Path) -> None:
    write(tmp_path, "/sys/a[1]/state", "ok")
    write(tmp_path, "/sys/a1/state", "bad")
    for path in ("/sys/${name}/state", "/sys/${name}/sta*"):
        check = FileCheck(t(path), expected=ValueCheck(equals="ok"), missing=Otherwise.FAIL)
        assert run_once(tmp_path, check, {"name": ("a[1]",)}) == PASSED


def test_file_is_read_once_in_a_batch(tmp_path: Path) -> None:
    location, reader = write(tmp_path, "/sys/x", "one"), CachedFileReader(Host(tmp_path))
    request = request_of(FileCheck(t("/sys/x")), {})
    assert file.run(request, reader, 1) == (("/sys/x", (("/sys/x", "one"),)),)
    location.write_text("two")
    assert file.run(request, reader, 1) == (("/sys/x", (("/sys/x", "one"),)),)
    reader.start_batch()
    assert file.run(request, reader, 1) == (("/sys/x", (("/sys/x", "two"),)),)


def test_text_is_stripped_and_decoded_with_replacements(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"  operating\xff\0\n\n")
    assert CachedFileReader(Host(tmp_path)).text("/x") == "operating\N{REPLACEMENT CHARACTER}"


def test_text_longer_than_a_page_is_read_completely() -> None:
    # One read returns at most a page.
    symbols = CachedFileReader(Host(Path("/"))).text("/proc/kallsyms")
    assert isinstance(symbols, str)
    assert len(symbols) > 2 * os.sysconf("SC_PAGE_SIZE")


def test_absolute_link_is_relative_to_the_root(tmp_path: Path) -> None:
    write(tmp_path, "/etc/inside", "inside")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/x").symlink_to("/etc/inside")
    check = FileCheck(t("/sys/x"), expected=ValueCheck(equals="inside"))
    assert run_once(tmp_path, check) == PASSED
    for climbing in ("../../../../../../../../../etc/hostname", "/etc/hostname"):
        (tmp_path / "sys/x").unlink()
        (tmp_path / "sys/x").symlink_to(climbing)
        assert run_once(tmp_path, check) == Result(Outcome.ERROR, "/sys/x does not exist")


def test_changed_link_is_followed_again(tmp_path: Path) -> None:
    for driver, text in (("old", "bad"), ("new", "ok")):
        write(tmp_path, f"/sys/bus/pci/drivers/{driver}/state", text)
    link, reader = tmp_path / "sys/driver", CachedFileReader(Host(tmp_path))
    link.symlink_to("bus/pci/drivers/old")
    assert reader.text("/sys/driver/state") == "bad"
    link.unlink()
    link.symlink_to("bus/pci/drivers/new")
    reader.start_batch()
    assert reader.text("/sys/driver/state") == "ok"


def test_file_that_disappears_returns_and_becomes_a_directory_is_noticed(tmp_path: Path) -> None:
    location, reader = write(tmp_path, "/sys/x", "one"), CachedFileReader(Host(tmp_path))
    seen: list[str | int] = [reader.text("/sys/x")]
    location.unlink()
    for text in (None, "two"):
        if text is not None:
            location.write_text(text)
        reader.start_batch()
        seen.append(reader.text("/sys/x"))
    location.unlink()
    location.mkdir()
    reader.start_batch()
    assert [*seen, reader.text("/sys/x")] == ["one", errno.ENOENT, "two", NOT_A_FILE]


def test_counter_passes_up_to_max_increase() -> None:
    read = Counting(2, 100)
    assert read(5, 6, 7, 8) == ["PASSED", "PASSED", "PASSED", "FAILED"]


def test_increase_ends_when_its_window_has_passed() -> None:
    read = Counting(0, 30)
    # It increases at 10 s; at 40 s that is 30 s ago.
    assert read(5, 6, 6, 6, 6, 6) == ["PASSED", "FAILED", "FAILED", "FAILED", "PASSED", "PASSED"]
    assert not polling_of(read.check).changes_with_time(read.memory)
    assert read(7) == ["FAILED"]
    assert polling_of(read.check).changes_with_time(read.memory)


def test_slow_increase_passes_and_fast_increase_fails() -> None:
    assert Counting(3, 30)(*range(20)) == ["PASSED"] * 20
    assert "FAILED" in Counting(2, 30)(*range(20))


def test_reset_counter_has_increased_by_its_value() -> None:
    read = Counting(2, 1000)
    assert read(100, 0, 0, 2) == ["PASSED"] * 4
    assert read.read(3) == Result(Outcome.FAILED, "/sys/n is 3, an increase of 3 within 1000 s, expected at most 2")
    # A counter that was reset and has increased since has increased by its value.
    again = Counting(2, 1000)
    assert again(100, 2, 1) == ["PASSED", "PASSED", "FAILED"]


def test_counter_history_survives_errors() -> None:
    read = Counting(0, 1000)
    assert read(5) == ["PASSED"]
    assert [read.fail(errno.EIO).outcome, read.read("N/A").outcome] == [Outcome.ERROR, Outcome.ERROR]
    assert read(5, 6) == ["PASSED", "FAILED"]


def test_counter_value_is_compared_with_other_conditions_too() -> None:
    read = Counting(5, 1000, expected=ValueCheck(maximum=(8, "8")))
    assert read(5, 8) == ["PASSED", "PASSED"]
    assert read.read(9) == Result(Outcome.FAILED, "/sys/n is '9', expected at most 8")
    assert read(8) == ["PASSED"]


def test_file_that_appears_later_starts_with_its_value() -> None:
    check = FileCheck(t("/sys/*/n"), counter=CounterLimit(0, 1000))
    memory: file.Memory | None = None
    for texts in ((("/sys/a/n", "1"),), (("/sys/a/n", "1"), ("/sys/b/n", "900")), (("/sys/b/n", "900"),)):
        result, memory = file.evaluate(check, (("/sys/*/n", texts),), memory, 0)
        assert result == PASSED
    result, _ = file.evaluate(check, (("/sys/*/n", (("/sys/a/n", "2"), ("/sys/b/n", "900"))),), memory, 0)
    assert result == Result(Outcome.FAILED, "/sys/a/n is 2, an increase of 1 within 1000 s, expected at most 0")


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=30),
    st.integers(1, 60),
    st.integers(0, 8),
)
def test_increase_within_window_is_exact_over_resets(
    reads: list[tuple[int, int]], window: int, max_increase: int
) -> None:
    check = FileCheck(t("/sys/n"), counter=CounterLimit(max_increase, window))
    memory: file.Memory | None = None
    totals: list[tuple[int, int]] = []
    now, last, total = 0, None, 0
    for pause, value in reads:
        now += pause
        if last is not None:
            total += value - last if value >= last else value
        last = value
        totals.append((now, total))
        result, memory = file.evaluate(check, (("/sys/n", (("/sys/n", str(value)),)),), memory, now)
        start = [value for at, value in totals if at <= now - window][-1:] or [totals[0][1]]
        assert result.outcome is (Outcome.FAILED if total - start[0] > max_increase else Outcome.PASSED)


def run_check(check: FileCheck, root: Path, **attributes: tuple[str, ...]) -> Result:
    """Return the result of a first run on the files under ``root``, for a device with these attributes."""
    request = file.make_request(check, make_device(attributes))
    return file.evaluate(check, file.run(request, CachedFileReader(Host.at(root)), 1.0), None, 0)[0]


@pytest.mark.parametrize(
    ("otherwise", "outcome"),
    [(Otherwise.ERROR, Outcome.ERROR), (Otherwise.FAIL, Outcome.FAILED), (Otherwise.OK, Outcome.PASSED)],
)
@pytest.mark.parametrize(
    "check",
    [
        FileCheck(t("/sys/x"), expected=ValueCheck(maximum=(3, "3"))),
        FileCheck(t("/sys/x"), expected=ValueCheck(minimum=(3, "3"))),
        FileCheck(t("/sys/x"), expected=ValueCheck(bits_clear=4)),
        FileCheck(t("/sys/x"), counter=CounterLimit(3, 3600)),
    ],
)
def test_value_that_is_not_a_number_has_the_configured_meaning(
    check: FileCheck, otherwise: Otherwise, outcome: Outcome
) -> None:
    # The text of a counter of an InfiniBand port without performance management.
    result = evaluate(replace(check, non_numeric=otherwise), "N/A (no PMA)")
    assert result.outcome is outcome
    assert result.reason == ("" if outcome is Outcome.PASSED else "/sys/x is 'N/A (no PMA)', expected a number")
    assert evaluate(replace(check, non_numeric=otherwise), "3").outcome is Outcome.PASSED


def test_number_is_compared_although_other_texts_pass() -> None:
    check = FileCheck(t("/sys/x"), expected=ValueCheck(maximum=(3, "3")), non_numeric=Otherwise.OK)
    assert evaluate(check, "4").outcome is Outcome.FAILED


def test_file_that_must_not_exist_fails_the_probe(tmp_path: Path) -> None:
    check = FileCheck(t("/sys/x/survivability_mode"), must_not_exist=True)
    assert run_check(check, tmp_path) == PASSED
    location = write(tmp_path, "/sys/x/survivability_mode", "")
    assert run_check(check, tmp_path) == Result(
        Outcome.FAILED, "/sys/x/survivability_mode exists, expected no such file"
    )
    location.unlink()
    # A directory exists too, although it has no text.
    location.mkdir()
    assert run_check(check, tmp_path).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("option", "passing", "failing", "reason"),
    [
        ("maxFile", "95000", "95001", "is '95001', expected at most '95000', the value of /sys/x/limit"),
        ("minFile", "95000", "94999", "is '94999', expected at least '95000', the value of /sys/x/limit"),
        ("equalsFile", "95000", "94999", "is '94999', expected '95000', the value of /sys/x/limit"),
    ],
)
def test_value_is_compared_with_the_value_of_another_file(
    option: str, passing: str, failing: str, reason: str, tmp_path: Path
) -> None:
    check = FileCheck(t("/sys/${name}/value"), limits=((option, t("/sys/${name}/limit")),))
    write(tmp_path, "/sys/x/limit", "95000\n")
    write(tmp_path, "/sys/x/value", passing)
    assert run_check(check, tmp_path, name=("x",)) == PASSED
    write(tmp_path, "/sys/x/value", failing)
    assert run_check(check, tmp_path, name=("x",)) == Result(Outcome.FAILED, f"/sys/x/value {reason}")


def test_each_file_is_compared_with_the_limit_of_the_same_device(tmp_path: Path) -> None:
    check = FileCheck(t("/sys/${name}/value"), limits=(("maxFile", t("/sys/${name}/limit")),))
    for name, value, limit in (("a", "5", "9"), ("b", "8", "7")):
        write(tmp_path, f"/sys/{name}/value", value)
        write(tmp_path, f"/sys/{name}/limit", limit)
    result = run_check(check, tmp_path, name=("a", "b"))
    assert result == Result(Outcome.FAILED, "/sys/b/value is '8', expected at most '7', the value of /sys/b/limit")


def test_limit_file_that_is_missing_or_no_number_has_the_configured_meaning(tmp_path: Path) -> None:
    check = FileCheck(t("/sys/value"), limits=(("maxFile", t("/sys/limit")),))
    write(tmp_path, "/sys/value", "5")
    assert run_check(check, tmp_path) == Result(Outcome.ERROR, "/sys/limit does not exist")
    assert run_check(replace(check, missing=Otherwise.OK), tmp_path) == PASSED
    write(tmp_path, "/sys/limit", "none")
    assert run_check(check, tmp_path) == Result(Outcome.ERROR, "/sys/limit is 'none', expected a number")
    assert run_check(replace(check, non_numeric=Otherwise.OK), tmp_path) == PASSED


def test_numbers_of_values_and_limits_that_differ_are_an_error(tmp_path: Path) -> None:
    check = FileCheck(t("/sys/${name}"), limits=(("maxFile", t("/sys/${limit}")),))
    for name in "abcde":
        write(tmp_path, f"/sys/{name}", "1")
    result = run_check(check, tmp_path, name=("a", "b", "c"), limit=("d", "e"))
    assert result == Result(Outcome.ERROR, "'/sys/${limit}' has 2 values for 3 files, expected 1 or 3")


def run_restricted(root: Path, check: FileCheck, policy: Policy = DEFAULT_POLICY) -> str:
    """Return the error of a run under a policy; empty if the run read the files."""
    request = file.KIND.restrict(request_of(check), policy)
    return run_request(request, CachedFileReader(Host(root)), 10)[1]


@pytest.mark.parametrize("path", ["/etc/hostname", "/etc/*", "/sys/link", "/sys/l*", "/sys/gone/../../etc/hostname"])
@pytest.mark.parametrize("missing", list(Otherwise))
def test_file_that_the_policy_does_not_allow_is_not_read(tmp_path: Path, path: str, missing: Otherwise) -> None:
    write(tmp_path, "/etc/hostname", "ok")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/link").symlink_to("/etc/hostname")
    check = FileCheck(t(path), expected=ValueCheck(equals="ok"), missing=missing)
    error = run_restricted(tmp_path, check)
    assert "refused by 'read.allow' of the default policy, which allows /sys/**" in error
    assert (
        run_restricted(tmp_path, check, Policy("p.yaml", read=parse_read_rules(("/etc/*", "/sys/*")))) == ""
        or ".." in path
    )
    # The error does not reveal whether the file exists.
    (tmp_path / "etc/hostname").unlink()
    if "link" not in path and "l*" not in path:
        assert run_restricted(tmp_path, check) == error


def test_limit_of_another_file_is_not_read_either(tmp_path: Path) -> None:
    write(tmp_path, "/sys/x", "1")
    write(tmp_path, "/etc/hostname", "2")
    check = FileCheck(t("/sys/x"), limits=(("maxFile", t("/etc/hostname")),))
    assert "reading /etc/hostname is refused" in run_restricted(tmp_path, check)


def test_path_that_must_not_be_read_denies_the_probe() -> None:
    for check, option in (
        (FileCheck(t("/etc/shadow")), "path"),
        (FileCheck(t("/etc/x/*")), "path"),
        (FileCheck(t("/sys/x"), limits=(("maxFile", t("/etc/shadow")),)), "maxFile"),
    ):
        denial = file.KIND.denial(check, DEFAULT_POLICY)
        assert denial is not None
        assert (denial.option, "is refused by 'read.allow'" in denial.reason) == (option, True)
    assert file.KIND.denial(FileCheck(t("/${x}")), DEFAULT_POLICY) is None


def test_file_and_its_limit_have_the_values_of_one_candidate(tmp_path: Path) -> None:
    # The chips of the first and the last sensor are the same.
    members: list[Values] = [
        {"name": (name,), "chip": (chip,)} for name, chip in (("s2", "hot"), ("s1", "cold"), ("s10", "hot"))
    ]
    for path, text in {"s2": "90", "s1": "10", "s10": "80", "limits/hot": "100", "limits/cold": "20"}.items():
        write(tmp_path, f"/sys/{path}", text)
    check = FileCheck(t("/sys/${name}"), limits=(("maxFile", t("/sys/limits/${chip}")),))
    assert run_once(tmp_path, check, merge_values(members)) == PASSED
    write(tmp_path, "/sys/limits/cold", "9")
    result = run_once(tmp_path, check, merge_values(members))
    assert "/sys/s1 is '10', expected at most '9', the value of /sys/limits/cold" in result.reason


def test_files_and_limits_of_two_attributes_of_a_candidate_are_compared_by_position(tmp_path: Path) -> None:
    for path, text in {"a": "90", "b": "10", "c": "80", "hot": "100", "cold": "9"}.items():
        write(tmp_path, f"/sys/{path}", text)
    check = FileCheck(t("/sys/${name}"), limits=(("maxFile", t("/sys/${limit}")),))
    assert run_check(check, tmp_path, name=("a", "b", "c"), limit=("hot", "hot", "hot")) == PASSED
    result = run_check(check, tmp_path, name=("a", "b", "c"), limit=("hot", "cold", "hot"))
    assert result == Result(Outcome.FAILED, "/sys/b is '10', expected at most '9', the value of /sys/cold")


@pytest.mark.parametrize("path", ["/{sys,etc}/shadow", "/e*/shadow", "/[e]tc/s*"])
def test_glob_does_not_reveal_whether_a_file_exists(tmp_path: Path, path: str) -> None:
    errors = []
    for name in ("shadow", "other"):
        write(tmp_path / name, f"/etc/{name}", "root:hash")
        errors.append(run_restricted(tmp_path / name, FileCheck(t(path))))
    assert errors[0] == errors[1]


def test_policy_is_sent_once_for_all_requests_of_a_batch() -> None:
    policy = Policy("p.yaml", read=parse_read_rules(tuple(f"/sys/{number}/**" for number in range(100))))
    requests = [file.KIND.restrict(("file", "", f"/sys/{number:04}"), policy) for number in range(200)]
    one, all_ = (len(encode([(request, 1.0) for request in batch])) for batch in (requests[:1], requests))
    assert len(requests[0][1]) > 1000
    assert (all_ - one) / 199 < 100
