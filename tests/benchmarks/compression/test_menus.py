"""The benchmark's menus are the package's."""

from allocator import kinds
from allocator.space import Rule, Space
from benchmarks.compression.curves import OWN
from benchmarks.compression.menus import EMBEDDING, JOINT, KINDS, menu, rounded, space_of


def test_each_curve_is_a_menu_of_the_package_and_joint_is_all_that_are_compared():
    for kind in (*KINDS, JOINT):
        assert menu(kind) == kinds.menu(kind)
    assert [choice for own in KINDS.values() for choice in own] == list(menu(JOINT)[:-1])
    assert "allocator/kinds.py" in OWN  # points of another version are measured again


def test_rules_that_skip_stay():
    skipped = Rule(modules="table", choices="skip")
    space = space_of((skipped, *Space.simple().rules), (rounded(3),), {})
    assert space.rules[0] == skipped
    assert [rule.choices for rule in space.rules[1:]] == [(rounded(3, method="mse"),), (rounded(3),)]


def test_a_menu_of_its_own_comes_before_a_rule_that_skips():
    skipped = Rule(modules="table", choices="skip")
    space = space_of((skipped,), (rounded(3),), {"table": EMBEDDING})
    rule = space.rule_for(["table"], "linear")
    assert rule is not None
    assert rule.choices == EMBEDDING
    assert EMBEDDING[0] == kinds.without_inputs(kinds.EIGHT)  # what every kind can leave it at
