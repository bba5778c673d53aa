"""Secrets are removed from each kind of file, and the list of removals has the place and never the value."""

import io
import json
import tarfile

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from genplug.bundle.archive import pack_files, redact_capture
from genplug.bundle.contents import MANIFEST, REMOVED, Kind, Part, build_bundle
from genplug.bundle.redaction import MAX_PLACES, Redactor
from genplug.spec.limits import MAX_BUNDLE_FILE_BYTES

CONFIG = """\
# planted-comment
apiVersion: genplug.io/v1alpha1
kind: DevicePluginConfig
resources:
  a.example/x:
    devices: [{glob: /dev/x}]
    tokens: 10
    allocate:
      env: {API: planted-value, PATHS: "${path}", DEF: "${name|default:planted-default}", EACH: {each: planted-each}}
      annotations: {a.example/key: planted-annotation}
    preStart: {exec: {command: [/opt/reset, --api-token, planted-argument, "--password=planted-option", "${path}"]}}
    health:
      probes:
      - http: {url: "http://planted-user:planted-pw@127.0.0.1:1/a?access_key=planted-query&b=1"}
      - http: {url: "http://127.0.0.1:1/", headers: {X-Any: planted-header}}
"""
FORMS = {
    "Authorization: Bearer planted.abc-123456789": "header",
    'curl -H "Authorization: Digest username=planted, response=planted2" x': "header",
    "X-Api-Key: planted-12345": "header",
    "Set-Cookie: sid=planted; path=/": "header",
    "sent bearer planted0123456789": "token",
    "jwt eyJhbGciOiJIUzI1NiJ9.eyJwbGFudGVkIjoxfQ.planted-sig": "token",
    "key AKIAPLANTED12345678 in use": "token",
    "ghp_planted0123456789abcdef": "token",
    "glpat-planted0123456789": "token",
    "AIzaPlantedPlantedPlantedPlantedPlanted": "token",
    "https://planted:planted@registry.example/v2": "user name in a URL",
    "https://planted-token@registry.example/v2": "user name in a URL",
    "password=planted": "secret name",
    'DB_PASSWORD="planted with spaces"': "secret name",
    "client_secret: 'planted'": "secret name",
    'message {\\"token\\": \\"planted\\"}': "secret name",
    "run --db-password planted --verbose": "secret option",
    "-----BEGIN RSA PRIVATE KEY-----\nplanted\nplanted==\n-----END RSA PRIVATE KEY-----": "private key",
    "-----BEGIN OPENSSH PRIVATE KEY-----\\nplanted\\n-----END OPENSSH PRIVATE KEY-----": "private key",
}


def is_clean(text: str) -> bool:
    return "planted" not in text.lower()


def rules_of(redactor: Redactor) -> set[str]:
    return {removal.rule for removal in redactor.removals}


def test_configuration_keeps_its_structure_without_secrets() -> None:
    redactor = Redactor()
    cleaned = redactor.redact_configuration("genplug.yaml", CONFIG)
    assert is_clean(cleaned)
    resource = yaml.safe_load(cleaned)["resources"]["a.example/x"]
    assert resource["tokens"] == 10
    assert resource["allocate"]["env"]["PATHS"] == "${path}"
    assert resource["allocate"]["env"]["API"] == "[removed: environment variable]"
    assert resource["preStart"]["exec"]["command"][-1] == "${path}"
    assert resource["health"]["probes"][0]["http"]["url"].endswith("&b=1")
    assert rules_of(redactor) == {
        *("comments", "environment variable", "annotation", "header", "secret name", "secret option"),
        "user name in a URL",
    }
    (removal,) = [removal for removal in redactor.removals if removal.rule == "annotation"]
    assert removal.places == ["resources.a.example/x.allocate.annotations.a.example/key"]


@pytest.mark.parametrize("text", FORMS)
def test_secret_of_a_form_is_removed_from_texts_logs_and_documents(text: str) -> None:
    rule = FORMS[text]
    line = f"before {text}\nafter"
    for redact in (Redactor.redact_text, Redactor.redact_log):
        redactor = Redactor()
        cleaned = redact(redactor, "log.txt", line)
        assert is_clean(cleaned), cleaned
        assert cleaned.startswith("before ")
        assert cleaned.endswith("after")
        assert rule in rules_of(redactor)
        assert redactor.removals[0].places == ["line 1"]
    redactor = Redactor()
    document = json.loads(redactor.redact_document("status.json", {"a": [text], text: 1}))
    assert is_clean(json.dumps(document))
    assert "a[0]" in [place for removal in redactor.removals for place in removal.places]
    redactor = Redactor()
    log = redactor.redact_log("log.txt", json.dumps({"level": "info", "message": text}) + "\n")
    assert is_clean(log)
    assert json.loads(log)["level"] == "info"


@pytest.mark.parametrize(
    "text",
    [
        'genplug_tokens{resource="a.io/x"} 10\n',
        "tokens: 10\nreplicas: 4\n",
        "http://127.0.0.1:9808/metrics\n",
        "a.io/x: 4 tokens: all healthy\n",
        "# HELP genplug_devices Devices of a resource by state.\n",
        "device /dev/ttyUSB0 (char 188:0) at usb 1-1.2\n",
    ],
)  # fmt: skip
def test_text_without_secrets_is_unchanged(text: str) -> None:
    redactor = Redactor()
    assert redactor.redact_text("a.txt", text) == text
    assert redactor.removals == ()


def test_removals_are_counted_and_the_first_places_are_listed() -> None:
    redactor = Redactor()
    redactor.redact_text("a.txt", "password=planted\n" * 50)
    (removal,) = redactor.removals
    assert (removal.count, removal.places) == (50, [f"line {number}" for number in range(1, MAX_PLACES + 1)])


def test_key_of_a_log_line_is_removed_without_other_hints() -> None:
    cleaned = Redactor().redact_log("log.txt", '{"m": "x", "headers": {"X-Any": "planted-1"}}')
    assert json.loads(cleaned) == {"m": "x", "headers": {"X-Any": "[removed: header]"}}


def test_value_of_a_variable_is_removed_from_other_files() -> None:
    other = yaml.safe_dump({"resources": {"a": {"allocate": {"env": {"A": 'multi-planted "q"\n"planted-q"'}}}}})
    parts = [
        Part("log.txt", "log", Kind.LOG, b'container got planted-value and multi-planted "q"\nok\n'),
        Part("plan.txt", "plan", Kind.TEXT, b"API=planted-value"),
        Part("status.json", "status", Kind.DOCUMENT, json.dumps({"reason": 'x planted-value "planted-q"'}).encode()),
        Part("genplug.yaml", "configuration", Kind.CONFIGURATION, CONFIG.encode()),
        Part("other.yaml", "b", Kind.CONFIGURATION, other.encode()),
    ]  # fmt: skip
    bundle = build_bundle(parts, Redactor())
    contents = {file.name: file.content.decode() for file in bundle.files}
    assert all(map(is_clean, contents.values())), contents
    assert contents["log.txt"].endswith("\nok\n")


@pytest.mark.parametrize(
    "text",
    [
        "resources:\n  a.io/x:\n  allocate:\n     env:\n      A: planted-1\n     B: [planted-2\n    x: planted-3\n",
        "a: b: planted-1\n# planted-2\n- planted-3\npassword planted-4\n",
        "resources: {a.io/x: {allocate: {env: {A: planted-1, B: 'planted-2'}}\n",
    ],
)
def test_configuration_that_is_not_yaml_keeps_its_keys_only(text: str) -> None:
    redactor = Redactor()
    cleaned = redactor.redact_configuration("genplug.yaml", text)
    assert is_clean(cleaned)
    assert len(cleaned.splitlines()) == len(text.splitlines())
    assert rules_of(redactor) == {"all values: the file is not YAML"}


def test_variable_of_an_invalid_configuration_is_removed_from_other_files() -> None:
    text = "resources:\n  a.io/x:\n    allocate:\n      env:\n        A: planted-value\n    devices: [\n"
    parts = [
        Part("genplug.yaml", "configuration", Kind.CONFIGURATION, text.encode()),
        Part("validate.txt", "errors", Kind.TEXT, b"    5 |         A: planted-value"),
    ]
    assert all(is_clean(file.content.decode()) for file in build_bundle(parts, Redactor()).files)


def test_names_of_pods_are_replaced_consistently() -> None:
    redactor = Redactor(names={"team/job-7": "namespace-1/pod-1", "job-7": "pod-1", "team": "namespace-1"})
    assert redactor.redact_text("a", "team/job-7 uses x, job-7-worker and myjob-7 do not") == (
        "namespace-1/pod-1 uses x, job-7-worker and myjob-7 do not"
    )


def build_capture(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.pax_headers = {"GENPLUG.kind": "socket"} if name.endswith(".sock") else {}
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("dev/link")
        link.type, link.linkname = tarfile.SYMTYPE, "x-planted-value"
        archive.addfile(link)
    return buffer.getvalue()


def test_capture_is_an_archive_without_secrets() -> None:
    redactor = Redactor(secrets={"planted-value"})
    content = {"proc/cmdline": b"ro x=planted-value q\xff", "run/a.sock": b"", "sys/bin": bytes(range(256))}
    cleaned = redact_capture("node.tar.gz", build_capture(content), redactor)
    with tarfile.open(fileobj=io.BytesIO(cleaned)) as archive:
        found = {member.name: member for member in archive}
        assert archive.extractfile("proc/cmdline").read() == b"ro x=[removed: value of a configuration] q\xff"  # type: ignore[union-attr]
        assert archive.extractfile("sys/bin").read() == bytes(range(256))  # type: ignore[union-attr]
    assert found["run/a.sock"].pax_headers == {"GENPLUG.kind": "socket"}
    assert is_clean(found["dev/link"].linkname)
    assert {removal.file for removal in redactor.removals} == {"node.tar.gz/proc/cmdline", "node.tar.gz/dev/link"}


def test_part_that_cannot_be_cleaned_is_missing_with_a_reason() -> None:
    parts = [
        Part("node.tar.gz", "capture", Kind.CAPTURE, b"planted"),
        Part("status.json", "status", Kind.DOCUMENT, b"{planted"),
        Part("plan.txt", "plan", Kind.TEXT, b"x" * (MAX_BUNDLE_FILE_BYTES + 1)),
        Part("log.txt", "log", Kind.LOG, error="no response from http://planted:planted@h/"),
    ]
    bundle = build_bundle(parts, Redactor())
    assert [file.name for file in bundle.missing] == ["node.tar.gz", "status.json", "plan.txt", "log.txt"]
    with tarfile.open(fileobj=io.BytesIO(bundle.pack())) as archive:
        assert archive.getnames() == [f"genplug-bundle/{name}" for name in (MANIFEST, REMOVED)]
        assert all(member.mode == 0o600 and member.mtime == 0 for member in archive)
        manifest = json.load(archive.extractfile(f"genplug-bundle/{MANIFEST}"))  # type: ignore[arg-type]
    assert is_clean(json.dumps(manifest))
    assert all(entry["error"] for entry in manifest["files"] if entry["sha256"] is None)


def test_equal_files_give_equal_archives() -> None:
    files = {"b.txt": b"1", "a.txt": b"2"}
    assert pack_files(files) == pack_files(dict(files))


@settings(max_examples=100, deadline=None)
@given(
    secret=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=6, max_size=30),
    around=st.text(max_size=40),
)
def test_value_of_any_variable_is_in_no_file(secret: str, around: str) -> None:
    secret = f"pl4nted{secret}"
    config = yaml.safe_dump({"resources": {"a.io/x": {"allocate": {"env": {"A": secret}}}}}, allow_unicode=True)
    text = f"{around}{secret}{around}"
    parts = [
        Part("genplug.yaml", "configuration", Kind.CONFIGURATION, config.encode()),
        Part("plan.txt", "plan", Kind.TEXT, text.encode("utf-8", "replace")),
        Part("status.json", "status", Kind.DOCUMENT, json.dumps({"a": [text]}).encode()),
        Part("log.txt", "log", Kind.LOG, (json.dumps({"m": text}) + "\n" + text).encode("utf-8", "replace")),
    ]
    bundle = build_bundle(parts, Redactor())
    assert not [file for file in bundle.files if b"pl4nted" in file.content]
