"""``health``: timing, names of probes, options of each probe kind, and the locations and hints of errors."""

import pytest
from msgspec.structs import replace

from genplug.config.load import load_text
from genplug.health.probes import PROBES
from genplug.health.probes.exec import ExecCheck
from genplug.health.probes.file import FileCheck
from genplug.health.probes.uevent import UeventCheck
from genplug.spec.diagnostic import Diagnostic, ErrorCode
from genplug.spec.globs import Glob
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.probes import HealthSpec, OnError, ProbeSpec, ProbeTiming
from genplug.spec.template import Template
from tests.support.configs import (
    CONFIG_HEADER,
    DEVICES,
    NAME,
    PERMISSIVE_POLICY,
    collect_diagnostics,
    load_resource,
    render_config,
)

ALL_ALLOWED = replace(PERMISSIVE_POLICY, open_probe=True)
BEGIN = "health: {probes: [{"
COLUMN = 5 + len(BEGIN)
"""The column of the first key of a probe: the keys of a resource are indented by four."""
KEY_PATH = f"resources.{NAME}.health.probes[0]"


def load_health(written: str, policy: Policy = ALL_ALLOWED) -> HealthSpec:
    return load_text(render_config(f"{DEVICES}\n{written}"), "c.yaml", policy).resources[NAME].health


def load_probes(written: str, policy: Policy = ALL_ALLOWED) -> tuple[ProbeSpec, ...]:
    return load_health(f"health: {{probes: [{written}]}}", policy).probes


def load_names(written: str) -> list[str]:
    return [probe.name for probe in load_probes(written)]


def find_diagnostics(written: str, policy: Policy = ALL_ALLOWED) -> tuple[Diagnostic, ...]:
    return collect_diagnostics(lambda: load_health(written, policy))


def find_diagnostic(probe: str, policy: Policy = ALL_ALLOWED) -> Diagnostic:
    """Return the only error of a probe."""
    (diagnostic,) = find_diagnostics(f"{BEGIN}{probe}}}]}}", policy)
    return diagnostic


def locate(probe: str, part: str) -> str:
    """Return the location of the last occurrence of a text in the first probe."""
    return f"c.yaml:6:{COLUMN + probe.rindex(part)}"


TIMINGS = {
    "periodSeconds: 7": ProbeTiming(period=7),
    "timeoutSeconds: 0.5": ProbeTiming(timeout=0.5),
    "failureThreshold: 1": ProbeTiming(failure_threshold=1),
    "successThreshold: 9": ProbeTiming(success_threshold=9),
    "onError: healthy": ProbeTiming(on_error=OnError.HEALTHY),
}


@pytest.mark.parametrize(("written", "timing"), TIMINGS.items(), ids=TIMINGS)
def test_timing_applies_to_all_probes_or_to_its_probe(written: str, timing: ProbeTiming) -> None:
    shared = load_health(f"health: {{{written}, probes: [{{pci: {{}}}}, {{open: {{}}}}]}}").probes
    assert [probe.timing for probe in shared] == [timing, timing]
    single = load_probes(f"{{pci: {{}}, {written}}}, {{open: {{}}}}")
    assert [probe.timing for probe in single] == [timing, ProbeTiming()]


def test_probe_can_reset_a_shared_value_to_its_default() -> None:
    (probe,) = load_health("health: {onError: unhealthy, periodSeconds: 1, probes: [{pci: {}, onError: keep}]}").probes
    assert probe.timing == ProbeTiming(period=1)


def test_empty_health_has_the_default_values() -> None:
    assert load_health("health: {}") == load_health("") == load_health("health: {probes: []}") == HealthSpec(60.0, ())


def test_timing_of_the_defaults_applies_to_probes() -> None:
    text = f"{CONFIG_HEADER}defaults: {{health: {{timeoutSeconds: 4}}}}\nresources: {{a.io/x: {{{DEVICES}, "
    config = load_text(f"{text}health: {{probes: [{{pci: {{}}}}]}}}}}}", "c.yaml")
    assert [probe.timing for probe in config.resources["a.io/x"].health.probes] == [ProbeTiming(timeout=4)]


@pytest.mark.parametrize(
    ("written", "key", "code"),
    [
        ("periodSeconds: 0", "periodSeconds", ErrorCode.WRONG_VALUE),
        ("timeoutSeconds: -1", "timeoutSeconds", ErrorCode.WRONG_VALUE),
        ("failureThreshold: 0", "failureThreshold", ErrorCode.WRONG_VALUE),
        ("successThreshold: 1.5", "successThreshold", ErrorCode.WRONG_TYPE),
        ("onError: perhaps", "onError", ErrorCode.WRONG_VALUE),
        ("sticky: yes", "sticky", ErrorCode.WRONG_TYPE),
        ("removalGracePeriodSeconds: -1", "removalGracePeriodSeconds", ErrorCode.WRONG_VALUE),
    ],
)
def test_invalid_value_is_marked_at_its_location(written: str, key: str, code: ErrorCode) -> None:
    (diagnostic,) = find_diagnostics(f"health: {{{written}}}")
    value = written.partition(": ")[2]
    column = 5 + len(f"health: {{{key}: ")
    assert (diagnostic.code, str(diagnostic.location)) == (code, f"c.yaml:6:{column}")
    assert (diagnostic.width, diagnostic.key_path) == (len(value), f"resources.{NAME}.health.{key}")


def test_probe_is_a_failure_unless_its_severity_is_a_warning() -> None:
    probes = load_health(
        "health: {probes: [{pci: {}}, {severity: failure, open: {}}, {severity: warning, uevent: {fail: x}}]}"
    ).probes
    assert [probe.is_warning for probe in probes] == [False, False, True]
    assert find_diagnostic("severity: info, pci: {}").code is ErrorCode.WRONG_VALUE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("max: 3, maxFile: /sys/y", "'maxFile' and 'max' are both set"),
        ("min: 3, minFile: /sys/y", "'minFile' and 'min' are both set"),
        ("equals: a, equalsFile: /sys/y", "'equalsFile' and 'equals' are both set"),
        ("exists: false, equals: a", "'equals' has no effect with 'exists'"),
        ("exists: true, missing: ok", "'missing' has no effect with 'exists'"),
    ],
)
def test_options_of_a_file_probe_that_exclude_each_other_are_an_error(options: str, message: str) -> None:
    diagnostic = find_diagnostic(f"file: {{path: /sys/x, {options}}}")
    assert (diagnostic.code, diagnostic.message) == (ErrorCode.SELECTOR, message)


@pytest.mark.parametrize("option", ["equalsFile", "minFile", "maxFile"])
def test_path_of_a_limit_is_checked_like_that_of_the_file(option: str) -> None:
    assert find_diagnostic(f"file: {{path: /sys/x, {option}: sys/y}}").code is ErrorCode.PATH
    assert find_diagnostic(f"file: {{path: /sys/x, {option}: '/sys/${{nope}}'}}").code is ErrorCode.UNKNOWN_ATTRIBUTE


def test_each_expression_of_a_list_is_checked() -> None:
    diagnostic = find_diagnostic("kernelLog: {fail: [a, '(']}")
    assert diagnostic.code is ErrorCode.SELECTOR
    assert diagnostic.key_path.endswith("kernelLog.fail[1]")
    assert find_diagnostic("uevent: {fail: []}").code in {ErrorCode.WRONG_VALUE, ErrorCode.WRONG_TYPE}


def test_probe_does_not_accept_keys_of_the_resource() -> None:
    assert (
        find_diagnostic("pci: {}, sticky: true").code,
        find_diagnostic("pci: {}, removalGracePeriodSeconds: 1").code,
    ) == (
        ErrorCode.UNKNOWN_KEY,
        ErrorCode.UNKNOWN_KEY,
    )


def test_file_probe_is_named_after_its_file() -> None:
    files = ("/sys/a/state", "/sys/a/", "/sys/e*", "/sys/{a,b}", "/sys/e[0-9]", "${sysfs}/carrier", "/sys/${name}")
    assert load_names(", ".join(f"{{file: {{path: '{path}'}}}}" for path in files)) == [
        "state", "a", "file", "file-2", "file-3", "carrier", "file-4",
    ]  # fmt: skip


def test_probe_without_a_name_is_named_after_its_kind() -> None:
    kinds = (
        "pci: {}", "kernelLog: {fail: a}", "uevent: {fail: a}", "open: {}", "exec: {command: [/opt/a]}",
        "http: {url: 'http://a'}", "unixSocket: {path: /run/a}",
    )  # fmt: skip
    assert load_names(", ".join(f"{{{kind}}}" for kind in kinds)) == [kind.partition(":")[0] for kind in kinds]


def test_generated_name_is_unique() -> None:
    assert load_names("{pci: {}}, {name: pci-2, open: {}}, {pci: {}}, {pci: {}}") == ["pci", "pci-2", "pci-3", "pci-4"]
    assert load_names("{name: pci, open: {}}, {pci: {}}") == ["pci", "pci-2"]


def test_generated_name_avoids_a_later_explicit_name() -> None:
    assert load_names("{pci: {}}, {name: pci, open: {}}") == ["pci-2", "pci"]


def test_duplicate_name_is_marked_with_the_first_location() -> None:
    written = "health:\n  probes:\n  - {name: link, pci: {}}\n  - {pci: {}}\n  - {name: link, open: {}}"
    (diagnostic,) = find_diagnostics(written)
    assert (diagnostic.code, diagnostic.message) == (ErrorCode.CONFLICT, "two probes have the name 'link'")
    assert (str(diagnostic.location), diagnostic.width, str(diagnostic.related_location)) == (
        "c.yaml:10:16",
        4,
        "c.yaml:8:16",
    )
    assert diagnostic.hint == "give each probe its own name: log and metrics identify probes by name"
    assert diagnostic.key_path == f"resources.{NAME}.health.probes[2]"


def test_duplicate_name_by_alias_is_reported() -> None:
    assert [
        diagnostic.code for diagnostic in find_diagnostics("health: {probes: [&link {name: link, pci: {}}, *link]}")
    ] == [ErrorCode.CONFLICT]


def test_resources_can_use_the_same_probe_name() -> None:
    first = f"{{{DEVICES}, health: {{probes: [{{name: link, pci: {{}}}}]}}}}"
    second = first.replace("/dev/x*", "/dev/y*")
    config = load_text(f"{CONFIG_HEADER}resources:\n  a.io/x: {first}\n  a.io/y: {second}\n", "c.yaml")
    assert [resource.health.probes[0].name for resource in config.resources.values()] == ["link", "link"]


def test_probes_at_different_locations_are_equal() -> None:
    first = load_probes("{file: {path: /sys/x, min: 1Ki, bitsClear: 4}}")
    second = load_health(
        "health:\n  onError: keep\n\n  probes:\n  - file: {bitsClear: '0x4', path: /sys/x, min: 1Ki}"
    ).probes
    assert first[0].location != second[0].location
    assert (first, hash(first)) == (second, hash(second))
    assert first != load_probes("{name: other, file: {path: /sys/x, min: 1Ki, bitsClear: 4}}")
    assert first != load_probes("{file: {path: /sys/x, min: 1Ki, bitsClear: 4}, timeoutSeconds: 3}")


VALUES = {"true": "true", "10": "10", "1.0": "1.0", "'0x10'": "0x10", "''": "", "no": "no", "' a '": " a "}


@pytest.mark.parametrize(("written", "text"), VALUES.items(), ids=VALUES)
def test_expected_value_is_kept_verbatim(written: str, text: str) -> None:
    (probe,) = load_probes(f"{{file: {{path: /sys/x, equals: {written}, notEquals: {written}}}}}")
    assert isinstance(probe.check, FileCheck)
    assert (probe.check.expected.equals, probe.check.expected.not_equals) == (text, text)


def test_bounds_keep_their_text_and_can_be_equal() -> None:
    (probe,) = load_probes("{file: {path: /sys/x, min: -1.5, max: '-1.5'}}")
    assert isinstance(probe.check, FileCheck)
    assert (probe.check.expected.minimum, probe.check.expected.maximum) == ((-1.5, "-1.5"), (-1.5, "-1.5"))
    (probe,) = load_probes("{file: {path: /sys/x, min: 0x10, max: 64Gi}}")
    assert isinstance(probe.check, FileCheck)
    assert (probe.check.expected.minimum, probe.check.expected.maximum) == ((16, "0x10"), (64 * 2**30, "64Gi"))


MASKS = {"4": 4, "'0x4'": 4, "0x4": 4, "'4'": 4, "1Ki": 1024, "0x8000000000000001": 2**63 + 1}


@pytest.mark.parametrize(("written", "mask"), MASKS.items(), ids=MASKS)
def test_bit_mask_is_parsed_in_every_notation(written: str, mask: int) -> None:
    (probe,) = load_probes(f"{{file: {{path: /sys/x, bitsClear: {written}}}}}")
    assert isinstance(probe.check, FileCheck)
    assert probe.check.expected.bits_clear == mask


def test_decimal_bit_mask_keeps_all_64_bits() -> None:
    (probe,) = load_probes(f"{{file: {{path: /sys/x, bitsClear: {2**63 + 1}}}}}")
    assert isinstance(probe.check, FileCheck)
    assert probe.check.expected.bits_clear == 2**63 + 1


@pytest.mark.parametrize("written", ["'-4'", "'0x'", "'0.5'", "many", "'0'", "-1"])
def test_invalid_bit_mask_is_marked_with_an_example(written: str) -> None:
    probe = f"file: {{path: /sys/x, bitsClear: {written}}}"
    diagnostic = find_diagnostic(probe)
    text = written.strip("'")
    assert (diagnostic.code, diagnostic.message) == (ErrorCode.WRONG_VALUE, f"{text!r} is not a bit mask")
    assert (str(diagnostic.location), diagnostic.hint) == (
        locate(probe, text),
        "write a whole number from 1 with at most 64 bits, for example 0x4",
    )
    assert (diagnostic.width, diagnostic.key_path) == (len(text), f"{KEY_PATH}.file.bitsClear")


@pytest.mark.parametrize(("present", "missing"), [("maxIncrease", "perSeconds"), ("perSeconds", "maxIncrease")])
def test_incomplete_counter_is_marked_at_the_present_key(present: str, missing: str) -> None:
    probe = f"file: {{path: /sys/x, {present}: 2}}"
    diagnostic = find_diagnostic(probe)
    assert (diagnostic.code, diagnostic.message) == (ErrorCode.MISSING_KEY, f"{present!r} without {missing!r}")
    assert (str(diagnostic.location), diagnostic.width, diagnostic.key_path) == (
        locate(probe, present),
        len(present),
        f"{KEY_PATH}.file",
    )
    assert diagnostic.hint == "a counter may increase by at most 'maxIncrease' within 'perSeconds'"


def test_contradictory_bounds_are_marked_at_the_minimum() -> None:
    probe = "file: {path: /sys/x, max: 1Ki, min: 1025}"
    diagnostic = find_diagnostic(probe)
    assert (diagnostic.code, str(diagnostic.location), diagnostic.hint) == (
        ErrorCode.SELECTOR,
        locate(probe, "min"),
        "swap the two values",
    )
    assert diagnostic.key_path == f"{KEY_PATH}.file"


PATTERNS = (
    "file: {path: /sys/x, find: '%'}",
    "file: {path: /sys/x, matches: '%'}",
    "file: {path: /sys/x, notMatches: '%'}",
    "kernelLog: {fail: '%'}",
    "kernelLog: {fail: a, ignore: '%'}",
    "kernelLog: {fail: a, clear: '%'}",
    "uevent: {fail: '%'}",
    "uevent: {fail: a, clear: '%'}",
)


@pytest.mark.parametrize("probe", PATTERNS)
def test_regex_with_look_ahead_is_rejected_in_each_option(probe: str) -> None:
    diagnostic = find_diagnostic(probe.replace("%", "Xid (?!13)"))
    assert diagnostic.code is ErrorCode.SELECTOR
    assert diagnostic.message.startswith("'Xid (?!13)' is not a regular expression: ")
    assert diagnostic.hint == "the syntax is that of RE2: no look-ahead and no back-references"
    assert (str(diagnostic.location), diagnostic.width) == (locate(probe, "%"), len("Xid (?!13)"))


@pytest.mark.parametrize("pattern", ["(?<=a)b", r"(a)\1", "(a", "a**", "a{2000}"])
def test_unsupported_or_invalid_regex_is_rejected(pattern: str) -> None:
    assert find_diagnostic(f"kernelLog: {{fail: '{pattern}'}}").code is ErrorCode.SELECTOR


TEMPLATES = (
    "pci: {address: '%'}",
    "file: {path: '/sys/%'}",
    "kernelLog: {fail: '%'}",
    "kernelLog: {fail: a, ignore: '%'}",
    "kernelLog: {fail: a, clear: '%'}",
    "uevent: {fail: '%'}",
    "uevent: {fail: a, clear: '%'}",
    "uevent: {fail: a, path: '/sys/%'}",
    "exec: {command: [/opt/a, '%']}",
    "http: {url: 'http://%'}",
    "unixSocket: {path: '/run/%'}",
)


@pytest.mark.parametrize("probe", TEMPLATES)
def test_unknown_attribute_is_reported_in_each_template(probe: str) -> None:
    diagnostic = find_diagnostic(probe.replace("%", "${pci.adress}"))
    assert (diagnostic.code, diagnostic.message) == (ErrorCode.UNKNOWN_ATTRIBUTE, "unknown attribute 'pci.adress'")
    assert (str(diagnostic.location), diagnostic.hint) == (
        f"c.yaml:6:{COLUMN + probe.index('%') + 2}",
        "did you mean 'pci.address'?",
    )


@pytest.mark.parametrize("probe", TEMPLATES)
def test_unclosed_template_is_reported_in_each_option(probe: str) -> None:
    assert find_diagnostic(probe.replace("%", "${name")).code is ErrorCode.TEMPLATE


@pytest.mark.parametrize("probe", TEMPLATES)
def test_check_returns_all_its_templates(probe: str) -> None:
    (spec,) = load_probes(f"{{{probe.replace('%', '${name}')}}}")
    assert any(template.names == {"name"} for template in spec.check.templates)


@pytest.mark.parametrize("probe", ["file: {path: '%'}", "uevent: {fail: a, path: '%'}", "unixSocket: {path: '%'}"])
@pytest.mark.parametrize(("path", "error"), [("sys/x", "is not an absolute path"), ("/sys/../x", "contains '..'")])
def test_path_must_be_absolute_without_parent_segments_in_each_option(probe: str, path: str, error: str) -> None:
    diagnostic = find_diagnostic(probe.replace("%", path))
    assert (diagnostic.code, diagnostic.message) == (ErrorCode.PATH, f"{path!r} {error}")
    assert str(diagnostic.location) == locate(probe, "%")


@pytest.mark.parametrize("program", ["check", "./check", "${path}", "/opt/${name}", "/opt/../bin/sh"])
def test_program_must_be_an_absolute_path_without_templates(program: str) -> None:
    diagnostic = find_diagnostic(f"exec: {{command: ['{program}', -v]}}")
    assert (diagnostic.code, diagnostic.message) == (
        ErrorCode.PATH,
        f"{program!r} is not the absolute path of a program",
    )
    assert diagnostic.hint == "write the absolute path, without templates and without '..'"
    assert diagnostic.key_path == f"{KEY_PATH}.exec.command"


def test_probe_that_the_policy_denies_is_reported_with_the_rule() -> None:
    probe = "exec: {command: [/usr/bin/check, -v]}"
    diagnostic = find_diagnostic(probe, DEFAULT_POLICY)
    assert diagnostic.code is ErrorCode.NOT_ALLOWED
    assert diagnostic.message.startswith("running '/usr/bin/check' is refused by 'exec.allow' of ")
    assert (str(diagnostic.location), diagnostic.hint) == (locate(probe, "/usr"), DEFAULT_POLICY.help)
    opening = find_diagnostic("open: {}", DEFAULT_POLICY)
    assert opening.code is ErrorCode.NOT_ALLOWED
    assert opening.message.startswith("opening device nodes is refused by 'openProbe' of ")
    assert (str(opening.location), opening.width, opening.hint) == (f"c.yaml:6:{COLUMN}", 4, DEFAULT_POLICY.help)


def test_probe_that_the_policy_allows_is_decoded() -> None:
    policy = Policy(programs=(Glob.parse("/usr/bin/check*"),), open_probe=True)
    exec_probe, open_probe = load_probes(
        "{exec: {command: [/usr/bin/check-gpu, '${path}']}}, {open: {mode: w}}", policy
    )
    assert exec_probe.check == ExecCheck((Template.parse("/usr/bin/check-gpu"), Template.parse("${path}")))
    assert open_probe.name == "open"
    assert find_diagnostic("exec: {command: [/usr/bin/sh]}", policy).code is ErrorCode.NOT_ALLOWED


def test_probe_of_two_kinds_or_none_is_reported_with_the_kinds() -> None:
    two, none = find_diagnostic("pci: {}, file: {path: /sys/x}"), find_diagnostic("name: x")
    assert (two.code, two.message) == (ErrorCode.WRONG_VALUE, "a probe must have exactly one kind, found pci and file")
    assert (none.code, none.message) == (ErrorCode.WRONG_VALUE, "a probe must have exactly one kind, found none")
    kinds = f"exactly one of {', '.join(PROBES)}"
    assert (two.expected, none.expected, two.key_path) == (kinds, kinds, KEY_PATH)


@pytest.mark.parametrize(
    ("probe", "key"),
    [
        ("file: {equals: 1}", "path"),
        ("kernelLog: {ignore: a}", "fail"),
        ("uevent: {clear: a}", "fail"),
        ("exec: {}", "command"),
        ("http: {expectStatus: 200}", "url"),
        ("unixSocket: {}", "path"),
    ],
)
def test_missing_option_of_a_probe_kind_is_reported(probe: str, key: str) -> None:
    diagnostic = find_diagnostic(probe)
    assert diagnostic.code is ErrorCode.MISSING_KEY
    assert f"{key!r}" in diagnostic.message


def test_all_errors_of_health_are_reported_together() -> None:
    written = "{file: {path: x, bitsClear: many, min: 2, max: 1, perSeconds: 1}}, {pci: {address: '${n'}}, {open: {}}"
    found = find_diagnostics(f"health: {{probes: [{written}]}}", DEFAULT_POLICY)
    assert sorted(diagnostic.code for diagnostic in found) == sorted(
        [
            ErrorCode.PATH,
            ErrorCode.WRONG_VALUE,
            ErrorCode.SELECTOR,
            ErrorCode.MISSING_KEY,
            ErrorCode.TEMPLATE,
            ErrorCode.NOT_ALLOWED,
        ]
    )


def test_path_of_a_uevent_probe_can_be_a_template() -> None:
    (probe,) = load_resource(
        f"{DEVICES}\nhealth: {{probes: [{{uevent: {{fail: a, path: '${{sysfs}}'}}}}]}}"
    ).health.probes
    assert probe.check == UeventCheck((Template.parse("a"),), path=Template.parse("${sysfs}"))
