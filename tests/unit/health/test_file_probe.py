"""``file`` at its edges: what counts as the value, as a number, as there, and what a counter is made of."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.hardware.host import Host
from genplug.health.probes import file
from genplug.health.probes.compare import NotANumberError, mismatch_reason
from genplug.health.thresholds import Outcome, Result, initial_state, next_state
from genplug.health.workers.file_reader import NOT_A_FILE, CachedFileReader
from genplug.spec.probes import CounterLimit, FileCheck, OnError, OnMissing, ProbeTiming, ValueCheck
from genplug.spec.template import MissingAttributeError, Template

WELL = Result(Outcome.PASSED)
t = Template.parse


def write(root: Path, path: str, text: str) -> Path:
    location = root / path.lstrip("/")
    location.parent.mkdir(parents=True, exist_ok=True)
    location.write_text(text)
    return location


def looked(root: Path, check: FileCheck, **values: tuple[str, ...]) -> Result:
    """The result of a first look."""
    return file.evaluate(check, file.run(file.make_request(check, values), CachedFileReader(Host(root)), 1), None, 0)[0]


def judged(check: FileCheck, *texts: str | int, path: str = "/sys/x") -> Result:
    """The result of a first look that found these texts, or the errno of who could not read."""
    return file.evaluate(check, ((path, tuple((f"{path}{n or ''}", text) for n, text in enumerate(texts))),), None, 0)[
        0
    ]


class Counting:
    """A counter that is looked at every 10 seconds."""

    def __init__(self, most: float, seconds: float, *, wanted: ValueCheck | None = None) -> None:
        self.check = FileCheck(t("/sys/n"), expected=wanted or ValueCheck(), counter=CounterLimit(most, seconds))
        self.memory: file.Memory | None = None
        self.now = 0.0

    def __call__(self, *values: float | str) -> list[str]:
        """The outcomes of looks that found these."""
        return [self.look(value).outcome.name for value in values]

    def look(self, value: float | str) -> Result:
        texts: file.Texts = (("/sys/n", str(value)),)
        result, self.memory = file.evaluate(self.check, (("/sys/n", texts),), self.memory, self.now)
        self.now += 10
        return result

    def cannot(self, number: int) -> Result:
        result, self.memory = file.evaluate(self.check, (("/sys/n", (("/sys/n", number),)),), self.memory, self.now)
        self.now += 10
        return result


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("ok", ValueCheck(equals="ok", not_equals="bad", matches="^o", not_matches="x")),
        ("1.0", ValueCheck(equals="1")),
        ("1Ki", ValueCheck(equals="1024")),
        ("0X1F", ValueCheck(equals="0x1f")),
        ("+5", ValueCheck(equals="5")),
        ("5", ValueCheck(minimum=(5, "5"), maximum=(5, "5"))),
        ("-3", ValueCheck(minimum=(-4, "-4"))),
        ("65536", ValueCheck(minimum=(65536, "64Ki"))),
        ("0", ValueCheck(bits_clear=0xFFFFFFFF)),
        ("0xb", ValueCheck(bits_clear=0x4)),
        ("anything at all", ValueCheck()),
    ],
)
def test_what_is_as_wanted_is_not_an_error(value: str, wanted: ValueCheck) -> None:
    assert mismatch_reason(value, wanted) == ""


@pytest.mark.parametrize(
    ("value", "wanted", "said"),
    [
        ("OK", ValueCheck(equals="ok"), "is 'OK', wanted 'ok'"),
        ("", ValueCheck(equals="1"), "is '', wanted '1'"),
        ("0x10", ValueCheck(not_equals="16"), "is '0x10', which it must not be"),
        ("63.9", ValueCheck(minimum=(64, "64")), "is '63.9', wanted at least 64"),
        ("1025", ValueCheck(maximum=(1024, "1Ki")), "is '1025', wanted at most 1Ki"),
        # All that is wrong of a value is its whole mask, and only what is set of it is told.
        ("0x15", ValueCheck(bits_clear=0x7), "is '0x15', wanted the bits 0x5 in it clear"),
        ("12", ValueCheck(bits_clear=0x8), "is '12', wanted the bits 0x8 in it clear"),
        ("a\n  b", ValueCheck(equals="c"), "is 'a b', wanted 'c'"),
        ("x" * 100, ValueCheck(equals="c"), f"is '{'x' * 77}...', wanted 'c'"),
    ],
)
def test_a_fault_says_what_was_seen_and_what_was_wanted(value: str, wanted: ValueCheck, said: str) -> None:
    assert mismatch_reason(value, wanted) == said


@pytest.mark.parametrize("value", ["", "N/A", "0x", "5 C", "nan", "1e999", "3,5", "0b1"])
@pytest.mark.parametrize(
    "wanted",
    [ValueCheck(minimum=(0, "0")), ValueCheck(maximum=(0, "0")), ValueCheck(bits_clear=1)],
    ids=["min", "max", "bits"],
)
def test_what_is_no_number_cannot_be_compared_as_one(value: str, wanted: ValueCheck) -> None:
    with pytest.raises(NotANumberError, match="which is not a number"):
        mismatch_reason(value, wanted)
    assert judged(FileCheck(t("/sys/x"), expected=wanted), value).outcome is Outcome.ERROR


def test_a_word_that_is_no_number_is_only_another_word() -> None:
    assert mismatch_reason("N/A", ValueCheck(equals="0")) == "is 'N/A', wanted '0'"
    assert mismatch_reason("N/A", ValueCheck(not_equals="0")) == ""


def test_a_register_of_64_bits_is_compared_to_its_last_bit() -> None:
    assert (
        mismatch_reason("0x8000000000000001", ValueCheck(bits_clear=1))
        == "is '0x8000000000000001', wanted the bits 0x1 in it clear"
    )
    assert (
        mismatch_reason(str(2**63 + 1), ValueCheck(bits_clear=1))
        == f"is '{2**63 + 1}', wanted the bits 0x1 in it clear"
    )


def test_two_long_numbers_that_differ_in_their_last_digit_are_two() -> None:
    assert mismatch_reason("0x20000000000001", ValueCheck(equals="0x20000000000000")) != ""
    assert mismatch_reason(str(2**53 + 1), ValueCheck(equals=str(2**53))) != ""


def test_find_takes_the_capture_called_value_else_the_first_else_all() -> None:
    text = "ue: 3\nce: 7"
    for find, value in ((r"ue: (\d+)\nce: (?P<value>\d+)", "7"), (r"ue: (\d+)\nce: (\d+)", "3"), (r"ce: \d+", "ce: 7")):
        assert judged(FileCheck(t("/sys/x"), find, ValueCheck(equals=value)), text) == WELL
        assert judged(FileCheck(t("/sys/x"), find, ValueCheck(not_equals=value)), text).outcome is Outcome.FAILED


def test_a_capture_that_took_no_part_is_nothing_found() -> None:
    result = judged(
        FileCheck(t("/sys/x"), r"(?P<value>ue: \d+)|inaccessible", ValueCheck(equals="ue: 0")), "inaccessible"
    )
    assert result == Result(Outcome.ERROR, r"/sys/x: nothing in it matches '(?P<value>ue: \d+)|inaccessible'")


def test_a_capture_of_nothing_is_a_value() -> None:
    assert judged(FileCheck(t("/sys/x"), "flags:(.*)", ValueCheck(equals="")), "flags:") == WELL


def test_no_wish_is_met_by_a_file_that_can_be_read() -> None:
    assert judged(FileCheck(t("/sys/x")), "whatever") == WELL
    assert judged(FileCheck(t("/sys/x")), errno.EIO) == Result(
        Outcome.ERROR, "/sys/x cannot be read: Input/output error"
    )


def test_smart_notify_is_no_fault_and_what_failed_is() -> None:
    flags = FileCheck(
        t("/sys/x"), expected=ValueCheck(not_matches=r"\b(save_fail|restore_fail|flush_fail|not_armed|map_fail)\b")
    )
    for text in ("", "smart_notify", "smart_event smart_notify"):
        assert judged(flags, text) == WELL
    for text in ("save_fail", "smart_notify flush_fail", "not_armed smart_notify"):
        assert judged(flags, text).outcome is Outcome.FAILED


def test_currently_inaccessible_keeps_what_was_known() -> None:
    check = FileCheck(t("/sys/x"), r"ue: (\d+)", ValueCheck(equals="0"))
    numbers = ProbeTiming(failure_threshold=1, on_error=OnError.KEEP)
    standing = next_state(initial_state(0), judged(check, "ue: 0"), numbers, 0)
    for now in range(1, 10):
        standing = next_state(standing, judged(check, "Query currently inaccessible"), numbers, now)
    assert standing.healthy
    assert "nothing in it matches" in standing.error


@pytest.mark.parametrize("passing", ["2: INIT", "3: ARMED"])
def test_a_port_that_passes_through_a_state_is_no_fault_and_one_that_stays_is(passing: str) -> None:
    check, numbers = FileCheck(t("/sys/x"), expected=ValueCheck(matches="ACTIVE")), ProbeTiming(failure_threshold=3)
    standing = next_state(initial_state(0), judged(check, "4: ACTIVE"), numbers, 0)
    for state in (passing, passing, "4: ACTIVE", passing, passing):
        standing = next_state(standing, judged(check, state), numbers, 1)
        assert standing.healthy
    standing = next_state(standing, judged(check, passing), numbers, 2)
    assert not standing.healthy
    assert standing.reason == f"/sys/x is '{passing}', wanted what matches 'ACTIVE'"


ORDER = [
    # Of files that all have to be well the worst counts, of any the best.
    ((0, 1, errno.EIO), "FAILED", "PASSED"),
    ((0, errno.EIO), "ERROR", "PASSED"),
    ((1, errno.EIO), "FAILED", "ERROR"),
    ((errno.EIO, 1), "FAILED", "ERROR"),
    ((1, 1), "FAILED", "FAILED"),
    ((0, 0), "PASSED", "PASSED"),
]


@pytest.mark.parametrize(("found", "of_all", "of_any"), ORDER)
def test_of_several_files_the_worst_or_the_best_counts(found: tuple[int, ...], of_all: str, of_any: str) -> None:
    texts = [one if one == errno.EIO else str(one) for one in found]
    for needs_all, outcome in ((True, of_all), (False, of_any)):
        check = FileCheck(t("/sys/x*"), expected=ValueCheck(equals="0"), require_all=needs_all)
        assert judged(check, *texts).outcome.name == outcome


def test_one_of_two_globs_that_finds_nothing_is_missing(tmp_path: Path) -> None:
    write(tmp_path, "/sys/a/state", "ok")
    for missing, outcome in (
        (OnMissing.FAIL, Outcome.FAILED),
        (OnMissing.ERROR, Outcome.ERROR),
        (OnMissing.OK, Outcome.PASSED),
    ):
        check = FileCheck(t("/sys/${name}/st*"), expected=ValueCheck(equals="ok"), missing=missing)
        assert looked(tmp_path, check, name=("a", "b")).outcome is outcome
        assert looked(tmp_path, check, name=("a",)) == WELL
    any_of = FileCheck(
        t("/sys/${name}/st*"), expected=ValueCheck(equals="ok"), missing=OnMissing.FAIL, require_all=False
    )
    assert looked(tmp_path, any_of, name=("a", "b")) == WELL


def test_what_is_below_a_file_or_behind_a_link_to_nowhere_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "/sys/state", "ok")
    (tmp_path / "sys/link").symlink_to("nowhere")
    (tmp_path / "sys/circle").symlink_to("circle")
    for path in ("/sys/state/below", "/sys/link", "/sys/link*", "/sys/circle"):
        result = looked(tmp_path, FileCheck(t(path), missing=OnMissing.FAIL))
        assert result.outcome is Outcome.FAILED
        assert result.reason.endswith(" is not there")


def test_a_device_without_the_attribute_of_a_path_has_no_question() -> None:
    with pytest.raises(MissingAttributeError, match=r"pci\.address"):
        file.make_request(FileCheck(t("/sys/${pci.address}/x")), {})


def test_devices_that_look_at_the_same_ask_the_same() -> None:
    check = FileCheck(t("/sys/class/net/${bridge}/carrier"))
    assert file.make_request(check, {"bridge": ("br0",), "name": ("a",)}) == file.make_request(
        check, {"bridge": ("br0",), "name": ("b",)}
    )
    assert file.make_request(check, {"bridge": ("br0", "br1")})[2:] == (
        "/sys/class/net/br0/carrier",
        "/sys/class/net/br1/carrier",
    )


@pytest.mark.root
def test_a_device_under_a_glob_is_an_error_and_not_opened(tmp_path: Path) -> None:
    write(tmp_path, "/dev/a", "ok")
    # Whoever opened it would read nothing of it, and for ever.
    os.mknod(tmp_path / "dev/b", 0o020600, os.makedev(1, 5))
    result = looked(tmp_path, FileCheck(t("/dev/*"), expected=ValueCheck(equals="ok")))
    assert result == Result(Outcome.ERROR, "/dev/b cannot be read: it is not a regular file")


@pytest.mark.root
def test_a_device_that_takes_a_files_place_is_not_read(tmp_path: Path) -> None:
    location, eyes = write(tmp_path, "/run/state", "ok"), CachedFileReader(Host(tmp_path))
    assert eyes.text("/run/state") == "ok"
    location.unlink()
    os.mknod(location, 0o020600, os.makedev(1, 3))
    eyes.start_batch()
    assert eyes.text("/run/state") == NOT_A_FILE


def test_a_read_that_fails_is_an_error_and_not_a_failure() -> None:
    # There is nothing at its beginning (proc_pid_mem(5)).
    result = looked(Path("/"), FileCheck(t("/proc/self/mem"), expected=ValueCheck(equals="1"), missing=OnMissing.FAIL))
    assert result == Result(Outcome.ERROR, f"/proc/self/mem cannot be read: {os.strerror(errno.EIO)}")


def test_only_a_carrier_that_cannot_be_told_is_none() -> None:
    # Of the loopback device the kernel knows no speed, whether it is up or down.
    result = looked(Path("/"), FileCheck(t("/sys/class/net/lo/speed"), expected=ValueCheck(equals="0")))
    assert result == Result(Outcome.ERROR, f"/sys/class/net/lo/speed cannot be read: {os.strerror(errno.EINVAL)}")


def test_a_text_is_read_once_in_a_batch_and_anew_in_the_next(tmp_path: Path) -> None:
    location, eyes = write(tmp_path, "/sys/x", "one"), CachedFileReader(Host(tmp_path))
    question = file.make_request(FileCheck(t("/sys/x")), {})
    assert file.run(question, eyes, 1) == (("/sys/x", (("/sys/x", "one"),)),)
    location.write_text("two")
    assert file.run(question, eyes, 1) == (("/sys/x", (("/sys/x", "one"),)),)
    eyes.start_batch()
    assert file.run(question, eyes, 1) == (("/sys/x", (("/sys/x", "two"),)),)


def test_a_text_is_stripped_and_what_is_no_utf_8_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"  operating\xff\0\n\n")
    assert CachedFileReader(Host(tmp_path)).text("/x") == "operating\N{REPLACEMENT CHARACTER}"


def test_a_text_that_the_kernel_tells_in_parts_is_read_to_its_end() -> None:
    # Many lines, of which a read gives no more than a page.
    symbols = CachedFileReader(Host(Path("/"))).text("/proc/kallsyms")
    assert isinstance(symbols, str)
    assert len(symbols) > 2 * os.sysconf("SC_PAGE_SIZE")


def test_a_link_that_begins_at_the_top_begins_at_the_roots_top(tmp_path: Path) -> None:
    write(tmp_path, "/etc/passwd", "inside")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/x").symlink_to("/etc/passwd")
    check = FileCheck(t("/sys/x"), expected=ValueCheck(equals="inside"))
    assert looked(tmp_path, check) == WELL
    for climbing in ("../../../../../../../../../etc/shadow", "/etc/shadow"):
        (tmp_path / "sys/x").unlink()
        (tmp_path / "sys/x").symlink_to(climbing)
        assert looked(tmp_path, check) == Result(Outcome.ERROR, "/sys/x is not there")


def test_a_path_behind_another_link_is_read_anew_though_what_it_led_to_is_still_there(tmp_path: Path) -> None:
    for driver, text in (("old", "bad"), ("new", "ok")):
        write(tmp_path, f"/sys/bus/pci/drivers/{driver}/state", text)
    link, eyes = tmp_path / "sys/driver", CachedFileReader(Host(tmp_path))
    link.symlink_to("bus/pci/drivers/old")
    assert eyes.text("/sys/driver/state") == "bad"
    link.unlink()
    link.symlink_to("bus/pci/drivers/new")
    eyes.start_batch()
    assert eyes.text("/sys/driver/state") == "ok"


def test_a_file_that_goes_comes_back_and_becomes_a_directory(tmp_path: Path) -> None:
    location, eyes = write(tmp_path, "/sys/x", "one"), CachedFileReader(Host(tmp_path))
    seen: list[str | int] = [eyes.text("/sys/x")]
    location.unlink()
    for text in (None, "two"):
        if text is not None:
            location.write_text(text)
        eyes.start_batch()
        seen.append(eyes.text("/sys/x"))
    location.unlink()
    location.mkdir()
    eyes.start_batch()
    assert [*seen, eyes.text("/sys/x")] == ["one", errno.ENOENT, "two", NOT_A_FILE]


def test_a_counter_is_well_up_to_its_most_and_not_beyond() -> None:
    look = Counting(2, 100)
    assert look(5, 6, 7, 8) == ["PASSED", "PASSED", "PASSED", "FAILED"]


def test_a_rise_is_over_when_its_window_has_passed() -> None:
    look = Counting(0, 30)
    # At 10 it has risen; at 40 that is 30 seconds ago.
    assert look(5, 6, 6, 6, 6, 6) == ["PASSED", "FAILED", "FAILED", "FAILED", "PASSED", "PASSED"]
    assert not file.has_increased(look.memory)
    assert look(7) == ["FAILED"]
    assert file.has_increased(look.memory)


def test_a_slow_rise_is_none_and_a_fast_one_is() -> None:
    assert Counting(3, 30)(*range(20)) == ["PASSED"] * 20
    assert "FAILED" in Counting(2, 30)(*range(20))


def test_a_counter_that_begins_anew_counts_what_it_shows() -> None:
    look = Counting(2, 1000)
    assert look(100, 0, 0, 2) == ["PASSED"] * 4
    assert look.look(3) == Result(Outcome.FAILED, "/sys/n is 3, 3 more within 1000 s, wanted at most 2 more")
    # Of one that was reset and has risen since, the rise is what it shows.
    again = Counting(2, 1000)
    assert again(100, 2, 1) == ["PASSED", "PASSED", "FAILED"]


def test_a_counter_is_remembered_over_errors_of_any_kind() -> None:
    look = Counting(0, 1000)
    assert look(5) == ["PASSED"]
    assert [look.cannot(errno.EIO).outcome, look.look("N/A").outcome] == [Outcome.ERROR, Outcome.ERROR]
    assert look(5, 6) == ["PASSED", "FAILED"]


def test_a_counter_has_to_be_within_its_bounds_as_well() -> None:
    look = Counting(5, 1000, wanted=ValueCheck(maximum=(8, "8")))
    assert look(5, 8) == ["PASSED", "PASSED"]
    assert look.look(9) == Result(Outcome.FAILED, "/sys/n is '9', wanted at most 8")
    assert look(8) == ["PASSED"]


def test_a_file_that_comes_later_begins_where_it_is() -> None:
    check = FileCheck(t("/sys/*/n"), counter=CounterLimit(0, 1000))
    memory: file.Memory | None = None
    for texts in ((("/sys/a/n", "1"),), (("/sys/a/n", "1"), ("/sys/b/n", "900")), (("/sys/b/n", "900"),)):
        result, memory = file.evaluate(check, (("/sys/*/n", texts),), memory, 0)
        assert result == WELL
    result, _ = file.evaluate(check, (("/sys/*/n", (("/sys/a/n", "2"), ("/sys/b/n", "900"))),), memory, 0)
    assert result == Result(Outcome.FAILED, "/sys/a/n is 2, 1 more within 1000 s, wanted at most 0 more")


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=30),
    st.integers(1, 60),
    st.integers(0, 8),
)
def test_a_rise_is_what_came_in_the_window_however_often_it_began_anew(
    looks: list[tuple[int, int]], window: int, most: int
) -> None:
    check = FileCheck(t("/sys/n"), counter=CounterLimit(most, window))
    memory: file.Memory | None = None
    totals: list[tuple[int, int]] = []
    now, last, total = 0, None, 0
    for pause, value in looks:
        now += pause
        if last is not None:
            total += value - last if value >= last else value
        last = value
        totals.append((now, total))
        result, memory = file.evaluate(check, (("/sys/n", (("/sys/n", str(value)),)),), memory, now)
        start = [one for at, one in totals if at <= now - window][-1:] or [totals[0][1]]
        assert result.outcome is (Outcome.FAILED if total - start[0] > most else Outcome.PASSED)
