"""``kernelLog`` at its edges: what a record is, what a line means, and a log that cannot be read."""

import asyncio
import fcntl
import os
import termios
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.health.kernel_log import KernelLog, LogRecord, parse_record
from genplug.health.probes import kernel_log
from genplug.health.thresholds import Outcome, Result
from genplug.spec.probes import KernelLogCheck
from genplug.spec.template import Template, Values

KMSG = Path("/dev/kmsg")
t = Template.parse


def check(fail: str, ignore: str | None = None, clear: str | None = None) -> KernelLogCheck:
    return KernelLogCheck(t(fail), t(ignore) if ignore else None, t(clear) if clear else None)


def judged(one: KernelLogCheck, line: str, **values: tuple[str, ...]) -> Result | None:
    return kernel_log.evaluate(kernel_log.bind_patterns(one, values), line)


def outcomes(one: KernelLogCheck, *lines: str, **values: tuple[str, ...]) -> list[str]:
    """What each line comes to, as a word."""
    results = (judged(one, line, **values) for line in lines)
    return [result.outcome.name if result is not None else "" for result in results]


@pytest.mark.parametrize("priority", range(8))
def test_what_the_kernel_says_counts_however_urgent_it_is(priority: int) -> None:
    assert list(parse_record(b"%d,7,1,-;text\n" % priority)) == [LogRecord(7, "text")]


@pytest.mark.parametrize("facility", [1, 3, 4, 10, 16, 23])
def test_what_programs_say_does_not_count(facility: int) -> None:
    assert list(parse_record(b"%d,7,1,-;NVRM: Xid (PCI:0000:3b:00): 79\n" % (facility << 3 | 6))) == []


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        # Whatever fields a later kernel adds (Documentation/ABI/testing/dev-kmsg).
        (b"6,339,5140900,-,caller=T1;text\n", [LogRecord(339, "text")]),
        (b"6,1,0,-;\n", [LogRecord(1, "")]),
        (b"6,1,0,-; indented; and more\n", [LogRecord(1, " indented; and more")]),
        (b"6,1,0,-;text\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:02.0\n", [LogRecord(1, "text")]),
        (b"6,1,0,-;text\n 6,2,0,-;is the first line's\n", [LogRecord(1, "text")]),
        (b"6,1,0,c;a\n6,2,0,+;b\n", [LogRecord(1, "a"), LogRecord(2, "b")]),
        (b"6,1,0,-;no end", [LogRecord(1, "no end")]),
        (b"6,1,0,-;caf\xe9\n", [LogRecord(1, "caf\N{REPLACEMENT CHARACTER}")]),
        (b"", []),
        (b"\n\n", []),
        (b"no record at all\n", []),
        (b";text\n", []),
        (b"6,1;text\n", []),
        (b"6;text\n", []),
        (b"x,1,0,-;text\n", []),
        (b"6,x,0,-;text\n", []),
        (b"-6,1,0,-;text\n", []),
        (b"<6>text; of an old kernel\n", []),
    ],
)
def test_a_record_is_a_line_of_the_kernels_or_nothing(record: bytes, lines: list[LogRecord]) -> None:
    assert list(parse_record(record)) == lines


@given(st.one_of(st.binary(max_size=60), st.text("0123456789,;- \nx", max_size=60).map(str.encode)))
def test_no_record_breaks_the_reader(record: bytes) -> None:
    assert all(line.number >= 0 for line in parse_record(record))


def test_a_line_that_clears_is_no_failure_even_if_it_matches_that_too() -> None:
    one = check("Xid", ignore="Xid", clear="Xid .* recovered")
    assert outcomes(one, "Xid 79 recovered", "Xid 79") == ["PASSED", ""]


def test_what_is_ignored_is_no_failure_and_clears_nothing() -> None:
    one = check("error", ignore="corrected", clear="reset done")
    lines = ("error", "corrected error", "corrected", "reset done", "corrected: reset done", "other")
    assert outcomes(one, *lines) == ["FAILED", "", "", "PASSED", "PASSED", ""]


def test_a_check_that_only_fails_knows_no_end() -> None:
    assert outcomes(check("GPU HANG"), "GPU HANG", "gpu hang", "GPU reset") == ["FAILED", "", ""]


def test_a_pattern_is_filled_with_each_value_of_an_attribute_and_with_every_template() -> None:
    one = check("${driver} ${pci.address}: fatal", ignore="${pci.address}: fatal but known")
    values = {"pci.address": ("0000:41:00.0", "0000:41:00.1"), "driver": ("mlx5_core",)}
    assert outcomes(
        one,
        "mlx5_core 0000:41:00.0: fatal",
        "mlx5_core 0000:41:00.1: fatal",
        "mlx5_core 0000:41:00.1: fatal but known",
        "mlx5_core 0000:41:00.2: fatal",
        **values,
    ) == ["FAILED", "FAILED", "", ""]


@pytest.mark.parametrize("value", ["a.b", "a+", "(a", "[a]", "a|b", "^a$", r"\d", "*", "a{2}", "{"])
def test_a_value_stands_for_itself_in_a_pattern(value: str) -> None:
    one = check("dev ${name}: dead")
    assert outcomes(one, f"dev {value}: dead", "dev a: dead", "dev axb: dead", name=(value,)) == ["FAILED", "", ""]


def test_a_reason_is_the_line_in_one_line_and_cut_where_it_is_long() -> None:
    said = "the kernel's log says: "
    for line, shown in (
        ("  a \t fault  ", "a fault"),
        ("fault" + "x" * 155, "fault" + "x" * 155),
        ("fault" + "x" * 156, "fault" + "x" * 152 + "..."),
        ("fault" * 2000, ("fault" * 2000)[:157] + "..."),
    ):
        assert judged(check("fault"), line) == Result(Outcome.FAILED, said + shown)


XID = check(
    r"NVRM: Xid \(PCI:${pci.address|replace:.0:}\): \d+",
    ignore=r"NVRM: Xid \(PCI:[^)]*\): (13|31|43|45|68|109),",
    clear=r"NVRM: loading NVIDIA UNIX|PCI:${pci.address|replace:.0:}\).*GPU recovery action changed from .* to 0x0",
)
"""As docs/reference/health.md has it."""


@pytest.mark.parametrize("number", [13, 31, 43, 45, 68, 109])
def test_what_an_application_brought_about_is_no_fault_of_the_gpu(number: int) -> None:
    line = f"NVRM: Xid (PCI:0000:3b:00): {number}, pid=1234, name=python"
    assert outcomes(XID, line, line.replace(f"{number},", f"{number}0,"), **{"pci.address": ("0000:3b:00.0",)}) == [
        "",
        "FAILED",
    ]


def test_of_all_that_was_logged_the_last_that_means_something_decides() -> None:
    own, other = ("NVRM: Xid (PCI:0000:3b:00): {}, x", "NVRM: Xid (PCI:0000:5e:00): {}, x")
    loaded = "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65.06"
    story = {
        (own.format(79), loaded): "PASSED",
        (own.format(79), loaded, own.format(31)): "PASSED",
        (own.format(79), loaded, other.format(79)): "PASSED",
        (own.format(79), loaded, own.format(48)): "FAILED",
        (loaded, own.format(94), own.format(43)): "FAILED",
    }
    for lines, end in story.items():
        meant = [one for one in outcomes(XID, *lines, **{"pci.address": ("0000:3b:00.0",)}) if one]
        assert meant[-1] == end


def test_a_recovery_action_of_one_gpu_sets_and_clears_for_that_one() -> None:
    line = "NVRM: Xid (PCI:0000:{}:00): 154, GPU recovery action changed from {} to {}"
    none, reset, drain = "0x0 (None)", "0x1 (GPU Reset Required)", "0x4 (Drain and Reset)"
    own = [line.format("3b", *change) for change in ((none, reset), (reset, drain), (drain, none))]
    others = [line.format("5e", *change) for change in ((none, reset), (reset, none))]
    assert outcomes(XID, *own, *others, **{"pci.address": ("0000:3b:00.0",)}) == [
        "FAILED", "FAILED", "PASSED", "", "",
    ]  # fmt: skip


HINTED: list[tuple[str, Values, str]] = [
    ("Xid", {}, "an Xid came"),
    ("^Xid$", {}, "Xid"),
    ("^${name}$", {"name": ("gpu0",)}, "gpu0"),
    ("${name} dead", {"name": ("a.b",)}, "a.b dead"),
    ("${name|upper} dead", {"name": ("gpu",)}, "GPU dead"),
    ("${name|default:gpu0} dead", {}, "gpu0 dead"),
    ("(a|${name}|b): dead", {"name": ("",)}, ": dead"),
    (r"\b${name}\b", {"name": ("gpu",)}, "the gpu is dead"),
    ("(?i)GPU ${name}", {"name": ("A",)}, "gpu a"),
    ("gpu${index}?: dead", {"index": ("7",)}, "gpu: dead"),
    ("gpu${index}+: dead", {"index": ("7",)}, "gpu77: dead"),
    ("gpu${index}*: dead", {"index": ("7",)}, "gpu: dead"),
    ("gpu${index}{2}: dead", {"index": ("7",)}, "gpu77: dead"),
    ("port [${index}]: dead", {"index": ("12",)}, "port 2: dead"),
    ("port [^${index}]: dead", {"index": ("12",)}, "port 3: dead"),
]


@pytest.mark.parametrize(("pattern", "values", "line"), HINTED, ids=[one[0] for one in HINTED])
def test_whatever_means_something_for_a_device_is_worth_a_look(pattern: str, values: Values, line: str) -> None:
    for one in (check(pattern), check("never", clear=pattern)):
        assert kernel_log.evaluate(kernel_log.bind_patterns(one, values), line) is not None
        assert any(hint.search(line) for hint in kernel_log.prefilter_patterns(one))


FRAGMENTS = ("${name}", "(${name}|x)", "(a|b)?", "a", ":", "[a-c0-9]+", "^", "$", r"\b", "(?i)", ".*", "${index}")
alphabet = st.text("ab01:.x-[(*+ ", max_size=4)


@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=5), *([alphabet] * 4))
def test_no_line_that_means_something_is_passed_over(
    fragments: list[str], name: str, index: str, before: str, after: str
) -> None:
    one = check("".join(fragments))
    filled = {"${name}": name, "(${name}|x)": name, "${index}": index, "[a-c0-9]+": "b1", "(a|b)?": "b"}
    likely = "".join(filled.get(part, part) for part in fragments)
    for line in (likely, f"{before}{likely}{after}", f"{before}{name}{after}", before):
        if kernel_log.evaluate(kernel_log.bind_patterns(one, {"name": (name,), "index": (index,)}), line) is not None:
            assert any(hint.search(line) for hint in kernel_log.prefilter_patterns(one))


def test_most_lines_are_worth_no_look() -> None:
    assert not any(one.search("usb 1-1: new high-speed USB device") for one in kernel_log.prefilter_patterns(XID))


class Fifo:
    """A log that a test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def write(self, *records: str) -> None:
        for record in records:
            os.write(self._writer, f"{record}\n".encode())

    def holds(self) -> int:
        """How many bytes nobody has read yet."""
        number = array("i", [0])
        fcntl.ioctl(self._writer, termios.FIONREAD, number)
        return number[0]

    def close(self) -> None:
        os.close(self._writer)


def records(*numbers: int) -> list[str]:
    return [f"4,{number},0,-;line {number}" for number in numbers]


def told(*numbers: int) -> list[LogRecord]:
    return [LogRecord(number, f"line {number}") for number in numbers]


async def heard(queue: "asyncio.Queue[Sequence[LogRecord]]", count: int) -> list[LogRecord]:
    """So many lines, as they come."""
    got: list[LogRecord] = []
    while len(got) < count:
        got += await asyncio.wait_for(queue.get(), 10)
    return got


def nobody() -> None:
    pytest.fail("this log can be read")


async def test_every_line_is_told_once_and_in_order(tmp_path: Path) -> None:
    log, queue = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]]()
    log.write(*records(1, 2), "30,3,0,-;systemd[1]: line 3", *records(4))
    following = KernelLog(log.path, queue.put_nowait, nobody)
    assert list(await following.follow()) == told(1, 2, 4)
    for number in range(5, 700):
        log.write(*records(number))
        await asyncio.sleep(0)
    assert await heard(queue, 695) == told(*range(5, 700))
    assert following.failure == ""
    following.close()
    log.close()


async def test_what_programs_write_wakes_nobody(tmp_path: Path) -> None:
    log, queue = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]]()
    following = KernelLog(log.path, queue.put_nowait, nobody)
    assert await following.follow() == ()
    log.write("30,1,0,-;systemd[1]: line 1")
    for _ in range(10):
        await asyncio.sleep(0)
    # It has been read, and nothing said of it.
    assert (log.holds(), queue.empty()) == (0, True)
    log.write(*records(2))
    assert await asyncio.wait_for(queue.get(), 10) == told(2)
    following.close()
    log.close()


async def test_what_the_log_holds_can_be_asked_for_while_it_is_followed(tmp_path: Path) -> None:
    log, queue = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]]()
    following = KernelLog(log.path, queue.put_nowait, nobody)
    # Of a pipe everything is read once, by whoever comes first: that is all it holds.
    log.write(*records(1))
    assert list(await following.read_existing()) == told(1)
    log.write(*records(2))
    assert list(await following.follow()) == told(2)
    log.write(*records(3))
    assert await heard(queue, 1) == told(3)
    following.close()
    log.close()


async def test_who_is_closed_hears_no_more(tmp_path: Path) -> None:
    log, closed = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]]()
    following = KernelLog(log.path, closed.put_nowait, nobody)
    await following.follow()
    following.close()
    following.close()
    queue = asyncio.Queue[Sequence[LogRecord]]()
    after = KernelLog(log.path, queue.put_nowait, nobody)
    await after.follow()
    log.write(*records(1))
    assert await heard(queue, 1) == told(1)
    assert closed.empty()
    after.close()
    log.close()


async def test_a_log_that_ends_is_said_to_once_after_its_last_lines(tmp_path: Path) -> None:
    log, queue, failed = Fifo(tmp_path / "kmsg"), asyncio.Queue[Sequence[LogRecord]](), asyncio.Queue[str]()
    following = KernelLog(log.path, queue.put_nowait, lambda: failed.put_nowait(following.failure))
    await following.follow()
    log.write(*records(1))
    log.close()
    assert await heard(queue, 1) == told(1)
    said = "the kernel's log (/dev/kmsg) cannot be read: No data available"
    assert await asyncio.wait_for(failed.get(), 10) == said
    assert (failed.empty(), following.failure) == (True, said)


async def test_a_log_that_is_not_there_is_a_failure_of_its_own(tmp_path: Path) -> None:
    following = KernelLog(tmp_path / "kmsg", lambda _: nobody(), nobody)
    for look in (following.follow, following.read_existing):
        assert await look() == ()
        assert following.failure == "the kernel's log (/dev/kmsg) cannot be read: No such file or directory"
    following.close()


async def test_a_log_that_may_not_be_read_says_what_the_pod_lacks(tmp_path: Path) -> None:
    log = Fifo(tmp_path / "kmsg")
    log.path.chmod(0)
    following = KernelLog(log.path, lambda _: nobody(), nobody)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        assert await following.follow() == ()
    finally:
        if is_root:
            os.seteuid(0)
    why = "Permission denied; the pod has to be privileged for it"
    assert following.failure == f"the kernel's log (/dev/kmsg) cannot be read: {why}"
    log.close()


def link_to_null(path: Path) -> None:
    """Where a node runs in a container, this is what often stands there."""
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, link_to_null], ids=["file", "directory", "null"])
async def test_what_is_no_log_is_a_failure(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "kmsg")
    failed = asyncio.Event()
    following = KernelLog(tmp_path / "kmsg", lambda _: nobody(), failed.set)
    assert await following.follow() == ()
    if not following.failure:
        await asyncio.wait_for(failed.wait(), 10)
    assert following.failure.startswith("the kernel's log (/dev/kmsg) cannot be read: ")
    following.close()


def real_log() -> int:
    """Open the kernel's log."""
    return os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK)


@pytest.mark.root
async def test_of_the_real_log_the_kernels_own_lines_are_read_and_no_others() -> None:
    file = real_log()
    following = KernelLog(KMSG, lambda _: None, nobody)
    held = await following.follow()
    following.close()
    assert held
    kernels: set[int] = set()
    while True:
        try:
            head = os.read(file, 1 << 14).split(b",", 2)
        except BrokenPipeError:
            # Some are overwritten by now.
            continue
        except BlockingIOError:
            break
        if int(head[0]) < 8:
            kernels.add(int(head[1]))
    os.close(file)
    both = range(max(min(kernels), held[0].number), held[-1].number + 1)
    assert [line.number for line in held if line.number in both] == sorted(kernels & set(both))


@pytest.mark.root
async def test_what_the_real_log_held_it_holds_still() -> None:
    os.close(real_log())
    log = KernelLog(KMSG, lambda _: None, nobody)
    first, second = await log.read_existing(), await log.read_existing()
    known = {line.number: line.text for line in second}
    assert first
    assert {known.get(line.number, line.text) == line.text for line in first} == {True}
    assert second[-1].number >= first[-1].number
