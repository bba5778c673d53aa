"""Which container has which devices: single rules. ``test_histories`` plays random days."""

from attrs import evolve

from genplug.audit.assignments import Assignments, Began, ContainerUse, Ended, ReportTimes, Seen
from genplug.audit.records import Assignment, Container, EndReason
from genplug.spec.limits import MAX_AUDIT_IDS

RESOURCE = "example.com/x"
A, B = Container("default", "a", "main"), Container("default", "b", "main")


def allocated(key: str, time: float, *ids: str) -> Assignment:
    return Assignment(key, RESOURCE, ids or ("x0",), allocated_at=time)


def has(container: Container, *ids: str) -> ContainerUse:
    return ContainerUse(container, RESOURCE, frozenset(ids or ("x0",)))


def build(use: ContainerUse) -> Assignment:
    return Assignment(f"new-{min(use.ids)}", use.resource, tuple(sorted(use.ids)))


def report(
    assignments: Assignments, time: float, *uses: ContainerUse, may_end: bool = True
) -> tuple[Assignments, list[object]]:
    after, changes = assignments.after_report(uses, ReportTimes(time, time + 0.5), build, may_end=may_end)
    return after, list(changes)


def allocate(assignments: Assignments, assignment: Assignment) -> Assignments:
    after, _ = assignments.after_allocation(assignment, assignment.allocated_at or 0.0)
    return after


def test_report_connects_an_allocation_with_its_container() -> None:
    assignments, changes = Assignments().after_allocation(allocated("k", 1), 1)
    assert changes == (Began(allocated("k", 1)),)
    assignments, seen = report(assignments, 2, has(A))
    expected = evolve(allocated("k", 1), container=A, first_seen=2, last_seen=2)
    assert seen == [Seen(expected)]
    assert assignments.current == (expected,)
    _, again = report(assignments, 3, has(A))
    assert again == []


def test_report_that_was_requested_before_an_allocation_does_not_concern_it() -> None:
    assignments, _ = report(Assignments(), 1, has(A))
    assignments = allocate(assignments, allocated("k", 5))
    # The report has the container that had the device before.
    assignments, changes = report(assignments, 4, has(A))
    assert changes == []
    assignments, changes = report(assignments, 6, has(B))
    [seen] = changes
    assert isinstance(seen, Seen)
    assert seen.assignment.container == B


def test_allocation_ends_the_earlier_assignment_of_its_device() -> None:
    assignments, _ = report(Assignments(), 1, has(A))
    _, changes = assignments.after_allocation(allocated("k", 5), 5)
    ended, began = changes
    assert isinstance(ended, Ended)
    assert (ended.assignment.container, ended.ended_by, ended.reason) == (A, 5, EndReason.ALLOCATED_AGAIN)
    assert isinstance(began, Began)


def test_assignment_ends_after_two_reports_by_the_time_of_the_first() -> None:
    assignments, _ = report(allocate(Assignments(), allocated("k", 1)), 2, has(A))
    assignments, changes = report(assignments, 3)
    assert changes == []
    assignments, [ended] = report(assignments, 4)
    assert isinstance(ended, Ended)
    # The pod can have ended between the request and the response.
    assert (ended.assignment.last_seen, ended.ended_by, ended.reason) == (2, 3.5, EndReason.POD_ENDED)
    assert assignments.current == ()


def test_report_without_a_container_does_not_count_before_it_returns() -> None:
    assignments, _ = report(allocate(Assignments(), allocated("k", 1)), 2, has(A))
    assignments, _ = report(assignments, 3)
    assignments, _ = report(assignments, 4, has(A))
    assignments, changes = report(assignments, 5)
    assert changes == []
    assert assignments.current[0].last_seen == 4


def test_kubelet_that_has_restarted_ends_no_assignment() -> None:
    assignments, _ = report(allocate(Assignments(), allocated("k", 1)), 2, has(A))
    for time in range(3, 9):
        assignments, changes = report(assignments, time, may_end=False)
        assert changes == []
    # Another container with the device is proof of the end nevertheless.
    _, changes = report(assignments, 9, has(B), may_end=False)
    ended, seen = changes
    assert isinstance(ended, Ended)
    assert ended.assignment.container == A
    assert isinstance(seen, Seen)
    assert seen.assignment.container == B


def test_allocation_without_a_container_ends_as_never_assigned() -> None:
    assignments = allocate(Assignments(), allocated("k", 1))
    assignments, _ = report(assignments, 2)
    _, [ended] = report(assignments, 3)
    assert isinstance(ended, Ended)
    assert ended.reason is EndReason.NEVER_ASSIGNED


def test_recovered_assignment_that_the_first_reports_lack_ended_without_the_agent() -> None:
    recovered = evolve(allocated("k", 1), container=A, first_seen=2, last_seen=3)
    assignments, changes = Assignments().after_recovery([recovered], 10, is_complete=True)
    assert changes == ()
    assignments, _ = report(assignments, 11)
    _, [ended] = report(assignments, 12)
    assert isinstance(ended, Ended)
    assert (ended.assignment.last_seen, ended.ended_by, ended.reason) == (3, 11.5, EndReason.AGENT_NOT_RUNNING)


def test_confirmed_assignment_of_an_earlier_process_ends_like_any_other() -> None:
    recovered = evolve(allocated("k", 1), container=A, first_seen=2, last_seen=3)
    assignments, _ = Assignments().after_recovery([recovered], 10, is_complete=True)
    assignments, changes = report(assignments, 11, has(A))
    assert changes == []
    assignments, _ = report(assignments, 12)
    _, [ended] = report(assignments, 13)
    assert isinstance(ended, Ended)
    assert ended.reason is EndReason.POD_ENDED


def test_container_is_not_connected_with_an_allocation_before_a_crash() -> None:
    for is_complete, reasons in ((True, []), (False, [EndReason.NOT_IDENTIFIED])):
        assignments, _ = Assignments().after_recovery([allocated("k", 1)], 10, is_complete=is_complete)
        assignments, changes = report(assignments, 11, has(A))
        assert [change.reason for change in changes if isinstance(change, Ended)] == reasons
        [assignment] = assignments.current
        assert assignment.allocated_at == (1 if is_complete else None)


def test_use_of_many_devices_without_an_allocation_has_several_assignments() -> None:
    ids = [f"x{number:04}" for number in range(MAX_AUDIT_IDS + 1)]
    assignments, changes = report(Assignments(), 1, has(A, *ids))
    assert [len(assignment.ids) for assignment in assignments.current] == [MAX_AUDIT_IDS, 1]
    assert len(changes) == 2
    _, changes = report(assignments, 2, has(A, *ids))
    assert changes == []
