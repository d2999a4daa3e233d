"""Which variant is chosen, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measured_rows import row

from trimtab.deploy.answers import Answers
from trimtab.deploy.choose import choose, front
from trimtab.deploy.interval import Interval, wilson
from trimtab.deploy.machine import Machine
from trimtab.deploy.plan import checked
from trimtab.domain.errors import UnreachableTarget

MACHINE = Machine(cores=2, memory=8_000_000_000, disk=50_000_000_000, accelerators=(), processor="test")
WHOLE = row("llamacpp/f16", memory=600, disk=270, first=2.0, rate=18)
Q8 = row("llamacpp/q8_0", memory=480, disk=145, first=1.5, rate=26, loss=0.004)
Q4 = row("llamacpp/q4_0", memory=380, disk=92, first=0.9, rate=40, loss=0.15)
INT8 = row("openvino/int8", memory=700, disk=153, first=0.4, rate=38, loss=0.006)
ROWS = [WHOLE, Q8, Q4, INT8]


def test_the_least_memory_that_meets_every_target_is_chosen_and_each_other_hears_why_not() -> None:
    found = choose(checked({"targets": {"first_token_p95": 1.8}, "quality": {"largest_loss": 0.03}}), MACHINE, ROWS)
    assert found.chosen is Q8
    why = {one.row.candidate.variant.name: one.why_not for one in found.judged}
    assert why["llamacpp/q8_0"] == ""
    assert "0.20 s too long" in why["llamacpp/f16"]
    assert "15.0% above the reference" in why["llamacpp/q4_0"]
    assert why["openvino/int8"] == "meets every target, and takes 220 MB more memory than llamacpp/q8_0"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"quality": {"largest_loss": 0.2}}, Q4),
        ({"targets": {"first_token_p95": 0.5}}, INT8),
        ({"quality": {"largest_loss": 0.0}}, WHOLE),
    ],
)
def test_the_choice_changes_when_a_target_changes(changed: dict[str, dict[str, float]], expected: object) -> None:
    assert choose(checked(changed), MACHINE, ROWS).chosen is expected


def test_a_floor_under_the_answers_is_a_target_and_what_was_not_measured_does_not_meet_it() -> None:
    good = replace(Q8, answers=Answers(tools=wilson(20, 24), reward=Interval(-0.1, -0.3, 0.1)))
    poor = replace(Q4, answers=Answers(tools=wilson(12, 24), reward=Interval(-0.9, -1.2, -0.6)))
    plan = {"quality": {"largest_loss": 0.2, "least_tool_calls": 0.7, "least_reward": -0.5}}
    found = choose(checked(plan), MACHINE, [good, poor, INT8])
    assert found.chosen is good
    why = {one.row.candidate.variant.name: one.why_not for one in found.judged}
    assert "50% of questions for tools come out right, and 70% is asked for" in why["llamacpp/q4_0"]
    assert "-0.90 is what the reward model gives its answers, and -0.50 is asked for" in why["llamacpp/q4_0"]
    assert "its tools were not measured" in why["openvino/int8"]
    with pytest.raises(UnreachableTarget, match=r"quality\.least_tool_calls"):
        choose(checked({"quality": {"least_tool_calls": 0.95}}), MACHINE, [good]).demanded()
    assert choose(checked({"quality": {"largest_loss": 0.2}}), MACHINE, [good, poor, INT8]).chosen is poor


def test_an_unreachable_target_is_named_with_the_distance_and_the_nearest_offer() -> None:
    found = choose(checked({"targets": {"first_token_p95": 0.2}}), MACHINE, ROWS)
    with pytest.raises(
        UnreachableTarget, match=r"In the way: targets\.first_token_p95.*openvino/int8.*0\.20 s"
    ) as told:
        found.demanded()
    assert told.value.detail["wanted"] == 0.2
    assert told.value.detail["got"] == 0.4


def test_a_budget_in_the_plan_and_the_memory_of_the_machine_are_limits_too() -> None:
    plan = checked({"budget": {"memory_mb": 400, "disk_mb": 120}})
    with pytest.raises(UnreachableTarget, match=r"budget\.disk_mb.*llamacpp/q8_0.*80 MB too much.*25 MB too much"):
        choose(plan, MACHINE, ROWS).demanded()
    small = Machine(2, 500_000_000, 1, (), "test")
    assert choose(checked({}), small, ROWS).chosen is Q8
    assert choose(checked({"budget": {"cores": 1}}), MACHINE, ROWS).chosen is None


def test_what_was_measured_for_fewer_users_or_less_context_does_not_count() -> None:
    plan = checked({"targets": {"users": 8}})
    with pytest.raises(UnreachableTarget, match="Nothing was measured for 8 users"):
        choose(plan, MACHINE, ROWS)
    assert choose(plan, MACHINE, [*ROWS, row("openvino/int8", memory=900, users=8)]).chosen is not None


def test_the_front_holds_what_nothing_else_beats() -> None:
    slower_and_larger = row("llamacpp/q5_0", memory=500, rate=20, loss=0.01)
    assert slower_and_larger not in front([*ROWS, slower_and_larger])
    assert {r.key for r in front([*ROWS, slower_and_larger])} == {Q8.key, Q4.key, INT8.key, WHOLE.key}
