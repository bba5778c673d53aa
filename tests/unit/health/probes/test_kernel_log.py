"""The probe ``kernelLog``: what a record means for a device, and which records concern none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.health.probes import kernel_log
from genplug.health.probes.kernel_log import KernelLogCheck
from genplug.health.thresholds import Outcome, Result
from genplug.spec.template import Template, Values
from tests.support.probes import make_device

t = Template.parse


def check(fail: str, ignore: str | None = None, clear: str | None = None) -> KernelLogCheck:
    return KernelLogCheck((t(fail),), (t(ignore),) if ignore else (), (t(clear),) if clear else ())


def evaluate(check_: KernelLogCheck, record: str, values: Values | None = None) -> Result | None:
    return kernel_log.evaluate(kernel_log.bind(check_, make_device(values)), record)


def outcomes(check_: KernelLogCheck, *records: str, **values: tuple[str, ...]) -> list[str]:
    """The outcome of each record, empty where it has no meaning."""
    results = (evaluate(check_, record, values) for record in records)
    return [result.outcome.name if result is not None else "" for result in results]


def test_clear_precedes_fail() -> None:
    check_ = check("Xid", ignore="Xid", clear="Xid .* recovered")
    assert outcomes(check_, "Xid 79 recovered", "Xid 79") == ["PASSED", ""]


def test_ignored_record_neither_fails_nor_clears() -> None:
    check_ = check("error", ignore="corrected", clear="reset done")
    lines = ("error", "corrected error", "corrected", "reset done", "corrected: reset done", "other")
    assert outcomes(check_, *lines) == ["FAILED", "", "", "PASSED", "PASSED", ""]


def test_check_without_clear_is_never_cleared_by_a_record() -> None:
    assert outcomes(check("GPU HANG"), "GPU HANG", "gpu hang", "GPU reset") == ["FAILED", "", ""]


def test_pattern_is_rendered_for_each_value() -> None:
    check_ = check("${driver} ${pci.address}: fatal", ignore="${pci.address}: fatal but known")
    values = {"pci.address": ("0000:41:00.0", "0000:41:00.1"), "driver": ("mlx5_core",)}
    assert outcomes(
        check_,
        "mlx5_core 0000:41:00.0: fatal",
        "mlx5_core 0000:41:00.1: fatal",
        "mlx5_core 0000:41:00.1: fatal but known",
        "mlx5_core 0000:41:00.2: fatal",
        **values,
    ) == ["FAILED", "FAILED", "", ""]


@pytest.mark.parametrize("value", ["a.b", "a+", "(a", "[a]", "a|b", "^a$", r"\d", "*", "a{2}", "{"])
def test_value_is_literal_in_a_pattern(value: str) -> None:
    check_ = check("dev ${name}: dead")
    assert outcomes(check_, f"dev {value}: dead", "dev a: dead", "dev axb: dead", name=(value,)) == ["FAILED", "", ""]


def test_reason_is_the_record_on_one_line_and_shortened() -> None:
    prefix = "the kernel logged: "
    for line, shown in (
        ("  a \t fault  ", "a fault"),
        ("fault" + "x" * 155, "fault" + "x" * 155),
        ("fault" + "x" * 156, "fault" + "x" * 152 + "..."),
        ("fault" * 2000, ("fault" * 2000)[:157] + "..."),
    ):
        assert evaluate(check("fault"), line) == Result(Outcome.FAILED, prefix + shown)


XID = check(
    r"NVRM: Xid \(PCI:${pci.address|replace:.0:}\): \d+",
    ignore=r"NVRM: Xid \(PCI:[^)]*\): (13|31|43|45|68|109),",
    clear=r"NVRM: loading NVIDIA UNIX|PCI:${pci.address|replace:.0:}\).*GPU recovery action changed from .* to 0x0",
)
"""The example of docs/reference/health.md."""


@pytest.mark.parametrize("number", [13, 31, 43, 45, 68, 109])
def test_xid_errors_of_applications_are_ignored(number: int) -> None:
    line = f"NVRM: Xid (PCI:0000:3b:00): {number}, pid=1234, name=python"
    assert outcomes(XID, line, line.replace(f"{number},", f"{number}0,"), **{"pci.address": ("0000:3b:00.0",)}) == [
        "",
        "FAILED",
    ]


def test_last_record_with_a_meaning_decides() -> None:
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
        meant = [outcome for outcome in outcomes(XID, *lines, **{"pci.address": ("0000:3b:00.0",)}) if outcome]
        assert meant[-1] == end


def test_recovery_action_concerns_one_gpu() -> None:
    line = "NVRM: Xid (PCI:0000:{}:00): 154, GPU recovery action changed from {} to {}"
    none, reset, drain = "0x0 (None)", "0x1 (GPU Reset Required)", "0x4 (Drain and Reset)"
    own = [line.format("3b", *change) for change in ((none, reset), (reset, drain), (drain, none))]
    others = [line.format("5e", *change) for change in ((none, reset), (reset, none))]
    assert outcomes(XID, *own, *others, **{"pci.address": ("0000:3b:00.0",)}) == [
        "FAILED", "FAILED", "PASSED", "", "",
    ]  # fmt: skip


PREFILTERED: list[tuple[str, Values, str]] = [
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


@pytest.mark.parametrize(("pattern", "values", "line"), PREFILTERED, ids=[case[0] for case in PREFILTERED])
def test_record_with_a_meaning_may_concern_a_device(pattern: str, values: Values, line: str) -> None:
    for check_ in (check(pattern), check("never", clear=pattern)):
        assert evaluate(check_, line, values) is not None
        assert kernel_log.may_concern(check_, line)


FRAGMENTS = ("${name}", "(${name}|x)", "(a|b)?", "a", ":", "[a-c0-9]+", "^", "$", r"\b", "(?i)", ".*", "${index}")
alphabet = st.text("ab01:.x-[(*+ ", max_size=4)


@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=5), *([alphabet] * 4))
def test_no_record_with_a_meaning_is_passed_over(
    fragments: list[str], name: str, index: str, before: str, after: str
) -> None:
    check_ = check("".join(fragments))
    filled = {"${name}": name, "(${name}|x)": name, "${index}": index, "[a-c0-9]+": "b1", "(a|b)?": "b"}
    likely = "".join(filled.get(part, part) for part in fragments)
    for line in (likely, f"{before}{likely}{after}", f"{before}{name}{after}", before):
        if evaluate(check_, line, {"name": (name,), "index": (index,)}) is not None:
            assert kernel_log.may_concern(check_, line)


def test_unrelated_record_concerns_no_device() -> None:
    assert not kernel_log.may_concern(XID, "usb 1-1: new high-speed USB device")


def test_check_needs_the_directory_whose_driver_ends_a_failure() -> None:
    assert check("${pci.address}: fatal", ignore="${name}").required_attributes == {"pci.address", "name", "sysfs"}


def test_all_expressions_of_a_list_have_to_match_the_same_record() -> None:
    check_ = KernelLogCheck((t("GPU ${name}"), t("hang|timeout")), clear=(t("GPU ${name}"), t("reset")))
    values: Values = {"name": ("a",)}
    assert evaluate(check_, "GPU a: ring timeout", values) is not None
    assert evaluate(check_, "GPU a: idle", values) is None
    assert evaluate(check_, "GPU b: hang", values) is None
    assert evaluate(check_, "GPU a: reset after hang", values) == Result(Outcome.PASSED)


def test_prefilter_of_a_list_leaves_out_records_that_match_a_part_only() -> None:
    check_ = KernelLogCheck((t("GPU ${name}"), t("hang")))
    assert kernel_log.may_concern(check_, "GPU a: hang")
    assert not kernel_log.may_concern(check_, "GPU a: idle")
