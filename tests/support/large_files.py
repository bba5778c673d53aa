"""Configuration files of up to 1 MiB that are as expensive as a file can be, each by another means."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

MIB = 1 << 20
HEAD = "apiVersion: genplug.io/v1alpha1\nkind: DevicePluginConfig\n"
_DEVICES = "    devices: [{glob: /dev/x}]\n"


def _fill(head: str, parts: Iterable[str], tail: str = "", limit: int = MIB) -> str:
    """Return a file with as many parts as fit into it."""
    taken, size = [head], len(head) + len(tail)
    for part in parts:
        size += len(part)
        if size > limit:
            break
        taken.append(part)
    return "".join((*taken, tail))


def _numbers() -> Iterable[int]:
    return range(MIB)


def resources(count: int, body: str = _DEVICES) -> str:
    """Return a file of many resources with the same body."""
    return HEAD + "resources:\n" + "".join(f"  a.io/r{number}:\n{body}" for number in range(count))


def small_resources() -> str:
    return _fill(HEAD + "resources:\n", (f"  a.io/r{n}: {{devices: [{{glob: /dev/x{n}}}]}}\n" for n in _numbers()))


def globs() -> str:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob:\n"
    return _fill(head, (f"      - /dev/x{n}-*\n" for n in _numbers()))


def alternatives(count: int = 20_000) -> str:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob:\n"
    return _fill(head, (f"      - /dev/x{n}-{{0..999}}\n" for n in range(count)))


def sources() -> str:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n"
    return _fill(head, (f"    - {{glob: /dev/x{n}, id: x}}\n" for n in _numbers()))


def name_globs() -> str:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob: /dev/x*\n      where:\n        name:\n"
    return _fill(head, (f"        - x{n}-{{0..999}}\n" for n in _numbers()))


def environment() -> str:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    allocate:\n      env:\n"
    return _fill(head, (f"        A{n}: b\n" for n in _numbers()))


def references() -> str:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + '    allocate:\n      env:\n        A: "'
    return _fill(head, ("${name}" for _ in _numbers()), '"\n')


def references_in_block() -> str:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    allocate:\n      env:\n        A: |\n"
    return _fill(head, ("          ${name}\n" for _ in _numbers()))


def text() -> str:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + '    allocate:\n      annotations:\n        a.io/b: "'
    return _fill(head, ("x" * 64 for _ in _numbers()), '"\n')


def defaults_in_every_resource() -> str:
    head = HEAD + "defaults:\n  allocate:\n    env:\n" + "".join(f"      A{n}: b\n" for n in range(20_000))
    return _fill(head + "resources:\n", (f"  a.io/r{n}: {{devices: [{{glob: /dev/x{n}}}]}}\n" for n in _numbers()))


def probes() -> str:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    health:\n      probes:\n"
    return _fill(head, ("      - open: {}\n" for _ in _numbers()))


def regexes() -> str:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    health:\n      probes:\n"
    return _fill(head, (f"      - file: {{path: /x, matches: 'a{n}(b{{50}}){{20}}'}}\n" for n in _numbers()))


def long_regex() -> str:
    head = (
        HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    health:\n      probes:\n      - file: {path: /x, matches: '"
    )
    return _fill(head, (f"(a{n}|b)" for n in _numbers()), "'}\n")


def attribute_chain(length: int) -> str:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob: /dev/x*\n      where: {a0: x}\n      attributes:\n"
    links = (f"        a{n}: {{path: '/x/${{a{n + 1}}}'}}\n" for n in range(length))
    return _fill(head, links, f"        a{length}: {{path: /x}}\n")


def attributes() -> str:
    return attribute_chain(MIB)


def wrong_keys() -> str:
    return _fill(HEAD + "resources: {}\n", (f"wrong{n}: 1\n" for n in _numbers()))


def wrong_values() -> str:
    return _fill(HEAD + "resources:\n", (f"  a.io/r{n}: {{devices: 1, replica: 0}}\n" for n in _numbers()))


def wrong_templates() -> str:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    allocate:\n      env:\n"
    return _fill(head, (f"        A{n}: '${{x{n}}}'\n" for n in _numbers()))


def wrong_names() -> str:
    return _fill(HEAD + "resources:\n", (f"  r{n}: {{devices: [{{glob: dev}}]}}\n" for n in _numbers()))


def duplicate_keys() -> str:
    return _fill(HEAD + "resources: {}\n", ("a: 1\n" for _ in _numbers()))


def deep() -> str:
    return HEAD + "resources: " + "[" * 100_000


def deep_block() -> str:
    return _fill(HEAD + "resources:\n", (" " * n + "a:\n" for n in range(1, 1400)))


def aliases() -> str:
    head = HEAD + "x: &a [" + "1," * 100 + "]\nresources: {}\ny:\n"
    return _fill(head, ("- *a\n" for _ in _numbers()))


def resource_aliases() -> str:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    aliases:\n"
    return _fill(head, (f"    - a.io/y{n}\n" for n in _numbers()))


def flow_scalars() -> str:
    return _fill(HEAD + "resources: {}\nx: [", ("1," for _ in _numbers()), "]\n")


def mounts() -> str:
    head = HEAD + "resources:\n  a.io/x:\n" + _DEVICES + "    allocate:\n      mounts:\n"
    return _fill(head, (f"      - {{hostPath: /x{n}, containerPath: /x{n}}}\n" for n in _numbers()))


def nodes() -> str:
    head = HEAD + "resources:\n  a.io/x:\n    devices:\n    - glob: /dev/x\n      with:\n"
    return _fill(head, (f"      - /dev/y{n}\n" for n in _numbers()))


def comments() -> str:
    return _fill(HEAD + "resources: {}\n", ("#\n" for _ in _numbers()))


def tokens(count: int = 300) -> str:
    return resources(count, _DEVICES + "    tokens: 10000\n")


FILES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        made.__name__: made
        for made in (
            small_resources,
            globs,
            alternatives,
            sources,
            name_globs,
            environment,
            references,
            references_in_block,
            text,
            defaults_in_every_resource,
            probes,
            regexes,
            long_regex,
            attributes,
            wrong_keys,
            wrong_values,
            wrong_templates,
            wrong_names,
            duplicate_keys,
            deep,
            deep_block,
            aliases,
            resource_aliases,
            flow_scalars,
            mounts,
            nodes,
            comments,
            tokens,
        )
    }
)
"""Every file by its name."""
