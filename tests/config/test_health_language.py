"""``health``: what is read of it, and what is wrong with it."""

import pytest
from attrs import evolve
from config_texts import GENEROUS, NAME, codes, loaded, problems, resource

from genplug.config.load import load_text
from genplug.config.probes import (
    Check,
    Counter,
    ExecCheck,
    FileCheck,
    HttpCheck,
    KernelLogCheck,
    Missing,
    OnError,
    OpenCheck,
    PciCheck,
    ProbeNumbers,
    ProbeSpec,
    UeventCheck,
    UnixSocketCheck,
    Wanted,
)
from genplug.config.problem import Code
from genplug.config.template import Template

DEVICES = "devices: [{glob: /dev/x*}]"
EVERYTHING = r"""file: {
    path: '${sysfs}/e*', find: 'n (\d+)', equals: 1, notEquals: no, matches: a, notMatches: b, min: 1Ki, max: 2000,
    bitsClear: '0x4', need: any, missing: fail
}"""
path = Template.parse


def probes(health: str) -> tuple[ProbeSpec, ...]:
    policy = evolve(GENEROUS, open_probe=True)
    return (
        load_text(resource(f"{DEVICES}\nhealth: {' '.join(health.split())}"), "c.yaml", policy)
        .resources[NAME]
        .health.probes
    )


def test_numbers_are_those_of_pod_probes_and_a_probe_may_have_its_own() -> None:
    assert [one.numbers for one in probes("{probes: [{pci: {}}]}")] == [ProbeNumbers(10, 2, 3, 2, OnError.KEEP, False)]  # noqa: FBT003 - its fields
    shared = "periodSeconds: 5, timeoutSeconds: 1.5, failureThreshold: 4, successThreshold: 6, onError: unhealthy"
    own = "{pci: {}, periodSeconds: 0.5, timeoutSeconds: 3, failureThreshold: 1, successThreshold: 2, onError: healthy}"
    assert [one.numbers for one in probes(f"{{{shared}, sticky: true, probes: [{{pci: {{}}}}, {own}]}}")] == [
        ProbeNumbers(5, 1.5, 4, 6, OnError.UNHEALTHY, True),  # noqa: FBT003
        ProbeNumbers(0.5, 3, 1, 2, OnError.HEALTHY, True),  # noqa: FBT003
    ]


@pytest.mark.parametrize(
    ("written", "check"),
    [
        ("pci: {}", PciCheck()),
        ("pci: {address: '${sriov.pf}', minLinkWidth: 8}", PciCheck(path("${sriov.pf}"), 8)),
        ("pci: {minLinkWidth: atStart}", PciCheck(keeps_width=True)),
        ("file: {path: /sys/x}", FileCheck(path("/sys/x"))),
        (
            EVERYTHING,
            FileCheck(
                path("${sysfs}/e*"),
                r"n (\d+)",
                Wanted("1", "no", "a", "b", (1024, "1Ki"), (2000, "2000"), 4),
                needs_all=False,
                missing=Missing.FAIL,
            ),
        ),
        (
            "file: {path: /sys/x, maxIncrease: 2, perSeconds: 60, missing: ok}",
            FileCheck(path("/sys/x"), counter=Counter(2, 60), missing=Missing.OK),
        ),
        (
            "kernelLog: {fail: 'a ${name}', ignore: b, clear: c}",
            KernelLogCheck(path("a ${name}"), path("b"), path("c")),
        ),
        ("uevent: {fail: a, clear: b, path: /sys/y}", UeventCheck(path("a"), path("b"), path("/sys/y"))),
        ("open: {}", OpenCheck("rw")),
        ("open: {mode: r}", OpenCheck("r")),
        ("exec: {command: [/opt/check, '${path}']}", ExecCheck((path("/opt/check"), path("${path}")))),
        ("http: {url: 'http://127.0.0.1/${index}'}", HttpCheck(path("http://127.0.0.1/${index}"), 200)),
        ("http: {url: 'https://a', expectStatus: 204}", HttpCheck(path("https://a"), 204)),
        ("unixSocket: {path: '/run/${name}.sock'}", UnixSocketCheck(path("/run/${name}.sock"))),
    ],
)
def test_each_kind_is_read(written: str, check: Check) -> None:
    (probe,) = probes(f"{{probes: [{{{written}}}]}}")
    assert probe.check == check


def test_a_probe_is_called_as_is_written_or_by_what_it_looks_at() -> None:
    written = (
        "{pci: {}}, {pci: {address: '${sriov.pf}'}}, {file: {path: '/sys/${name}/state'}}, {file: {path: '/sys/*'}}, "
        "{name: link, file: {path: /sys/state}}, {file: {path: /sys/state}}"
    )
    assert [one.name for one in probes(f"{{probes: [{written}]}}")] == [
        "pci", "pci-2", "state", "file", "link", "state-2",
    ]  # fmt: skip


def test_where_a_probe_stands_makes_no_other_probe_of_it() -> None:
    assert probes("{probes: [{pci: {}}]}") == probes("{sticky: false,    probes: [{pci: {}}]}")
    assert probes("{probes: [{pci: {}}]}") != probes("{probes: [{pci: {minLinkWidth: 1}}]}")


@pytest.mark.parametrize(
    ("written", "code", "words"),
    [
        ("file: {path: /sys/x, maxIncrease: 2}", Code.MISSING_KEY, "'maxIncrease' without 'perSeconds'"),
        ("file: {path: /sys/x, perSeconds: 2}", Code.MISSING_KEY, "'perSeconds' without 'maxIncrease'"),
        ("file: {path: /sys/x, min: 2, max: 1}", Code.SELECTOR, "no number is both"),
        ("file: {path: /sys/x, min: many}", Code.SELECTOR, "'many' is no number"),
        ("file: {path: /sys/x, bitsClear: 1.5}", Code.WRONG_TYPE, "bitsClear"),
        ("file: {path: /sys/x, bitsClear: 0}", Code.WRONG_VALUE, "'0' is no mask of bits"),
        ("file: {path: sys/x}", Code.PATH, "is not an absolute path"),
        ("file: {path: '/sys/../x'}", Code.PATH, "climbs"),
        ("file: {path: '/sys/${nmae}'}", Code.UNKNOWN_ATTRIBUTE, "unknown attribute 'nmae'"),
        ("file: {path: /sys/x, matches: '(?!a)'}", Code.SELECTOR, "is no regular expression"),
        ("kernelLog: {fail: 'Xid (?!13)'}", Code.SELECTOR, "is no regular expression"),
        ("kernelLog: {clear: x}", Code.MISSING_KEY, "fail"),
        ("uevent: {fail: '('}", Code.SELECTOR, "is no regular expression"),
        ("open: {}", Code.NOT_ALLOWED, "to open device nodes is refused by 'openProbe'"),
        ("exec: {command: [/bin/check]}", Code.NOT_ALLOWED, "to run '/bin/check' is refused by 'exec.allow'"),
        ("exec: {command: [check]}", Code.PATH, "'check' is not the path of a program"),
        ("http: {url: 'ftp://x'}", Code.WRONG_VALUE, "url"),
        ("unixSocket: {path: run}", Code.PATH, "is not an absolute path"),
    ],
)
def test_a_mistake_is_told_where_it_stands(written: str, code: Code, words: str) -> None:
    (problem,) = problems(resource(f"{DEVICES}\nhealth:\n  probes:\n  - {{{written}}}"))
    assert (problem.code, problem.place.line) == (code, 8)
    assert words in problem.message or words in problem.tree


def test_two_probes_of_one_name_cannot_be_told_apart() -> None:
    probe = "{name: link, file: {path: /sys/a}}"
    (problem,) = problems(resource(f"{DEVICES}\nhealth: {{probes: [{probe}, {probe}]}}"))
    assert problem.code is Code.CONFLICT
    assert problem.message == "two probes are called 'link'"


def test_a_probe_is_of_one_kind() -> None:
    assert codes(f"{DEVICES}\nhealth: {{probes: [{{pci: {{}}, open: {{}}}}]}}") != []
    assert codes(f"{DEVICES}\nhealth: {{probes: [{{name: nothing}}]}}") != []


def test_what_a_probe_speaks_of_is_known_of_its_devices() -> None:
    found = loaded(
        "devices: [{glob: /dev/x*, attributes: {region: {path: '/sys/r/${name}'}}}]\n"
        "health: {probes: [{file: {path: '/sys/region/${region}/state'}}]}"
    )
    assert [one.check for one in found.health.probes] == [FileCheck(path("/sys/region/${region}/state"))]
