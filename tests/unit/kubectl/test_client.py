"""The client that runs kubectl: limits, errors, and lists that are read object by object."""

import asyncio
import os
from pathlib import Path

import pytest

from genplug.kubectl.client import Cause, Kubectl, KubectlError
from genplug.kubectl.json_values import JSON
from tests.support.kubectl import KubectlStandIn, make_node
from tests.support.processes import wait_for_process_end


def client_of(kubectl: KubectlStandIn, *options: str, concurrency: int = 32) -> Kubectl:
    return Kubectl(str(kubectl.program), options, concurrency)


def name_of(item: JSON) -> str:
    return str(item["metadata"]["name"])


async def test_list_has_each_object(kubectl: KubectlStandIn) -> None:
    names = [f"node-{number}" for number in range(300)]
    kubectl.list("nodes", *map(make_node, names))
    assert await client_of(kubectl).list_objects(name_of, "get", "nodes") == names


async def test_empty_list_has_no_objects(kubectl: KubectlStandIn) -> None:
    kubectl.list("nodes")
    assert await client_of(kubectl).list_objects(name_of, "get", "nodes") == []


async def test_options_precede_the_arguments(kubectl: KubectlStandIn) -> None:
    kubectl.list("nodes")
    await client_of(kubectl, "--context=test").list_objects(name_of, "get", "nodes")
    assert kubectl.calls() == ["--context=test get nodes -o json"]


async def test_missing_program_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(KubectlError, match="no such program; install kubectl, or pass its path") as caught:
        await Kubectl(str(tmp_path / "kubectl")).get_json("get", "node", "a")
    assert caught.value.cause is Cause.MISSING


@pytest.mark.parametrize(
    ("stderr", "cause"),
    [
        ('Error from server (Forbidden): nodes is forbidden: User "x" cannot list resource', Cause.FORBIDDEN),
        ('error: unable to upgrade connection: pods "a" is forbidden: User "x" cannot', Cause.FORBIDDEN),
        ('Error from server (NotFound): pods "x" not found', Cause.NOT_FOUND),
        ("error: You must be logged in to the server (Unauthorized)", Cause.UNAUTHORIZED),
        ("The connection to the server localhost:8080 was refused", Cause.UNREACHABLE),
        ("error: something else", Cause.FAILED),
    ],
)
async def test_error_has_the_command_the_text_and_the_cause(kubectl: KubectlStandIn, stderr: str, cause: Cause) -> None:
    kubectl.answer("get nodes", stderr=f"E1127 17:22:17.123456    42 memcache.go:265] retry\n{stderr}", code=1)
    with pytest.raises(KubectlError) as caught:
        await client_of(kubectl).list_objects(name_of, "get", "nodes")
    assert str(caught.value) == f"`{kubectl.program} get nodes -o json` failed: {stderr}; {cause.value}"


async def test_call_that_hangs_is_killed_with_its_children(kubectl: KubectlStandIn) -> None:
    child = kubectl.directory / "child"
    kubectl.run("get nodes", f"sleep 3600 & echo $! > {child}; wait")
    with pytest.raises(KubectlError, match=r"did not end within 0\.5 s"):
        await client_of(kubectl).list_objects(name_of, "get", "nodes", seconds=0.5)
    pid = int(child.read_text())
    await wait_for_process_end(pid)


async def test_call_that_is_cancelled_is_killed(kubectl: KubectlStandIn) -> None:
    pid_file = kubectl.directory / "pid"
    os.mkfifo(pid_file)
    kubectl.run("get nodes", f"echo $$ > {pid_file}; exec sleep 3600")
    task = asyncio.create_task(client_of(kubectl).list_objects(name_of, "get", "nodes"))
    pid = int(await asyncio.to_thread(pid_file.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_for_process_end(pid)


@pytest.mark.parametrize(
    ("start", "repeated", "expected"),
    [
        ("", "x", "expected a JSON list, found 'x"),
        ('{"items": [', "{},", "printed more than 1000000 bytes"),
        ('{"items": [{"a": "', "x", "an item has more than"),
    ],
)
async def test_endless_output_is_an_error(kubectl: KubectlStandIn, start: str, repeated: str, expected: str) -> None:
    kubectl.print_endlessly("get nodes", start, repeated)
    limit = 1_000_000 if "bytes" in expected else 1 << 30
    with pytest.raises(KubectlError, match=expected):
        await client_of(kubectl).list_objects(len, "get", "nodes", max_bytes=limit)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("", "no output"),
        ("<html>", "expected a JSON list, found '<html>'"),
        ('{"kind": "Node"}', "expected a JSON list"),
        ('{"items": [{"a": 1}, {"b": ', "the list is incomplete"),
        ('{"items": [1]}', "an item of type int"),
        ('{"items": [nonsense', "expected an object, found 'nonsense'"),
        ('{"items": [' + 100_000 * '{"a":' + "]}", "an item has too many levels"),
    ],
)
async def test_output_that_is_not_a_list_is_an_error(kubectl: KubectlStandIn, output: str, expected: str) -> None:
    kubectl.answer("get nodes", output)
    with pytest.raises(KubectlError, match=expected) as caught:
        await client_of(kubectl).list_objects(len, "get", "nodes")
    assert caught.value.cause is Cause.INVALID


@pytest.mark.parametrize("output", ["", "x", "[]", 100_000 * "["])
async def test_output_that_is_not_an_object_is_an_error(kubectl: KubectlStandIn, output: str) -> None:
    kubectl.answer("get node", output)
    with pytest.raises(KubectlError, match="expected a JSON object, found"):
        await client_of(kubectl).get_json("get", "node", "a")


async def test_endless_document_is_an_error(kubectl: KubectlStandIn) -> None:
    kubectl.print_endlessly("get node")
    with pytest.raises(KubectlError, match="printed more than 1000 bytes; restrict the request"):
        await client_of(kubectl).run("get", "node", max_bytes=1000)


async def test_endless_stderr_is_read_and_shortened(kubectl: KubectlStandIn) -> None:
    kubectl.run("get node", "head -c 2000000 /dev/zero | tr '\\0' 'x' >&2; printf '\\nlast line\\n' >&2; exit 1")
    output = await client_of(kubectl).run("get", "node")
    assert output.code == 1
    assert len(output.stderr) <= 400


async def test_calls_at_the_same_time_are_limited(kubectl: KubectlStandIn) -> None:
    running, peak = kubectl.directory / "running", kubectl.directory / "peak"
    running.mkdir()
    count = f"mkdir {running}/$$; ls {running} | wc -l >> {peak}; sleep 0.02; rmdir {running}/$$"
    kubectl.run("get node", count)
    limited = client_of(kubectl, concurrency=3)
    await asyncio.gather(*(limited.run("get", "node", str(number)) for number in range(12)))
    assert max(map(int, peak.read_text().split())) <= 3
    assert len(kubectl.calls()) == 12
