"""``genplug explain``: the documentation of a key, a code, an alert, an event or a metric."""

import argparse
from typing import TYPE_CHECKING, Any

from genplug.cli.output import format_json, format_table, format_yaml, print_message, table_width, wrap_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from genplug.documentation.key_search import FoundKey
    from genplug.documentation.topics import Topic

DESCRIPTION = """\
Print the documentation of a key, an error or warning code, an alert, an event of the log or a metric. The text is that
of the reference of this version, and the command needs no network access.

A key is a path in the configuration, in the policy (policy.PATH) or in the values of the chart (values.PATH). It can be
written as in an error message, and without the items of lists and maps. Without TOPIC, the command lists all topics.
"""
EPILOG = """\
examples:
  genplug explain                                    all topics
  genplug explain resources.devices.glob             a key of the configuration
  genplug explain health --recursive                 a key with all keys below it
  genplug explain policy.mounts.allow                a key of the policy
  genplug explain values.daemonset.tolerations       a value of the chart
  genplug explain GP012                              an error code
  genplug explain GenplugNotReady                    an alert
  genplug explain device_unhealthy                   an event of the log
  genplug explain genplug_devices                    a metric

`genplug schema explanation` describes the keys of `-o json` and `-o yaml`.

exit codes: 0 success, 2 usage error or unknown topic
"""
_DOCUMENT_NAMES = {"config": "configuration", "policy": "policy", "values": "values of the chart"}
_UNKNOWN = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "topic", nargs="?", metavar="TOPIC", help="key, code, alert, event or metric (default: list all)"
    )
    parser.add_argument(
        "--document", choices=tuple(_DOCUMENT_NAMES), help="document of a key (default: the first that has the key)"
    )
    parser.add_argument("--recursive", action="store_true", help="list all keys below a key")
    parser.add_argument(
        "-o", "--output", choices=("text", "json", "yaml"), default="text", help="format of the output (default: text)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the documentation and return the exit code."""
    from genplug.documentation.key_search import DOCUMENTS, find_key  # noqa: PLC0415 - --help does not need it
    from genplug.documentation.topics import (  # noqa: PLC0415 - as above
        find_short_name,
        find_topic,
        list_topics,
        suggest_names,
    )

    if arguments.topic is None:
        if arguments.output == "text":
            print(_format_index(arguments.document))
        else:
            _print_document([_build_topic(topic) for topic in list_topics()], arguments.output)
        return 0
    topic = None if arguments.document else find_topic(arguments.topic)
    documents = (arguments.document,) if arguments.document else tuple(DOCUMENTS)
    key = find_key(arguments.topic, documents) if topic is None else None
    if topic is None and key is None and not arguments.document:
        topic = find_short_name(arguments.topic)
    if topic is None and key is None:
        suggestions = suggest_names(arguments.topic)
        hint = f"did you mean {' or '.join(suggestions)}?" if suggestions else "'genplug explain' lists all topics"
        print_message("explain", f"found no key, code, alert, event or metric {arguments.topic!r}; {hint}")
        return _UNKNOWN
    if arguments.output != "text":
        built = _build_topic(topic) if topic is not None else _build_key(key) if key is not None else {}
        _print_document([built], arguments.output)
    elif topic is not None:
        print(format_topic(topic))
    elif key is not None:
        print(format_key(key, is_recursive=arguments.recursive))
    return 0


def format_topic(topic: "Topic") -> str:
    """Return the documentation of a topic as text."""
    from genplug.documentation.markdown import format_markdown  # noqa: PLC0415 - see run

    title = wrap_line(f"{topic.name} ({topic.kind}): {topic.summary}")
    return f"{title}\n\n{format_markdown(topic.text, table_width())}"


def format_key(key: "FoundKey", *, is_recursive: bool = False) -> str:
    """Return the documentation of a key as text."""
    from genplug.documentation.keys import type_text  # noqa: PLC0415 - see run
    from genplug.documentation.markdown import format_markdown  # noqa: PLC0415 - as above

    parts = [f"{key.path or key.document} ({_DOCUMENT_NAMES[key.document]})"]
    parts.append("\n".join(wrap_line(line) for line in _list_facts(key)))
    if description := key.schema.get("description"):
        parts.append(format_markdown(description, table_width()))
    children = list(_list_descendants(key)) if is_recursive else list(key.child_keys)
    if children:
        start = f"{_common_path(key)}."
        rows = [
            (
                child.path.removeprefix(start),
                type_text(child.schema, child.root),
                _first_sentence(child) + (" Required." if child.is_required else ""),
            )
            for child in children
        ]
        parts.append("keys:\n" + format_table(("KEY", "TYPE", "DESCRIPTION"), rows, table_width()))
    return "\n\n".join(parts)


def _common_path(key: "FoundKey") -> str:
    first = next(iter(key.child_keys), None)
    return first.path.rpartition(".")[0] if first is not None else key.path


def _list_descendants(key: "FoundKey") -> "Iterator[FoundKey]":
    for child in key.child_keys:
        yield child
        yield from _list_descendants(child)


def _first_sentence(key: "FoundKey") -> str:
    from genplug.documentation.keys import sentences  # noqa: PLC0415 - see run
    from genplug.documentation.markdown import strip_inline  # noqa: PLC0415 - as above

    return strip_inline(sentences(key.schema.get("description", ""))[0])


def _list_facts(key: "FoundKey") -> "Iterator[str]":
    from genplug.documentation.keys import constraints, type_text  # noqa: PLC0415 - see run
    from genplug.documentation.markdown import strip_inline  # noqa: PLC0415 - as above

    yield f"type: {type_text(key.schema, key.root)}"
    if key.is_required:
        yield "required"
    if key.default is not None:
        yield f"default: {key.default}"
    for text in constraints(key.schema):
        yield strip_inline(text[:1].lower() + text[1:])
    if example := _format_example(key):
        yield f"example: {example}"


def _format_example(key: "FoundKey") -> str:
    from genplug.documentation.keys import inline  # noqa: PLC0415 - see run

    examples = key.schema.get("examples")
    name = key.path.rpartition(".")[2].removesuffix("[]")
    return f"{name}: {inline(examples[0])}" if examples and name != "*" else ""


def _format_index(document: str | None) -> str:
    from genplug.documentation.key_search import DOCUMENTS, find_key  # noqa: PLC0415 - see run
    from genplug.documentation.topics import KIND_HEADINGS, Kind, list_topics  # noqa: PLC0415 - as above

    parts = []
    for name in DOCUMENTS if document is None else (document,):
        root = find_key("", (name,))
        keys = [child.path for child in root.child_keys] if root is not None else []
        prefix = "" if name == "config" else f"{name}."
        parts.append(
            f"keys of the {_DOCUMENT_NAMES[name]}:\n" + wrap_line("  " + ", ".join(prefix + key for key in keys))
        )
    if document is None:
        for kind in Kind:
            rows = [(topic.name, _summarize(topic)) for topic in list_topics() if topic.kind is kind]
            parts.append(f"{KIND_HEADINGS[kind]}:\n" + format_table(("NAME", "MEANING"), rows, table_width()))
    return "\n\n".join(parts)


def _summarize(topic: "Topic") -> str:
    from genplug.documentation.keys import sentences  # noqa: PLC0415 - see run
    from genplug.documentation.markdown import strip_inline  # noqa: PLC0415 - as above
    from genplug.documentation.topics import Kind  # noqa: PLC0415 - as above

    if topic.kind in {Kind.EVENT, Kind.METRIC}:
        return strip_inline(sentences(topic.text.partition("\n")[0])[0])
    return topic.summary


def _print_document(topics: list[dict[str, Any]], output: str) -> None:
    document = {"apiVersion": "genplug.io/v1alpha1", "kind": "Explanation", "topics": topics}
    print(format_json(document) if output == "json" else format_yaml(document).rstrip())


def _build_topic(topic: "Topic") -> dict[str, Any]:
    return {"kind": topic.kind.value, "name": topic.name, "summary": topic.summary, "text": topic.text, "key": None}


def _build_key(key: "FoundKey") -> dict[str, Any]:
    from genplug.documentation.keys import constraints, type_text  # noqa: PLC0415 - see run

    schema = key.schema
    return {
        "kind": "key",
        "name": key.path,
        "summary": _DOCUMENT_NAMES[key.document],
        "text": schema.get("description", ""),
        "key": {
            "document": key.document,
            "type": type_text(schema, key.root),
            "required": key.is_required,
            "default": key.default,
            "constraints": list(constraints(schema)),
            "example": _format_example(key),
            "keys": [child.path for child in key.child_keys],
        },
    }
