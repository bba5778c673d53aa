"""Removes secrets from the files of a bundle, and lists what was removed: the file, the rule and the place, no values.

Three kinds of rules apply:

- by key: values of environment variables, annotations and headers in a configuration, and values of keys with a name
  such as ``password``,
- by form: user names in URLs, tokens and private keys, wherever they occur,
- by value: what a rule by key removed from a configuration is removed from every other file, too.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import yaml
from msgspec import Struct, field

from genplug.config.diagnostics import Diagnostics
from genplug.config.yaml_tree import parse_documents, to_python
from genplug.spec.json_text import parse_json
from genplug.spec.limits import MAX_BUNDLE_FILE_BYTES

MAX_PLACES = 20
"""The places of a rule in a file that are listed; more are counted only."""

_NAME = (
    r"(?:passw(?:or)?d|passphrase|secret|token(?!s\b)|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key"
    r"|client[_-]?key|credential|authorization|cookie|signature)"
)
"""The part of a name that tells a secret. ``tokens`` is a key of genplug."""
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_SECRET_OPTION = re.compile(rf"--?[\w-]*{_NAME}[\w-]*\Z", re.IGNORECASE)
_PLAIN_TEMPLATE = re.compile(
    r"(?:\$\{[A-Za-z][\w.]*(?:\|(?:unique|quote|json|count|first|lower|upper))*\}|[,;:/ =])*\Z"
)
"""Texts that consist of references: what they render to is in the other files anyway."""
_BY_KEY = {
    "env": "environment variable",
    "annotations": "annotation",
    "headers": "header",
    "httpHeaders": "header",
}
_COMMON_WORDS = frozenset(
    {"enabled", "disabled", "default", "compute", "utility", "graphics", "display", "warning", "error", "debug"}
)
"""Values of environment variables that are not removed from other files, where they are ordinary words."""
_MIN_SECRET = 6
"""Characters of the shortest value that is removed from other files."""
_BEGIN = "[removed: "

_BLOCK = re.compile(r"(?P<indent>\s*)(?:- )*(?P<key>[\w.-]+):(?P<rest>.*)")
_PAIR = re.compile(r"[\w./${}-]+[\"']?\s*:\s*(?P<value>\"[^\"]*\"|'[^']*'|[^\s,}\"']+)")


_Place: TypeAlias = Callable[[str, "re.Match[str]"], str]
"""Returns the place of a match in a text for the list of what was removed."""


def _place_of(text: str, match: "re.Match[str]") -> str:
    return f"line {text.count(chr(10), 0, match.start()) + 1}"


def is_secret_name(name: str) -> bool:
    """Return whether a name is one that usually has a secret as its value, such as ``DB_PASSWORD``."""
    return _SECRET_NAME.search(name) is not None


def _marker(rule: str) -> str:
    return f"{_BEGIN}{rule}]"


class _Rule(Struct, frozen=True):
    """A rule by form: what it removes, the pattern, and the group of the pattern that is kept before the marker."""

    name: str
    pattern: re.Pattern[str]
    before: str = ""
    accepts: Callable[["re.Match[str]"], bool] = lambda _: True

    def replace(self, match: "re.Match[str]") -> str:
        """Return what is written for a match."""
        return f"{match[self.before] if self.before else ''}{_marker(self.name)}"


_OPTION_START = re.compile(r"(?<![\w-])--?[\w-]*\Z")
_VALUE = r"(?!\[removed: )"
_PRIVATE_KEY = _Rule(
    "private key",
    re.compile(
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?!-----(?:BEGIN|END) ).){0,20000}"
        r"(?:-----END [A-Z0-9 ]{0,40}-----)?",
        re.DOTALL,
    ),
)
_KEY_BEFORE = rf"{_NAME}[\w.-]{{0,32}}\\{{0,2}}[\"']?\s{{0,4}}[=:]\s{{0,4}}"
_RULES = (
    _PRIVATE_KEY,
    _Rule(
        "user name in a URL",
        re.compile(r"(?P<before>\b[A-Za-z][A-Za-z0-9+.-]{1,20}://)[^\s/\"'<>]{1,1024}(?=@)"),
        "before",
    ),
    _Rule(
        "secret name",
        re.compile(rf"(?P<before>{_KEY_BEFORE}\\{{0,2}}\"){_VALUE}(?:[^\"\n\\]|\\[^\"\n]){{1,8192}}", re.IGNORECASE),
        "before",
    ),
    _Rule("secret name", re.compile(rf"(?P<before>{_KEY_BEFORE}'){_VALUE}[^'\n]{{1,8192}}", re.IGNORECASE), "before"),
    # The rest of the line: a header can have several quoted parts.
    _Rule(
        "header",
        re.compile(
            r"(?P<before>\b(?:proxy-)?(?:authorization|set-cookie|cookie|x-[\w-]{0,40}(?:key|token|auth|secret)[\w-]{0,20})"
            rf"\s{{0,4}}[:=]\s{{0,4}}){_VALUE}[^\r\n]{{1,8192}}",
            re.IGNORECASE,
        ),
        "before",
    ),
    _Rule(
        "token",
        re.compile(
            rf"(?P<before>\b(?:bearer|basic|digest)\s{{1,4}}){_VALUE}[A-Za-z0-9._~+/=-]{{8,8192}}", re.IGNORECASE
        ),
        "before",
    ),
    _Rule("token", re.compile(r"\beyJ[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{4,8192}(?:\.[A-Za-z0-9_-]{0,8192})?")),
    _Rule("token", re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{12,32}\b")),
    _Rule(
        "token",
        re.compile(
            r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|npm_|pypi-|hf_|dop_v1_|sk-|rk_live_)[\w-]{10,512}"
        ),
    ),
    _Rule("token", re.compile(r"\bAIza[\w-]{30,60}")),
    _Rule(
        "secret name",
        re.compile(rf"(?P<before>{_KEY_BEFORE}){_VALUE}[^\s\"',;&{{}}\[\]]{{1,8192}}", re.IGNORECASE),
        "before",
    ),
    _Rule(
        "secret option",
        re.compile(
            rf"(?P<before>{_NAME}[\w-]{{0,32}}\s{{1,4}}[\"']?){_VALUE}[^\s\"'-][^\s\"']{{0,8192}}", re.IGNORECASE
        ),
        "before",
        lambda match: _OPTION_START.search(match.string, max(match.start() - 64, 0), match.start()) is not None,
    ),
)
"""The rules by form, in this order: a rule does not apply inside of what an earlier rule removed."""
_HINT = re.compile(
    rf"{_NAME}|-----BEGIN|://|\b(?:bearer|basic|digest)\s|x-|eyJ|A[KSRIBC][A-Z]A|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-"
    r"|npm_|pypi-|hf_|dop_v1_|sk-|rk_live_|AIza",
    re.IGNORECASE,
)
"""Finds texts to which a rule may apply; most lines of a log have none of them."""
_KEY_HINT = re.compile("|".join(_BY_KEY))


class Removal(Struct):
    """The removals of a rule from a file: their number, and the first places (lines, or paths of keys)."""

    file: str
    rule: str
    count: int = 0
    places: list[str] = []

    def add(self, place: str) -> None:
        """Count a removed value."""
        self.count += 1
        if len(self.places) < MAX_PLACES and place not in self.places:
            self.places.append(place)


class Redactor(Struct):
    """Removes secrets, and remembers what it removed.

    ``secrets`` are values that are removed wherever they occur. ``names`` are texts that are replaced by others, for
    names of pods.
    """

    secrets: set[str] = field(default_factory=set)
    names: dict[str, str] = {}
    _removals: dict[tuple[str, str], Removal] = {}

    @property
    def removals(self) -> tuple[Removal, ...]:
        """The removals in the order of files and rules."""
        return tuple(self._removals[key] for key in sorted(self._removals))

    def add_secret(self, value: str) -> None:
        """Remove a value, and each of its lines, wherever it occurs; short values and ordinary words are kept."""
        for part in (value, value.strip(), *value.splitlines()):
            if len(part) >= _MIN_SECRET and part not in _COMMON_WORDS and _BEGIN not in part:
                self.secrets.add(part)

    def find_secrets(self, text: str) -> None:
        """Add the secrets of a configuration, which are removed from the other files."""
        documents = _parse(text)
        if documents is None:
            for value in _guess_values(text):
                self.add_secret(value)
        for document in documents or ():
            _last(self._walk("", document, "", ""))

    def redact_configuration(self, file: str, text: str) -> str:
        """Return a configuration or policy without secrets and comments.

        Of a text that is not YAML, only the keys are kept.
        """
        documents = _parse(text)
        if documents is None:
            self._remove(file, "all values: the file is not YAML", "all lines")
            return self.redact_text(file, "\n".join(map(_keep_key, text.splitlines())) + "\n")
        if re.search(r"(?m)(?:^|\s)#", text):
            self._remove(file, "comments", "all lines")
        cleaned = [_last(self._walk(file, document, "", "")) for document in documents]
        return str(yaml.safe_dump_all(cleaned, sort_keys=False, width=120))

    def redact_document(self, file: str, document: Any) -> str:  # noqa: ANN401 - a document of JSON
        """Return a document as JSON without secrets."""
        cleaned = _last(self._walk(file, document, "", ""))
        return json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n"

    def redact_text(self, file: str, text: str) -> str:
        """Return a text without secrets."""
        return self._redact(file, text, _place_of)

    def redact_log(self, file: str, text: str) -> str:
        """Return a log without secrets: a line that is a JSON object remains one."""
        # Values and keys can have several lines.
        text = self._substitute(file, _PRIVATE_KEY.name, _PRIVATE_KEY.pattern, _PRIVATE_KEY.replace, text, _place_of)
        text = self._redact_secrets(file, text, _place_of)
        lines = []
        for number, line in enumerate(text.split("\n"), 1):
            if not self.names and _HINT.search(line) is None and _KEY_HINT.search(line) is None:
                lines.append(line)
                continue
            document = _parse_line(line)
            if document is None:
                lines.append(self._redact(file, line, lambda _, __, number=number: f"line {number}"))  # type: ignore[misc] # mypy does not know the default
            else:
                cleaned = _last(self._walk(file, document, f"line {number}: ", ""))
                lines.append(json.dumps(cleaned, ensure_ascii=False))
        return "\n".join(lines)

    def _redact(self, file: str, text: str, place: _Place) -> str:
        text = self._redact_secrets(file, text, place)
        for rule in _RULES if _HINT.search(text) is not None else ():
            text = self._substitute(file, rule.name, rule.pattern, rule.replace, text, place, rule.accepts)
        for name in sorted(self.names, key=len, reverse=True):
            if name in text:
                pattern = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-])")
                replacement = self.names[name]
                text = self._substitute(file, "name of a pod", pattern, lambda _: replacement, text, place)  # noqa: B023 - called before the next name
        return text

    def _redact_secrets(self, file: str, text: str, place: _Place) -> str:
        rule = "value of a configuration"
        for secret in sorted(self.secrets, key=len, reverse=True):
            for form in dict.fromkeys((secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])):
                if form in text:
                    pattern = re.compile(re.escape(form))
                    text = self._substitute(file, rule, pattern, lambda _: _marker(rule), text, place)
        return text

    def _substitute(  # noqa: PLR0913, PLR0917 - the parts of a substitution
        self,
        file: str,
        rule: str,
        pattern: re.Pattern[str],
        replace: Callable[["re.Match[str]"], str],
        text: str,
        place: _Place,
        accepts: Callable[["re.Match[str]"], bool] = lambda _: True,
    ) -> str:
        def substitute(match: "re.Match[str]") -> str:
            if not accepts(match):
                return match[0]
            known = self._removals.get((file, rule))
            is_listed = known is None or known.count < MAX_PLACES
            self._remove(file, rule, place(text, match) if is_listed else "")
            return replace(match)

        return pattern.sub(substitute, text)

    def _remove(self, file: str, rule: str, place: str) -> None:
        if file:
            self._removals.setdefault((file, rule), Removal(file, rule)).add(place)

    def _walk(self, file: str, value: Any, path: str, rule: str) -> Iterator[Any]:  # noqa: ANN401 - a value of JSON
        """Yield a value without secrets; ``rule`` is the rule by key that applies to it, or empty."""
        if isinstance(value, Mapping):
            cleaned = {}
            for key, item in value.items():
                inner = f"{path}.{key}" if path and not path.endswith(" ") else f"{path}{key}"
                name = self._redact(file, str(key), lambda _, __: f"key in {path}") if file else key
                cleaned[name] = _last(self._walk(file, item, inner, rule or _rule_of(str(key), item)))
            yield cleaned
        elif isinstance(value, list):
            yield list(self._walk_list(file, value, path, rule))
        elif rule and value is not None and not isinstance(value, bool):
            yield self._clean(file, value, path, rule)
        elif isinstance(value, str) and file:
            yield self._redact(file, value, lambda _, __: path)
        else:
            yield value

    def _walk_list(self, file: str, items: list[Any], path: str, rule: str) -> Iterator[Any]:
        """Yield the items of a list without secrets; an item that follows the name of a secret option is a secret."""
        previous: Any = None
        for number, item in enumerate(items):
            is_value = isinstance(previous, str) and _SECRET_OPTION.match(previous) is not None
            applies = rule or ("secret option" if is_value and isinstance(item, str) else "")
            yield _last(self._walk(file, item, f"{path}[{number}]", applies))
            previous = item

    def _clean(self, file: str, value: Any, path: str, rule: str) -> Any:  # noqa: ANN401 - a scalar of JSON
        text = str(value)
        if _PLAIN_TEMPLATE.match(text):
            return value
        self.add_secret(text)
        self._remove(file, rule, path)
        return _marker(rule)


def _rule_of(key: str, value: Any) -> str:  # noqa: ANN401 - a value of JSON
    """Return the rule that applies to the value of a key, or an empty text."""
    if key in _BY_KEY and isinstance(value, dict | list):
        return _BY_KEY[key]
    is_number = isinstance(value, int | float)
    return "secret name" if not is_number and _SECRET_NAME.search(key) else ""


def _last(values: Iterable[Any]) -> Any:  # noqa: ANN401 - a value of JSON
    return next(iter(values))


def _parse(text: str) -> list[Any] | None:
    """Return the documents of a text, or None if it is not YAML."""
    diagnostics = Diagnostics()
    trees = parse_documents(text, "file", diagnostics, MAX_BUNDLE_FILE_BYTES)
    return None if trees is None or diagnostics.found else [to_python(tree) for tree in trees]


def _parse_line(line: str) -> Any:  # noqa: ANN401 - a JSON object, or None
    """Return the JSON object that a line of a log consists of, or None."""
    if not line.startswith("{"):
        return None
    try:
        document = parse_json(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _guess_values(text: str) -> Iterator[str]:
    """Yield the values of variables, annotations and headers in a text that is not YAML."""
    level: int | None = None
    for line in text.splitlines():
        found = _BLOCK.match(line)
        indent = len(line) - len(line.lstrip())
        if level is not None and line.strip() and indent <= level:
            level = None
        starts = found is not None and found["key"] in _BY_KEY
        if found is not None and starts:
            level = indent
        if level is not None or _SECRET_NAME.search(line):
            text_of_line = found["rest"] if found is not None and starts else line
            yield from (match["value"].strip("\"'") for match in _PAIR.finditer(text_of_line))


def _keep_key(line: str) -> str:
    """Return the key of a line, or a marker if it has none."""
    if not line.strip():
        return ""
    found = re.match(r"\s*(?:- )*[\"']?[\w./*-]{1,80}[\"']?:(?=\s|\Z)", line)
    is_secret = found is None or _SECRET_NAME.search(found[0]) is not None
    return f"{found[0]} {_marker('value')}" if found is not None and not is_secret else _marker("line")
