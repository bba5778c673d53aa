"""The rules of a policy in a request to a worker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genplug.health.request_rules import RequestRules, add_rules, split_rules

DEFAULT = RequestRules("the default policy", ("127.0.0.0/8",))

texts = st.text(st.characters(exclude_characters="\0"), max_size=5)


@given(st.text(min_size=1), texts, st.lists(texts), st.lists(texts))
def test_worker_gets_the_rules_and_arguments_of_a_request(
    kind: str, policy: str, entries: list[str], arguments: list[str]
) -> None:
    request = add_rules((kind, *arguments), policy, entries)
    assert request[0] == kind
    assert split_rules(request, DEFAULT) == (RequestRules(policy, tuple(entries)), tuple(arguments))


@pytest.mark.parametrize("arguments", [(), ("",), ("a",), ("a", "\0b")])
def test_request_without_rules_has_the_default_rules(arguments: tuple[str, ...]) -> None:
    assert split_rules(("http", *arguments), DEFAULT) == (DEFAULT, arguments)


@pytest.mark.parametrize(
    ("entries", "allowed"), [((), "nothing"), (("::1",), "::1"), (("127.0.0.0/8", "::1"), "127.0.0.0/8, ::1")]
)
def test_refusal_names_the_rule_the_policy_and_its_entries(entries: tuple[str, ...], allowed: str) -> None:
    refusal = RequestRules("policy.yaml", entries).describe_refusal("http.allow")
    assert refusal == f"refused by 'http.allow' of policy.yaml, which allows {allowed}"
