"""``health``, key by key: each number for itself, how probes are called, and where a mistake stands and what helps."""

import pytest
from attrs import evolve

from genplug.config.diagnostics import ConfigInvalidError, Diagnostic, ErrorCode
from genplug.config.load import load_text
from genplug.health.probes import PROBES
from genplug.health.probes.exec import ExecCheck
from genplug.health.probes.file import FileCheck
from genplug.health.probes.uevent import UeventCheck
from genplug.spec.globs import Glob
from genplug.spec.policy import DEFAULT_POLICY, Policy
from genplug.spec.probes import HealthSpec, OnError, ProbeSpec, ProbeTiming
from genplug.spec.template import Template
from tests.support.configs import DEVICES, HEAD, NAME, PERMISSIVE_POLICY, load_resource, render_config

ALL_ALLOWED = evolve(PERMISSIVE_POLICY, open_probe=True)
BEGIN = "health: {probes: [{"
COLUMN = 5 + len(BEGIN)
"""Where a probe's first key stands in its line: a resource's keys are indented by four."""
TREE = f"resources.{NAME}.health.probes[0]"


def health(written: str, policy: Policy = ALL_ALLOWED) -> HealthSpec:
    return load_text(render_config(f"{DEVICES}\n{written}"), "c.yaml", policy).resources[NAME].health


def probes(written: str, policy: Policy = ALL_ALLOWED) -> tuple[ProbeSpec, ...]:
    return health(f"health: {{probes: [{written}]}}", policy).probes


def names(written: str) -> list[str]:
    return [one.name for one in probes(written)]


def mistakes(written: str, policy: Policy = ALL_ALLOWED) -> tuple[Diagnostic, ...]:
    with pytest.raises(ConfigInvalidError) as caught:
        health(written, policy)
    return caught.value.problems


def mistake(probe: str, policy: Policy = ALL_ALLOWED) -> Diagnostic:
    """The one thing that is wrong with one probe."""
    (only,) = mistakes(f"{BEGIN}{probe}}}]}}", policy)
    return only


def at(probe: str, part: str) -> str:
    """Where a part of the first probe stands, the last that reads so."""
    return f"c.yaml:6:{COLUMN + probe.rindex(part)}"


NUMBERS = {
    "periodSeconds: 7": ProbeTiming(period=7),
    "timeoutSeconds: 0.5": ProbeTiming(timeout=0.5),
    "failureThreshold: 1": ProbeTiming(failure_threshold=1),
    "successThreshold: 9": ProbeTiming(success_threshold=9),
    "onError: healthy": ProbeTiming(on_error=OnError.HEALTHY),
}


@pytest.mark.parametrize(("written", "numbers"), NUMBERS.items(), ids=NUMBERS)
def test_a_number_is_of_all_probes_or_of_one_and_changes_no_other(written: str, numbers: ProbeTiming) -> None:
    of_all = health(f"health: {{{written}, probes: [{{pci: {{}}}}, {{open: {{}}}}]}}").probes
    assert [one.timing for one in of_all] == [numbers, numbers]
    of_one = probes(f"{{pci: {{}}, {written}}}, {{open: {{}}}}")
    assert [one.timing for one in of_one] == [numbers, ProbeTiming()]


def test_a_probe_may_go_back_to_what_is_the_default() -> None:
    (probe,) = health("health: {onError: unhealthy, periodSeconds: 1, probes: [{pci: {}, onError: keep}]}").probes
    assert probe.timing == ProbeTiming(period=1)


def test_health_without_a_key_is_that_of_a_resource_without_health() -> None:
    assert health("health: {}") == health("") == health("health: {probes: []}") == HealthSpec(60.0, ())


def test_defaults_of_the_file_are_the_numbers_of_probes_too() -> None:
    text = f"{HEAD}defaults: {{health: {{timeoutSeconds: 4}}}}\nresources: {{a.io/x: {{{DEVICES}, "
    config = load_text(f"{text}health: {{probes: [{{pci: {{}}}}]}}}}}}", "c.yaml")
    assert [one.timing for one in config.resources["a.io/x"].health.probes] == [ProbeTiming(timeout=4)]


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
def test_a_number_that_none_can_be_is_marked_where_it_stands(written: str, key: str, code: ErrorCode) -> None:
    (problem,) = mistakes(f"health: {{{written}}}")
    value = written.partition(": ")[2]
    column = 5 + len(f"health: {{{key}: ")
    assert (problem.code, str(problem.location)) == (code, f"c.yaml:6:{column}")
    assert (problem.width, problem.key_path) == (len(value), f"resources.{NAME}.health.{key}")


def test_sticky_and_the_time_to_keep_are_of_the_resource_and_not_of_a_probe() -> None:
    assert (mistake("pci: {}, sticky: true").code, mistake("pci: {}, removalGracePeriodSeconds: 1").code) == (
        ErrorCode.UNKNOWN_KEY,
        ErrorCode.UNKNOWN_KEY,
    )


def test_a_probe_of_a_file_is_called_by_the_files_name_where_that_is_one() -> None:
    files = ("/sys/a/state", "/sys/a/", "/sys/e*", "/sys/{a,b}", "/sys/e[0-9]", "${sysfs}/carrier", "/sys/${name}")
    assert names(", ".join(f"{{file: {{path: '{path}'}}}}" for path in files)) == [
        "state", "a", "file", "file-2", "file-3", "carrier", "file-4",
    ]  # fmt: skip


def test_a_probe_without_a_name_is_called_by_its_kind() -> None:
    kinds = (
        "pci: {}", "kernelLog: {fail: a}", "uevent: {fail: a}", "open: {}", "exec: {command: [/opt/a]}",
        "http: {url: 'http://a'}", "unixSocket: {path: /run/a}",
    )  # fmt: skip
    assert names(", ".join(f"{{{kind}}}" for kind in kinds)) == [kind.partition(":")[0] for kind in kinds]


def test_a_made_name_is_one_that_nobody_has_yet() -> None:
    assert names("{pci: {}}, {name: pci-2, open: {}}, {pci: {}}, {pci: {}}") == ["pci", "pci-2", "pci-3", "pci-4"]
    assert names("{name: pci, open: {}}, {pci: {}}") == ["pci", "pci-2"]


def test_a_made_name_gives_way_to_a_written_one_that_comes_later() -> None:
    assert names("{pci: {}}, {name: pci, open: {}}") == ["pci-2", "pci"]


def test_a_name_that_is_written_twice_is_marked_and_the_first_shown() -> None:
    written = "health:\n  probes:\n  - {name: link, pci: {}}\n  - {pci: {}}\n  - {name: link, open: {}}"
    (problem,) = mistakes(written)
    assert (problem.code, problem.message) == (ErrorCode.CONFLICT, "two probes have the name 'link'")
    assert (str(problem.location), problem.width, str(problem.related_location)) == ("c.yaml:10:16", 4, "c.yaml:8:16")
    assert problem.hint == "give each probe its own name: log and metrics identify probes by name"
    assert problem.key_path == f"resources.{NAME}.health.probes[2]"


def test_an_alias_gives_a_probe_its_name_a_second_time() -> None:
    assert [one.code for one in mistakes("health: {probes: [&one {name: link, pci: {}}, *one]}")] == [
        ErrorCode.CONFLICT
    ]


def test_resources_may_call_their_probes_alike() -> None:
    one = f"{{{DEVICES}, health: {{probes: [{{name: link, pci: {{}}}}]}}}}"
    other = one.replace("/dev/x*", "/dev/y*")
    config = load_text(f"{HEAD}resources:\n  a.io/x: {one}\n  a.io/y: {other}\n", "c.yaml")
    assert [found.health.probes[0].name for found in config.resources.values()] == ["link", "link"]


def test_a_probe_that_only_moved_is_equal_and_looked_up_as_the_same() -> None:
    here = probes("{file: {path: /sys/x, min: 1Ki, bitsClear: 4}}")
    there = health("health:\n  onError: keep\n\n  probes:\n  - file: {bitsClear: '0x4', path: /sys/x, min: 1Ki}").probes
    assert here[0].location != there[0].location
    assert (here, hash(here)) == (there, hash(there))
    assert here != probes("{name: other, file: {path: /sys/x, min: 1Ki, bitsClear: 4}}")
    assert here != probes("{file: {path: /sys/x, min: 1Ki, bitsClear: 4}, timeoutSeconds: 3}")


VALUES = {"true": "true", "10": "10", "1.0": "1.0", "'0x10'": "0x10", "''": "", "no": "no", "' a '": " a "}


@pytest.mark.parametrize(("written", "text"), VALUES.items(), ids=VALUES)
def test_a_value_is_wanted_as_it_is_written(written: str, text: str) -> None:
    (probe,) = probes(f"{{file: {{path: /sys/x, equals: {written}, notEquals: {written}}}}}")
    assert isinstance(probe.check, FileCheck)
    assert (probe.check.expected.equals, probe.check.expected.not_equals) == (text, text)


def test_bounds_keep_what_was_written_for_reasons_and_may_be_the_same() -> None:
    (probe,) = probes("{file: {path: /sys/x, min: -1.5, max: '-1.5'}}")
    assert isinstance(probe.check, FileCheck)
    assert (probe.check.expected.minimum, probe.check.expected.maximum) == ((-1.5, "-1.5"), (-1.5, "-1.5"))
    (probe,) = probes("{file: {path: /sys/x, min: 0x10, max: 64Gi}}")
    assert isinstance(probe.check, FileCheck)
    assert (probe.check.expected.minimum, probe.check.expected.maximum) == ((16, "0x10"), (64 * 2**30, "64Gi"))


MASKS = {"4": 4, "'0x4'": 4, "0x4": 4, "'4'": 4, "1Ki": 1024, "0x8000000000000001": 2**63 + 1}


@pytest.mark.parametrize(("written", "mask"), MASKS.items(), ids=MASKS)
def test_a_mask_is_a_number_however_it_is_written(written: str, mask: int) -> None:
    (probe,) = probes(f"{{file: {{path: /sys/x, bitsClear: {written}}}}}")
    assert isinstance(probe.check, FileCheck)
    assert probe.check.expected.bits_clear == mask


def test_a_decimal_mask_of_64_bits_keeps_its_lowest() -> None:
    (probe,) = probes(f"{{file: {{path: /sys/x, bitsClear: {2**63 + 1}}}}}")
    assert isinstance(probe.check, FileCheck)
    assert probe.check.expected.bits_clear == 2**63 + 1


@pytest.mark.parametrize("written", ["'-4'", "'0x'", "'0.5'", "many", "'0'", "-1"])
def test_what_is_no_mask_is_marked_and_an_example_shown(written: str) -> None:
    probe = f"file: {{path: /sys/x, bitsClear: {written}}}"
    problem = mistake(probe)
    text = written.strip("'")
    assert (problem.code, problem.message) == (ErrorCode.WRONG_VALUE, f"{text!r} is not a bit mask")
    assert (str(problem.location), problem.hint) == (at(probe, text), "write a whole number from 1, for example 0x4")
    assert (problem.width, problem.key_path) == (len(text), f"{TREE}.file.bitsClear")


@pytest.mark.parametrize(("there", "lacking"), [("maxIncrease", "perSeconds"), ("perSeconds", "maxIncrease")])
def test_half_a_counter_is_marked_at_the_half_that_is_there(there: str, lacking: str) -> None:
    probe = f"file: {{path: /sys/x, {there}: 2}}"
    problem = mistake(probe)
    assert (problem.code, problem.message) == (ErrorCode.MISSING_KEY, f"{there!r} without {lacking!r}")
    assert (str(problem.location), problem.width, problem.key_path) == (at(probe, there), len(there), f"{TREE}.file")
    assert problem.hint == "a counter may increase by at most 'maxIncrease' within 'perSeconds'"


def test_bounds_that_nothing_is_within_are_marked_at_the_lower_one() -> None:
    probe = "file: {path: /sys/x, max: 1Ki, min: 1025}"
    problem = mistake(probe)
    assert (problem.code, str(problem.location), problem.hint) == (
        ErrorCode.SELECTOR,
        at(probe, "min"),
        "swap the two values",
    )
    assert problem.key_path == f"{TREE}.file"


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
def test_every_pattern_is_one_that_re2_reads(probe: str) -> None:
    problem = mistake(probe.replace("%", "Xid (?!13)"))
    assert problem.code is ErrorCode.SELECTOR
    assert problem.message.startswith("'Xid (?!13)' is not a regular expression: ")
    assert problem.hint == "the syntax is that of RE2: no look-ahead and no back-references"
    assert (str(problem.location), problem.width) == (at(probe, "%"), len("Xid (?!13)"))


@pytest.mark.parametrize("pattern", ["(?<=a)b", r"(a)\1", "(a", "a**", "a{2000}"])
def test_what_could_hang_or_means_nothing_is_no_pattern(pattern: str) -> None:
    assert mistake(f"kernelLog: {{fail: '{pattern}'}}").code is ErrorCode.SELECTOR


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
def test_every_template_speaks_of_attributes_that_there_are(probe: str) -> None:
    problem = mistake(probe.replace("%", "${pci.adress}"))
    assert (problem.code, problem.message) == (ErrorCode.UNKNOWN_ATTRIBUTE, "unknown attribute 'pci.adress'")
    assert (str(problem.location), problem.hint) == (
        f"c.yaml:6:{COLUMN + probe.index('%') + 2}",
        "did you mean 'pci.address'?",
    )


@pytest.mark.parametrize("probe", TEMPLATES)
def test_a_template_that_is_not_closed_is_a_mistake_everywhere(probe: str) -> None:
    assert mistake(probe.replace("%", "${name")).code is ErrorCode.TEMPLATE


@pytest.mark.parametrize("probe", TEMPLATES)
def test_templates_of_a_check_are_all_that_it_has(probe: str) -> None:
    (found,) = probes(f"{{{probe.replace('%', '${name}')}}}")
    assert any(one.names == {"name"} for one in found.check.templates)


@pytest.mark.parametrize("probe", ["file: {path: '%'}", "uevent: {fail: a, path: '%'}", "unixSocket: {path: '%'}"])
@pytest.mark.parametrize(("path", "words"), [("sys/x", "is not an absolute path"), ("/sys/../x", "contains '..'")])
def test_every_path_is_absolute_and_does_not_climb(probe: str, path: str, words: str) -> None:
    problem = mistake(probe.replace("%", path))
    assert (problem.code, problem.message) == (ErrorCode.PATH, f"{path!r} {words}")
    assert str(problem.location) == at(probe, "%")


@pytest.mark.parametrize("program", ["check", "./check", "${path}", "/opt/${name}", "/opt/../bin/sh"])
def test_a_program_is_a_whole_path_that_everybody_can_read(program: str) -> None:
    problem = mistake(f"exec: {{command: ['{program}', -v]}}")
    assert (problem.code, problem.message) == (ErrorCode.PATH, f"{program!r} is not the absolute path of a program")
    assert problem.hint == "write the absolute path, without templates and without '..'"
    assert problem.key_path == f"{TREE}.exec.command"


def test_what_no_policy_allows_is_refused_and_the_policy_named() -> None:
    probe = "exec: {command: [/usr/bin/check, -v]}"
    problem = mistake(probe, DEFAULT_POLICY)
    assert problem.code is ErrorCode.NOT_ALLOWED
    assert problem.message.startswith("running '/usr/bin/check' is refused by 'exec.allow' of ")
    assert (str(problem.location), problem.hint) == (at(probe, "/usr"), DEFAULT_POLICY.help)
    opening = mistake("open: {}", DEFAULT_POLICY)
    assert opening.code is ErrorCode.NOT_ALLOWED
    assert opening.message.startswith("opening device nodes is refused by 'openProbe' of ")
    assert (str(opening.location), opening.width, opening.hint) == (f"c.yaml:6:{COLUMN}", 4, DEFAULT_POLICY.help)


def test_what_a_policy_allows_is_read() -> None:
    policy = Policy(programs=(Glob.parse("/usr/bin/check*"),), open_probe=True)
    exec_probe, open_probe = probes("{exec: {command: [/usr/bin/check-gpu, '${path}']}}, {open: {mode: w}}", policy)
    assert exec_probe.check == ExecCheck((Template.parse("/usr/bin/check-gpu"), Template.parse("${path}")))
    assert open_probe.name == "open"
    assert mistake("exec: {command: [/usr/bin/sh]}", policy).code is ErrorCode.NOT_ALLOWED


def test_a_probe_of_two_kinds_or_of_none_is_told_what_kinds_there_are() -> None:
    two, none = mistake("pci: {}, file: {path: /sys/x}"), mistake("name: x")
    assert (two.code, two.message) == (ErrorCode.WRONG_VALUE, "a probe must have exactly one kind, found pci and file")
    assert (none.code, none.message) == (ErrorCode.WRONG_VALUE, "a probe must have exactly one kind, found none")
    kinds = f"exactly one of {', '.join(PROBES)}"
    assert (two.expected, none.expected, two.key_path) == (kinds, kinds, TREE)


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
def test_what_a_kind_cannot_do_without_is_missed(probe: str, key: str) -> None:
    problem = mistake(probe)
    assert problem.code is ErrorCode.MISSING_KEY
    assert f"{key!r}" in problem.message


def test_every_mistake_of_a_health_is_told_at_once() -> None:
    written = "{file: {path: x, bitsClear: many, min: 2, max: 1, perSeconds: 1}}, {pci: {address: '${n'}}, {open: {}}"
    found = mistakes(f"health: {{probes: [{written}]}}", DEFAULT_POLICY)
    assert sorted(one.code for one in found) == sorted(
        [
            ErrorCode.PATH,
            ErrorCode.WRONG_VALUE,
            ErrorCode.SELECTOR,
            ErrorCode.MISSING_KEY,
            ErrorCode.TEMPLATE,
            ErrorCode.NOT_ALLOWED,
        ]
    )


def test_an_events_path_may_be_written_as_a_directory() -> None:
    (probe,) = load_resource(
        f"{DEVICES}\nhealth: {{probes: [{{uevent: {{fail: a, path: '${{sysfs}}'}}}}]}}"
    ).health.probes
    assert probe.check == UeventCheck(Template.parse("a"), path=Template.parse("${sysfs}"))
