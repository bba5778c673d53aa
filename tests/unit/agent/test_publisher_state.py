"""The decisions of the publisher: order, limits of writes, pauses after errors, with a simulated time."""

from collections.abc import Callable, Sequence
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from genplug.agent.publisher_actions import (
    CloseWatch,
    ListSlices,
    Notice,
    OpenWatch,
    ProbeTaints,
    ReadNode,
    WriteSlice,
)
from genplug.agent.publisher_decision import Decision, decide
from genplug.agent.publisher_events import (
    ActionFailed,
    NodeRead,
    PublisherEvent,
    RegistrationChanged,
    SliceSeen,
    SlicesListed,
    SliceWritten,
    TaintsProbed,
    WantedChanged,
    WatchEnded,
    WatchOpened,
)
from genplug.agent.publisher_state import Phase, PublisherState, Registration
from genplug.agent.publisher_status import PoolStatus, build_status
from genplug.agent.publisher_transitions import apply_event
from genplug.allocation.published import PublishedResource
from genplug.allocation.slice_plan import CreateSlice, DeleteSlice, UpdateSlice
from genplug.allocation.slices import (
    ActualSlice,
    SliceScope,
    WantedPool,
    build_pool,
    read_slice,
    slice_document,
)
from genplug.cluster.errors import ApiError, NotConnectedError, UnreachableError
from genplug.observe.events import Event
from tests.support.api_server import DRIVER, NODE, publish

SCOPE = SliceScope(DRIVER, NODE, "uid-1")


def build(*resources: PublishedResource) -> tuple[WantedPool, ...]:
    return tuple(build_pool(resource, SCOPE) for resource in resources)


class Simulation:
    """A publisher with a clock and an API server in memory."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.state = PublisherState()
        self.slices: dict[str, ActualSlice] = {}
        self.notices: list[Notice] = []
        self.actions: list[tuple[float, str]] = []
        self.keeps_taints = True
        self.fail: Callable[[object], Exception | None] = lambda _action: None
        self.effect_of_failure = False
        self._versions = count(100)

    def apply(self, event: PublisherEvent) -> None:
        self.state, notices = apply_event(self.state, event, self.now, 0.0)
        self.notices += notices

    def start(self, *resources: PublishedResource) -> None:
        self.apply(WantedChanged(build(*resources)))
        self.apply(RegistrationChanged(Registration.REGISTERED))
        self.run()

    def want(self, *resources: PublishedResource) -> None:
        self.apply(WantedChanged(build(*resources)))
        self.run()

    def decide(self) -> Decision:
        decision = decide(self.state, self.now)
        self.state = decision.state
        self.notices += decision.notices
        return decision

    def run(self, seconds: float = 0.0) -> None:
        """Perform actions for a time."""
        end = self.now + seconds
        for _ in range(5000):
            decision = self.decide()
            if decision.action is not None:
                self.perform(decision.action)
            elif decision.due <= end:
                self.now = max(decision.due, self.now)
            else:
                self.now = end
                return
        raise AssertionError("the publisher does not rest")

    def perform(self, action: object) -> None:
        self.actions.append((self.now, type(action).__name__))
        error = self.fail(action)
        if error is None or (self.effect_of_failure and isinstance(action, WriteSlice)):
            self._perform(action, is_answered=error is None)
        if error is not None:
            assert isinstance(action, ReadNode | ListSlices | OpenWatch | WriteSlice | ProbeTaints)
            self.apply(ActionFailed(action, error))

    def next_version(self) -> str:
        return str(next(self._versions))

    def count(self, name: str) -> int:
        return sum(action == name for _, action in self.actions)

    def delete(self, name: str) -> None:
        del self.slices[name]
        self.apply(SliceSeen(name, None, self.next_version()))

    def edit(self, name: str) -> None:
        edited = replace(
            self.slices[name], content="edited", resource_version=self.next_version(), writer="kubectl-edit"
        )
        self.slices[name] = edited
        self.apply(SliceSeen(name, edited, edited.resource_version))

    def _perform(self, action: object, *, is_answered: bool) -> None:
        match action:
            case ReadNode():
                self.apply(NodeRead(SCOPE))
            case ListSlices():
                self.apply(SlicesListed(dict(self.slices), self.next_version()))
            case OpenWatch():
                self.apply(WatchOpened())
            case CloseWatch():
                pass
            case ProbeTaints():
                self.apply(TaintsProbed(self.keeps_taints))
            case WriteSlice(DeleteSlice(name=name) as write):
                self.slices.pop(name, None)
                if is_answered:
                    self.apply(SliceWritten(write, None))
            case WriteSlice(CreateSlice() | UpdateSlice() as write):
                document = slice_document(SCOPE, write.pool, write.part, write.generation, uid=f"uid-of-{write.name}")
                document["metadata"] |= {"resourceVersion": self.next_version()}
                if not self.keeps_taints:
                    for device in document["spec"]["devices"]:
                        device.pop("taints", None)
                self.slices[write.name] = read_slice(document)
                if is_answered:
                    self.apply(SliceWritten(write, document))

    @property
    def contents(self) -> list[str]:
        return [self.slices[name].content for name in sorted(self.slices)]


def contents(*resources: PublishedResource) -> list[str]:
    parts = [part for pool in build(*resources) for part in pool.slices]
    return [part.content for part in sorted(parts, key=lambda part: part.name)]


@pytest.fixture
def simulation() -> Simulation:
    return Simulation()


def test_publisher_without_a_resource_does_nothing(simulation: Simulation) -> None:
    simulation.apply(WantedChanged(None))
    simulation.apply(RegistrationChanged(Registration.REGISTERED))
    simulation.run(1000)
    assert simulation.actions == []
    assert simulation.state.phase is Phase.IDLE


def test_nothing_is_published_before_the_kubelet_has_registered_the_driver(simulation: Simulation) -> None:
    simulation.apply(WantedChanged(build(publish(3))))
    simulation.run(1000)
    assert simulation.actions == []
    assert simulation.state.phase is Phase.WAIT_KUBELET
    simulation.apply(RegistrationChanged(Registration.REGISTERED))
    simulation.run()
    names = [name for _, name in simulation.actions]
    assert names == ["ReadNode", "ListSlices", "OpenWatch", "WriteSlice"]
    assert simulation.state.is_synced


def test_resources_with_1000_devices_are_published_with_few_requests_dra_01(simulation: Simulation) -> None:
    resources = [publish(100, resource=f"example.com/x{number}") for number in range(10)]
    simulation.start(*resources)
    assert simulation.contents == contents(*resources)
    assert len(simulation.slices) == 20
    assert len(simulation.actions) <= 40
    assert simulation.now == 1000.0
    assert [notice.event for notice in simulation.notices] == [Event.SLICES_PUBLISHED]
    assert "20 ResourceSlices with 1000 devices of 10 resources" in simulation.notices[0].text
    assert simulation.notices[0].facts == {"slices": 20, "devices": 1000, "seconds": 0.0}


def test_first_change_is_written_at_once_and_the_next_after_a_second(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.now += 5
    simulation.want(publish(3, value=1))
    assert simulation.contents == contents(publish(3, value=1))
    simulation.now += 0.2
    simulation.want(publish(3, value=2))
    assert simulation.contents == contents(publish(3, value=1))
    simulation.now += 0.2
    simulation.want(publish(3, value=3))
    simulation.run(0.7)
    assert simulation.contents == contents(publish(3, value=3))
    assert simulation.count("WriteSlice") == 3


def test_device_that_flaps_100_times_in_10_seconds_causes_at_most_12_writes_dra_19(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(100)
    before = simulation.count("WriteSlice")
    for number in range(100):
        simulation.want(publish(3, tainted=frozenset({number % 2})))
        simulation.run(0.1)
    simulation.run(60)
    assert simulation.count("WriteSlice") - before <= 12
    assert simulation.contents == contents(publish(3, tainted=frozenset({1})))


def test_slice_that_changes_for_two_minutes_is_written_slowly_after_ten_writes(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(100)
    before = simulation.count("WriteSlice")
    for number in range(600):
        simulation.want(publish(3, value=number))
        simulation.run(0.2)
    assert simulation.count("WriteSlice") - before <= 30


def test_slice_that_appears_and_disappears_is_limited_too(simulation: Simulation) -> None:
    simulation.start(publish(1))
    simulation.run(100)
    before = simulation.count("WriteSlice")
    for number in range(100):
        simulation.want(publish(number % 2))
        simulation.run(0.1)
    simulation.run(60)
    assert simulation.count("WriteSlice") - before <= 12
    assert simulation.contents == contents(publish(1))


@pytest.mark.parametrize(("change", "text"), [("delete", "was deleted"), ("edit", "was changed by kubectl-edit")])
def test_slice_that_another_client_changes_is_written_again(simulation: Simulation, change: str, text: str) -> None:
    simulation.start(publish(3))
    simulation.run(10)
    simulation.notices.clear()
    (name,) = simulation.slices
    getattr(simulation, change)(name)
    simulation.run()
    assert simulation.contents == contents(publish(3))
    (notice,) = simulation.notices
    assert notice.event is Event.SLICES_RESTORED
    assert text in notice.text


def test_client_that_changes_a_slice_all_the_time_is_reported_with_each_write(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(10)
    [name] = simulation.slices
    for times in (1, 2):
        for _ in range(100):
            simulation.edit(name)
        simulation.run(10)
        assert simulation.contents == contents(publish(3))
        assert [notice.event for notice in simulation.notices].count(Event.SLICES_RESTORED) == times


def test_uid_of_the_node_is_read_again_after_a_slice_was_deleted(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(10)
    (name,) = simulation.slices
    simulation.delete(name)
    simulation.run()
    assert [action for _, action in simulation.actions][-2:] == ["ReadNode", "WriteSlice"]


def test_events_of_own_writes_change_nothing(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(10)
    simulation.notices.clear()
    ((name, found),) = simulation.slices.items()
    older = replace(found, resource_version="1", content="before")
    for event in (older, found):
        simulation.apply(SliceSeen(name, event, event.resource_version))
    simulation.apply(SliceSeen(name, None, "2"))
    simulation.apply(SliceSeen("", None, "999"))
    before = len(simulation.actions)
    simulation.run()
    assert len(simulation.actions) == before
    assert simulation.notices == []
    assert simulation.state.resource_version == "999"


def test_own_change_that_the_watch_sends_before_the_answer_is_not_restored(simulation: Simulation) -> None:
    simulation.apply(WantedChanged(build(publish(3))))
    simulation.apply(RegistrationChanged(Registration.REGISTERED))
    for _ in range(3):
        action = simulation.decide().action
        assert action is not None
        simulation.perform(action)
    sending = simulation.decide().action
    assert isinstance(sending, WriteSlice)
    assert isinstance(sending.write, CreateSlice)
    foreign = ActualSlice(sending.write.name, "u", "500", DRIVER, NODE, sending.write.pool.name, 1, 1, "changed", ())
    simulation.apply(SliceSeen(foreign.name, foreign, "500"))
    assert simulation.notices == []


def test_dropped_taints_are_reported_once_and_the_devices_are_left_out(simulation: Simulation) -> None:
    simulation.keeps_taints = False
    simulation.start(publish(3, tainted=frozenset({1})))
    assert not simulation.state.keeps_taints
    simulation.run(10)
    simulation.want(publish(2, tainted=frozenset({1})))
    events = [notice.event for notice in simulation.notices]
    assert events.count(Event.TAINTS_DROPPED) == 1
    assert simulation.count("WriteSlice") == 2


def test_unhealthy_devices_are_left_out_immediately_after_taints_were_dropped(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(10)
    simulation.keeps_taints = False
    dropped_at = simulation.now
    simulation.want(publish(3, tainted=frozenset({1})))
    assert not simulation.state.keeps_taints
    simulation.want(publish(2))
    assert [time for time, action in simulation.actions if action == "WriteSlice"][-2:] == [dropped_at, dropped_at]
    # The pause between writes applies again.
    simulation.want(publish(1))
    assert simulation.contents == contents(publish(2))


UNREACHABLE = UnreachableError("no answer from the API server")
NOT_CONNECTED = NotConnectedError("cannot connect to the API server")


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (NOT_CONNECTED, 3.0),
        (UNREACHABLE, 30.0),
        (ApiError("list", 500), 60.0),
        (ApiError("list", 401), 60.0),
        (ApiError("list", 409), 60.0),
        (ApiError("list", 410), 60.0),
    ],
)
def test_pauses_after_failures_grow_to_a_limit(simulation: Simulation, error: Exception, limit: float) -> None:
    simulation.fail = lambda action: error if isinstance(action, ListSlices) else None
    simulation.start(publish(3))
    simulation.run(1000)
    times = [at for at, name in simulation.actions if name == "ListSlices"]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[-1] == limit
    assert pauses == sorted(pauses)
    assert [notice.event for notice in simulation.notices] == [Event.API_SERVER_AWAY]
    simulation.fail = lambda _action: None
    simulation.run(limit + 10)
    assert simulation.contents == contents(publish(3))
    assert (simulation.state.failures, simulation.state.error) == (0, "")


def test_errors_of_a_server_that_returns_have_short_pauses_first_dra_17(simulation: Simulation) -> None:
    simulation.fail = lambda action: NOT_CONNECTED if isinstance(action, ListSlices) else None
    simulation.start(publish(3))
    simulation.run(300)
    simulation.fail = lambda action: ApiError("list", 503) if isinstance(action, ListSlices) else None
    returned = simulation.now
    simulation.run(35)
    times = [at for at, name in simulation.actions if name == "ListSlices" and at > returned]
    assert [later - earlier for earlier, later in pairwise(times)] == [4.0, 8.0, 16.0]


@pytest.mark.parametrize("action_type", [ListSlices, WriteSlice])
def test_server_that_returns_without_rights_is_asked_again_soon_dra_17(
    simulation: Simulation, action_type: type[ListSlices | WriteSlice]
) -> None:
    """A started API server answers 403 until it has read the roles."""
    simulation.fail = lambda action: NOT_CONNECTED if isinstance(action, ListSlices) else None
    simulation.start(publish(3))
    simulation.run(300)
    simulation.fail = lambda action: ApiError("list", 403) if isinstance(action, action_type) else None
    simulation.run(6)
    simulation.fail = lambda _action: None
    simulation.run(4)
    assert simulation.contents == contents(publish(3))
    assert [notice.event for notice in simulation.notices] == [Event.API_SERVER_AWAY, Event.SLICES_PUBLISHED]


@pytest.mark.parametrize("action_type", [ListSlices, WriteSlice])
def test_server_that_returned_long_ago_without_rights_is_asked_every_minute(
    simulation: Simulation, action_type: type[ListSlices | WriteSlice]
) -> None:
    simulation.fail = lambda action: NOT_CONNECTED if isinstance(action, ListSlices) else None
    simulation.start(publish(3))
    simulation.run(300)
    simulation.fail = lambda action: ApiError("list", 403) if isinstance(action, action_type) else None
    simulation.run(60)
    assert [notice.event for notice in simulation.notices] == [Event.API_SERVER_AWAY, Event.SLICES_REFUSED]
    requests = simulation.count(action_type.__name__)
    simulation.run(600)
    assert simulation.count(action_type.__name__) - requests == 10


def test_forbidden_requests_are_repeated_at_most_twice_a_minute_dra_18(simulation: Simulation) -> None:
    error = ApiError("create resourceslices/a", 403, message="no rights")
    simulation.fail = lambda action: error if isinstance(action, WriteSlice) else None
    simulation.start(publish(3))
    before = simulation.count("WriteSlice")
    simulation.run(600)
    assert simulation.count("WriteSlice") - before <= 20
    (notice,) = simulation.notices
    assert notice.event is Event.SLICES_REFUSED
    assert "no rights. Grant the verbs of the chart to the service account" in notice.text


@pytest.mark.parametrize("status", [403, 422])
@pytest.mark.parametrize(
    "message",
    [
        "slices \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: other driver",
        "ValidatingAdmissionPolicy 'p' denied request: other driver",
        'admission webhook "w.example.com" denied the request: other driver',
    ],
)
def test_denial_of_an_admission_policy_is_retried_like_missing_rights(
    simulation: Simulation, status: int, message: str
) -> None:
    error = ApiError("create resourceslices/a", status, reason="Invalid", message=message)
    simulation.fail = lambda action: error if isinstance(action, WriteSlice) else None
    simulation.start(publish(3))
    (notice,) = simulation.notices
    assert "other driver. Correct this admission policy or webhook: it must allow" in notice.text
    found = build_status(simulation.state, simulation.now)
    # A policy concerns all resources, and not the content of this one.
    assert (found.error, found.retry_seconds) == (found.pools[0].refusal, 60.0)
    simulation.fail = lambda _action: None
    simulation.run(61)
    assert len(simulation.slices) == 1


def test_invalid_slice_is_no_denial() -> None:
    assert not ApiError(
        "create", 422, reason="Invalid", message="spec.devices[0].name: Invalid value: denied"
    ).is_denied


def test_pause_that_the_server_requests_is_kept(simulation: Simulation) -> None:
    error = ApiError("list", 429, retry_after=17)
    simulation.fail = lambda action: error if isinstance(action, ListSlices) else None
    simulation.start(publish(3))
    times = [at for at, name in simulation.actions if name == "ListSlices"]
    simulation.run(16)
    assert len([name for _, name in simulation.actions if name == "ListSlices"]) == len(times)
    simulation.run(2)
    assert len([name for _, name in simulation.actions if name == "ListSlices"]) == len(times) + 1


def test_refused_slice_is_not_written_again_before_it_changes_and_others_are(simulation: Simulation) -> None:
    error = ApiError("create", 422, reason="Invalid", message="Too long")

    def fail(action: object) -> Exception | None:
        is_bad = isinstance(action, WriteSlice) and not isinstance(action.write, DeleteSlice)
        return error if is_bad and action.write.pool.resource == "example.com/bad" else None  # type: ignore[attr-defined]

    simulation.fail = fail
    simulation.start(publish(3, resource="example.com/bad"), publish(3))
    assert simulation.contents == contents(publish(3))
    assert simulation.state.phase is Phase.WATCH
    assert simulation.count("ListSlices") == 1
    refused = [notice for notice in simulation.notices if notice.event is Event.SLICES_REFUSED]
    assert len(refused) == 1
    assert "of example.com/bad is refused" in refused[0].text
    writes = simulation.count("WriteSlice")
    simulation.run(300)
    simulation.want(publish(3, resource="example.com/bad"), publish(3, value=1))
    assert simulation.count("WriteSlice") == writes + 1
    simulation.want(publish(2, resource="example.com/bad"), publish(3, value=1))
    assert simulation.count("WriteSlice") == writes + 2
    simulation.run(700)
    assert simulation.count("WriteSlice") == writes + 3
    assert len([notice for notice in simulation.notices if notice.event is Event.SLICES_REFUSED]) == 2


def test_conflict_is_read_again_at_once(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(10)
    errors = iter([ApiError("update", 409)])
    simulation.fail = lambda action: next(errors, None) if isinstance(action, WriteSlice) else None
    simulation.want(publish(3, value=1))
    assert simulation.contents == contents(publish(3, value=1))
    assert simulation.count("ListSlices") == 2
    assert simulation.notices[-1].event is Event.SLICES_PUBLISHED


def test_server_without_the_api_group_is_asked_every_ten_minutes_dra_24(simulation: Simulation) -> None:
    error = ApiError("list", 404, is_path_unknown=True)
    simulation.fail = lambda action: error if isinstance(action, ListSlices) else None
    simulation.start(publish(3))
    simulation.run(1700)
    assert simulation.count("ListSlices") == 3
    assert simulation.state.phase is Phase.UNSUPPORTED
    (notice,) = simulation.notices
    assert notice.event is Event.DRA_UNSUPPORTED
    assert "upgrade Kubernetes to 1.34" in notice.text
    simulation.fail = lambda _action: None
    simulation.run(600)
    assert simulation.contents == contents(publish(3))


def test_kubelet_without_support_of_drivers_is_reported(simulation: Simulation) -> None:
    simulation.apply(WantedChanged(build(publish(3))))
    for _ in range(2):
        simulation.apply(RegistrationChanged(Registration.UNSUPPORTED))
    simulation.run(100)
    assert simulation.actions == []
    assert simulation.state.phase is Phase.UNSUPPORTED
    assert [notice.event for notice in simulation.notices] == [Event.DRA_UNSUPPORTED]


def test_slices_of_a_lost_registration_are_written_when_it_returns(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(10)
    simulation.apply(RegistrationChanged(Registration.WAITING))
    (name,) = simulation.slices
    simulation.delete(name)
    simulation.run(100)
    assert simulation.slices == {}
    assert simulation.state.phase is Phase.WAIT_KUBELET
    simulation.apply(RegistrationChanged(Registration.REGISTERED))
    simulation.run()
    assert simulation.contents == contents(publish(3))


def test_slices_are_deleted_after_the_last_resource(simulation: Simulation) -> None:
    simulation.start(publish(100), publish(3, resource="example.com/y"))
    simulation.apply(WantedChanged(None))
    simulation.run()
    assert simulation.slices == {}
    assert simulation.state.phase is Phase.IDLE
    assert simulation.actions[-1][1] == "CloseWatch"


@pytest.mark.parametrize("effect", [False, True])
def test_slices_of_a_failed_write_are_deleted_after_the_last_resource(simulation: Simulation, *, effect: bool) -> None:
    simulation.fail = lambda action: UNREACHABLE if isinstance(action, WriteSlice) else None
    simulation.effect_of_failure = effect
    simulation.start(publish(3))
    simulation.apply(WantedChanged(None))
    simulation.fail = lambda _action: None
    simulation.run(60)
    assert simulation.slices == {}
    assert simulation.state.phase is Phase.IDLE


def test_watch_that_ends_is_opened_again_after_a_list(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(400)
    simulation.slices.clear()
    simulation.apply(WatchEnded())
    simulation.run()
    assert [action for _, action in simulation.actions][-3:] == ["ListSlices", "OpenWatch", "WriteSlice"]
    assert simulation.contents == contents(publish(3))


def test_watches_that_end_at_once_cause_pauses(simulation: Simulation) -> None:
    simulation.start(publish(3))
    for _ in range(100):
        if simulation.state.is_watching:
            simulation.apply(WatchEnded())
        simulation.run(1.0)
    assert simulation.count("OpenWatch") < 10


def test_status_has_the_pools_and_the_error(simulation: Simulation) -> None:
    resources = publish(70, tainted=frozenset({1, 66})), publish(3, resource="example.com/bad")
    refused = ApiError("create", 422, message="Too long")

    def fail(action: object) -> Exception | None:
        return refused if isinstance(action, WriteSlice) and "bad" in str(action.write) else None

    simulation.fail = fail
    simulation.start(*resources)
    status = build_status(simulation.state, simulation.now)
    assert (status.phase, status.error, status.retry_seconds) == (Phase.WATCH, "", 0.0)
    assert status.pools == (
        PoolStatus("example.com/x", "node-1/example.com/x", 2, 70, 2),
        PoolStatus("example.com/bad", "node-1/example.com/bad", 0, 0, 0, str(refused)),
    )
    simulation.fail = lambda _action: UNREACHABLE
    simulation.now += 20
    simulation.apply(WatchEnded())
    simulation.run()
    status = build_status(simulation.state, simulation.now)
    assert (status.phase, status.error, status.retry_seconds) == (Phase.BACKOFF, str(UNREACHABLE), 1.0)
    assert [(pool.slices, pool.devices, pool.tainted) for pool in status.pools] == [(2, 70, 2), (0, 0, 0)]


def test_status_has_the_devices_of_the_api_server_until_a_change_is_written(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.fail = lambda action: ApiError("update", 403) if isinstance(action, WriteSlice) else None
    simulation.now += 20
    simulation.want(publish(5, tainted=frozenset({0})))
    status = build_status(simulation.state, simulation.now)
    (pool,) = status.pools
    assert (pool.slices, pool.devices, pool.tainted) == (1, 3, 0)
    assert pool.refusal == status.error
    assert status.error.startswith("the API server answered 403 to 'update'")
    assert status.retry_seconds == 60.0
    (name,) = simulation.slices
    simulation.delete(name)
    (pool,) = build_status(simulation.state, simulation.now).pools
    assert (pool.slices, pool.devices) == (0, 0)


def send_create(simulation: Simulation) -> WriteSlice:
    """Start the publisher until it sends the creation of its slice, and return it unanswered."""
    simulation.apply(WantedChanged(build(publish(3))))
    simulation.apply(RegistrationChanged(Registration.REGISTERED))
    while not isinstance(action := simulation.decide().action, WriteSlice):
        assert action is not None
        simulation.perform(action)
    return action


def test_slice_that_is_deleted_before_its_creation_is_answered_is_created_again(simulation: Simulation) -> None:
    sent = send_create(simulation)
    assert isinstance(sent.write, CreateSlice)
    created, deleted = simulation.next_version(), simulation.next_version()
    document = slice_document(SCOPE, sent.write.pool, sent.write.part, 1, uid="a", resource_version=created)
    simulation.apply(SliceSeen(sent.write.name, read_slice(document), created))
    simulation.apply(SliceSeen(sent.write.name, None, deleted))
    simulation.apply(SliceWritten(sent.write, document))
    assert simulation.state.actual == {}
    simulation.run(2)
    assert simulation.contents == contents(publish(3))
    assert [action for _, action in simulation.actions][-2:] == ["ReadNode", "WriteSlice"]


def test_slice_that_is_created_again_before_its_deletion_is_answered_is_deleted_again(simulation: Simulation) -> None:
    simulation.start(publish(3))
    simulation.run(10)
    simulation.apply(WantedChanged(build()))
    deletion = simulation.decide().action
    assert isinstance(deletion, WriteSlice)
    assert isinstance(deletion.write, DeleteSlice)
    ((name, found),) = simulation.slices.items()
    other = replace(found, uid="b", resource_version="502")
    simulation.slices[name] = other
    simulation.apply(SliceSeen(name, None, "501"))
    simulation.apply(SliceSeen(name, other, "502"))
    simulation.apply(SliceWritten(deletion.write, None))
    assert simulation.state.actual == {name: other}
    simulation.run(2)
    assert simulation.slices == {}


@pytest.mark.parametrize(("status", "lists"), [(403, 1), (409, 2), (500, 1), (503, 1)])
def test_pool_whose_writes_fail_does_not_delay_the_other_pools(simulation: Simulation, status: int, lists: int) -> None:
    error = ApiError("create", status, message="denied by a webhook")

    def fail(action: object) -> Exception | None:
        return error if isinstance(action, WriteSlice) and "example.com/bad" in str(action.write) else None

    simulation.fail = fail
    bad = publish(3, resource="example.com/bad")
    simulation.start(bad, publish(3))
    assert simulation.contents == contents(publish(3))
    for number in range(1, 9):
        simulation.want(bad, publish(3, value=number))
        simulation.run(1.5)
        assert simulation.contents == contents(publish(3, value=number))
    assert simulation.count("ListSlices") == lists
    (refused,) = (notice for notice in simulation.notices if notice.event is Event.SLICES_REFUSED)
    assert "of example.com/bad is refused" in refused.text
    simulation.run(300)
    writes = simulation.count("WriteSlice")
    simulation.run(600)
    # The slices are listed after the first of two conflicts.
    assert 9 * lists <= simulation.count("WriteSlice") - writes <= 10 * lists
    simulation.fail = lambda _action: None
    simulation.run(60)
    assert simulation.contents == contents(publish(3, value=8), bad)
    assert simulation.state.refusals == {}
    assert "2 ResourceSlices with 6 devices" in simulation.notices[-1].text


def test_pool_that_changes_all_the_time_and_is_refused_is_written_slowly(simulation: Simulation) -> None:
    simulation.fail = lambda action: ApiError("create", 422) if isinstance(action, WriteSlice) else None
    simulation.start(publish(3))
    for number in range(600):
        simulation.want(publish(3, value=number))
        simulation.run(0.1)
    assert simulation.count("WriteSlice") <= 16


def test_deletion_that_is_refused_is_repeated_every_minute(simulation: Simulation) -> None:
    simulation.start(publish(3), publish(3, resource="example.com/y"))
    writes = simulation.count("WriteSlice")
    simulation.fail = lambda action: ApiError("delete", 403) if isinstance(action, WriteSlice) else None
    simulation.apply(WantedChanged(None))
    simulation.run(600)
    assert simulation.count("WriteSlice") - writes <= 2 * 11
    assert simulation.state.phase is Phase.DRAIN
    assert "403" in build_status(simulation.state, simulation.now).error
    simulation.fail = lambda _action: None
    simulation.run(60)
    assert (simulation.slices, simulation.state.phase) == ({}, Phase.IDLE)


def test_pause_that_the_server_requests_does_not_shorten_a_longer_pause(simulation: Simulation) -> None:
    error = ApiError("list", 429, retry_after=1)
    simulation.fail = lambda action: error if isinstance(action, ListSlices) else None
    simulation.start(publish(3))
    simulation.run(600)
    times = [at for at, name in simulation.actions if name == "ListSlices"]
    assert times[-1] - times[-2] == 60.0


@pytest.mark.parametrize("error", [UNREACHABLE, None])
def test_taints_are_written_again_after_an_upgrade_of_the_api_server(
    simulation: Simulation, error: Exception | None
) -> None:
    simulation.keeps_taints = False
    simulation.start(publish(3, tainted=frozenset({1})))
    assert not simulation.state.keeps_taints
    simulation.want(publish(2))
    simulation.run(400)
    for keeps_taints in (False, True):
        simulation.keeps_taints = keeps_taints
        simulation.apply(WatchEnded(error))
        simulation.run(400)
        assert simulation.state.keeps_taints == keeps_taints
    assert simulation.count("ProbeTaints") == 2
    assert [notice.event for notice in simulation.notices].count(Event.TAINTS_DROPPED) == 1


def test_probe_of_taints_is_repeated_when_the_api_server_is_available(simulation: Simulation) -> None:
    simulation.keeps_taints = False
    simulation.start(publish(3, tainted=frozenset({1})))
    simulation.apply(WantedChanged(None))
    simulation.run()
    assert simulation.state.phase is Phase.IDLE
    simulation.keeps_taints = True
    simulation.fail = lambda action: ApiError("create", 503) if isinstance(action, ProbeTaints) else None
    simulation.want(publish(2))
    assert simulation.slices == {}
    simulation.fail = lambda _action: None
    simulation.run(2)
    assert simulation.state.keeps_taints
    assert simulation.contents == contents(publish(2))


def test_probe_of_taints_that_is_refused_is_not_repeated(simulation: Simulation) -> None:
    simulation.keeps_taints = False
    simulation.start(publish(3, tainted=frozenset({1})))
    simulation.want(publish(2))
    simulation.run(400)
    simulation.fail = lambda action: ApiError("create", 400) if isinstance(action, ProbeTaints) else None
    simulation.apply(WatchEnded(UNREACHABLE))
    simulation.run(400)
    assert (simulation.count("ProbeTaints"), simulation.state.keeps_taints) == (1, False)
    assert (simulation.state.phase, simulation.state.error) == (Phase.WATCH, "")
    assert simulation.contents == contents(publish(2))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 64, 65, 200]), min_size=1, max_size=4),
    failures=st.lists(
        st.sampled_from([None, None, UNREACHABLE, ApiError("a", 409), ApiError("a", 500), ApiError("a", 403)]),
        max_size=20,
    ),
    has_effect=st.booleans(),
    wipes=st.lists(st.booleans(), max_size=4),
)
def test_wanted_slices_are_reached_after_any_failures(
    *, sizes: Sequence[int], failures: Sequence[Exception | None], has_effect: bool, wipes: Sequence[bool]
) -> None:
    simulation = Simulation()
    simulation.effect_of_failure = has_effect
    remaining = iter(failures)
    simulation.fail = lambda action: None if isinstance(action, CloseWatch) else next(remaining, None)
    simulation.start(publish(sizes[0]))
    for number, size in enumerate(sizes):
        simulation.want(publish(size, value=number))
        if number < len(wipes) and wipes[number]:
            for name in list(simulation.slices):
                simulation.delete(name)
        simulation.run(3)
    simulation.fail = lambda _action: None
    simulation.run(300)
    assert simulation.contents == contents(publish(sizes[-1], value=len(sizes) - 1))
    assert simulation.state.phase is Phase.WATCH
