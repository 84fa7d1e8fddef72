"""Sets of layers by name."""

import pytest

from allocator.errors import UsageError
from allocator.grouping.rules import Couple, Coupled
from allocator.space import Space

GROUPS = {name: (name,) for name in ("a.q_proj", "a.k_proj", "a.o", "b.q_proj", "b.k_proj", "head")}


def test_one_set_or_one_for_each_parent():
    assert Couple(modules=r"re:.*\.(q|k)_proj", per="parent").sets(GROUPS) == [
        Coupled(r"re:.*\.(q|k)_proj of a", "rule", ("a.q_proj", "a.k_proj")),
        Coupled(r"re:.*\.(q|k)_proj of b", "rule", ("b.q_proj", "b.k_proj")),
    ]
    assert Couple(modules="*_proj", name="inputs").sets(GROUPS) == [
        Coupled("inputs", "rule", ("a.q_proj", "a.k_proj", "b.q_proj", "b.k_proj"))
    ]
    tied = {"embed": ("embed", "out.head"), "x": ("out.x",)}
    assert Couple(modules="out.*", per="parent").sets(tied)[0].groups == ("embed", "x")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"modules": "*.o"}, r"'\*.o' of the space joins no two layers: it names a.o of a.q_proj, a.k_proj"),
        ({"modules": "*.o", "per": "parent"}, "no two layers of one parent"),
        ({"modules": "*.z"}, "names none of"),
        ({"modules": "*", "per": "block"}, "per is one of all, parent, not 'block'"),
        ({"modules": "re:("}, "no regular expression"),
        ({"per": "all"}, "couple 0 of the space is"),
        ({"modules": 3}, "all texts"),
        ("*", "its keys are modules, per and name"),
    ],
)
def test_what_joins_nothing_or_cannot_be_read_is_refused(rule, said):
    with pytest.raises(UsageError, match=said):
        Space.from_json(Space.simple().to_json() | {"couple": [rule]}).coupled(GROUPS)


def test_spaces_keep_their_sets():
    space = Space(Space.simple().rules, (Couple(modules="*", per="parent", name="x"), Couple(modules="a")))
    assert Space.from_json(space.to_json()) == space
    assert "couple" not in Space.simple().to_json()
    with pytest.raises(UsageError, match="couple"):
        Space.from_json(Space.simple().to_json() | {"couple": "a"})
