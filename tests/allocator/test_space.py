import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.actions import Keep, Kept, Layer, LowRank, parse
from allocator.choice_names import short_name
from allocator.errors import ActionError, UsageError
from allocator.grouping.shares import Levels, Share
from allocator.menu_items import MenuItem
from allocator.space import Rule, Space

LINEAR = Layer("linear", (48, 64))
FOUR = {"kind": "quantize", "bits": 4}
KEEP = {"kind": "keep", "dtype": "float32"}


def names(space, layer=LINEAR, modules=("fc",)):
    menu = space.menu(modules, layer)
    return None if menu is None else [item.name for item in menu]


def test_simple_menu_names_labels_and_actions():
    menu = Space.simple(bits=(2, 8), ranks=(0.25, 0.5)).menu(["fc"], LINEAR)
    assert [(i.name, i.label) for i in menu] == [
        ("int2", "int2"), ("int8", "int8"), ("rank12_int8", "rank25%"), ("rank24_int8", "rank50%"), ("keep", "keep"),
    ]  # fmt: skip
    assert menu[0].action == parse({"kind": "quantize", "bits": 2, "scheme": "symmetric", "granularity": "channel"})
    assert menu[2].action.left.bits == menu[2].action.right.bits == 8
    assert menu[-1] == MenuItem("keep", "keep", Keep())


def test_simple_options_reach_every_width():
    menu = Space.simple(bits=(4,), ranks=(), granularity="group", group_size=16, scheme="asymmetric", keep=False)
    assert names(menu) == ["int4_g16_asym"]
    assert names(Space.simple(bits=(3,), ranks=(), granularity="tensor", keep=False)) == ["int3_tensor"]


@pytest.mark.parametrize(
    ("action", "name"),
    [
        ({"kind": "quantize", "bits": 4, "granularity": "group", "group_size": 128}, "int4_g128"),
        ({"kind": "quantize", "bits": 4, "method": "mse"}, "int4_mse"),
        ({"kind": "quantize", "bits": 4, "rounding": "ceil"}, "int4_ceil"),
        ({"kind": "quantize", "bits": 4, "method": "mse", "rounding": "floor"}, "int4_mse_floor"),
        ({"kind": "quantize", "bits": 4, "rounding": "nearest"}, "int4"),
        ({"kind": "low_rank", "rank": 16, "left": KEEP, "right": KEEP}, "rank16_keep"),
        ({"kind": "low_rank", "rank": 16, "left": FOUR, "right": KEEP}, "rank16_int4_keep"),
        ({"kind": "low_rank", "rank": 2, "left": KEEP, "right": KEEP, "components": [0, 2]}, "rank2_keep_picked"),
        ({"kind": "keep", "dtype": "float16"}, "keep_float16"),
        ({"kind": "number_format", "format": "nf4"}, "nf4"),
        ({"kind": "number_format", "format": "nf4", "granularity": "channel"}, "nf4_channel"),
        ({"kind": "number_format", "format": "nf4", "group_size": 32, "method": "mse"}, "nf4_g32_mse"),
        ({"kind": "number_format", "format": "fp8_e4m3", "scale_dtype": "float32"}, "fp8_e4m3_float32"),
        ({"kind": "number_format", "format": "mxfp4", "method": "mse", "weighting": "input"}, "mxfp4_mse_input"),
        (
            {"kind": "number_format", "format": "ternary", "granularity": "tensor", "method": "twn"},
            "ternary_tensor_twn",
        ),
        ({"kind": "slim", "rows": {"of": 9, "kept": [1, 4]}, "values": FOUR}, "slim_r2_int4"),
        (
            {
                "kind": "slim",
                "rows": {"of": 9, "kept": [1, 4]},
                "columns": {"of": 3, "kept": [1]},
                "values": KEEP,
                "weighting": "input",
            },
            "slim_r2_c1_keep_input",
        ),
        ({"kind": "unify", "block": 8, "share": 0.25, "values": FOUR}, "unify8_25%_int4"),
        ({"kind": "unify", "block": 4, "share": 0.5, "values": KEEP, "weighting": "input"}, "unify4_50%_keep_input"),
        ({"kind": "prune", "pattern": "unstructured", "density": 0.25, "values": FOUR}, "kept0.25_int4"),
        (
            {
                "kind": "prune",
                "pattern": "n_m",
                "keep": 2,
                "block": 4,
                "values": KEEP,
                "weighting": "input",
                "compensate": True,
                "signs": "apart",
            },
            "kept2of4_keep_signs_input_fit",
        ),
    ],
)
def test_names_tell_the_action(action, name):
    assert short_name(parse(action)) == name


@given(st.integers(1, 300), st.integers(2, 300), st.floats(0.01, 1))
def test_ranks_are_fractions_of_the_full_one_and_save_bytes(rows, columns, share):
    layer = Layer("linear", (rows, columns))
    item = Space.simple(bits=(8,), ranks=(share,)).menu(["fc"], layer)[-2]
    int8 = parse({"kind": "quantize", "bits": 8})
    rank = max(1, round(share * min(rows, columns)))
    wanted = LowRank(rank=rank, left=int8, right=int8)
    if wanted.stored_bytes(layer) < int8.stored_bytes(layer):
        assert item.action == wanted
        assert item.label == f"rank{100 * share:g}%"
    else:
        assert item.name == "int8"


def test_rank_factors_and_explicit_ranks():
    rule = Rule(
        choices=(
            {"kind": "low_rank", "fraction": 0.25, "left": FOUR, "right": FOUR},
            {"kind": "low_rank", "rank": 5},
            {"kind": "low_rank", "rank": 50},
            KEEP,
        )
    )
    menu = Space((rule,)).menu(["fc"], LINEAR)
    assert [(i.name, i.label) for i in menu] == [
        ("rank12_int4", "rank25%_int4"), ("rank5_int8", "rank5_int8"), ("keep", "keep"),
    ]  # fmt: skip
    assert names(Space((rule,)), Layer("conv2d", (8, 1, 3, 3), groups=8)) == ["keep"]


def test_picked_components_are_choices_beside_the_largest():
    share = {"kind": "low_rank", "fraction": 0.05}
    choices = (share, {**share, "components": [1, 5]}, {**share, "components": [0, 1]}, KEEP)
    menu = Space((Rule(choices=choices),)).menu(["fc"], LINEAR)
    assert [(i.name, i.label) for i in menu] == [
        ("rank2_int8", "rank5%"), ("rank2_int8_picked", "rank5%_picked"), ("keep", "keep"),
    ]  # fmt: skip
    two = Space((Rule(choices=(*choices, {**share, "components": [2, 3]})),))
    with pytest.raises(ActionError, match="two choices rank2_int8_picked with other components"):
        two.menu(["fc"], LINEAR)
    assert names(Space((Rule(choices=({**share, "components": [1, 48]}, KEEP)),))) == ["keep"]  # there is none


def test_pruned_choices_that_cannot_be_done_or_save_nothing_are_left_out():
    one = {"kind": "quantize", "bits": 1}
    share = {"kind": "prune", "pattern": "unstructured"}
    grouped = {**FOUR, "granularity": "group", "group_size": 4000}
    choices = (
        {**share, "density": 0.25},  # 8 bits per channel unless told
        {**share, "density": 0.9, "values": FOUR},  # more than 4 bits per weight
        {**share, "density": 0.7, "values": FOUR},
        {**share, "density": 0.5, "values": one},  # 1.5 bits where zeros and signs would take 2
        {**share, "density": 0.4, "values": {**one, "scheme": "asymmetric"}, "signs": "apart"},
        {**share, "density": 0.5, "values": grouped},
        {"kind": "prune", "pattern": "n_m", "keep": 2, "block": 4, "values": grouped},
        {**share, "density": 0.25, "compensate": True},
        KEEP,
    )
    space = Space((Rule(choices=choices),))
    assert names(space) == [
        "kept0.25_int8", "kept0.7_int4", "kept0.5_int1", "kept0.4_int1_asym_signs", "kept0.5_int4_g4000",
        "kept2of4_int4_g4000", "kept0.25_int8_fit", "keep",
    ]  # fmt: skip
    grains = {item.name: item.action.values.granularity for item in space.menu(["fc"], LINEAR) if "g4000" in item.name}
    assert grains == {"kept0.5_int4_g4000": "tensor", "kept2of4_int4_g4000": "channel"}
    assert "kept0.25_int8_fit" not in names(space, Layer("embedding", (48, 64)))
    assert names(space, Layer("linear", (1, 1))) == ["keep"]


def test_two_fractions_of_one_rank_give_one_choice():
    assert names(Space.simple(bits=(), ranks=(0.01, 0.02)), LINEAR) == ["rank1_int8", "keep"]


def test_groups_longer_than_a_row_are_rows():
    space = Space.simple(bits=(4,), ranks=(), granularity="group", group_size=128, keep=False)
    (short,), (long,) = space.menu(["a"], LINEAR), space.menu(["b"], Layer("linear", (8, 256)))
    assert (short.name, short.label) == (long.name, long.label) == ("int4_g128", "int4_g128")
    assert (short.action.granularity, long.action.granularity) == ("channel", "group")


def test_groups_of_other_formats_and_of_factors_too():
    nf4 = {"kind": "number_format", "format": "nf4"}
    rule = Rule(choices=(nf4, {"kind": "low_rank", "rank": 4, "left": nf4, "right": nf4}, {**nf4, "method": "mse"}))
    long, short = (Space((rule,)).menu(["fc"], Layer("linear", (48, n))) for n in (64, 63))
    assert [item.name for item in long] == [item.name for item in short] == ["nf4", "rank4_nf4", "nf4_mse"]
    assert [item.action.granularity for item in (long[0], long[2], short[0], short[2])] == ["group"] * 2 + [
        "channel"
    ] * 2
    assert [item.action.right.granularity for item in (long[1], short[1])] == ["group", "channel"]
    assert long[1].action.left.granularity == "channel"


SHARES = ({"kind": "slim", "keep": 0.5, "values": FOUR}, {"kind": "slim", "keep": 0.25, "values": FOUR})


def test_shares_of_channels_are_all_pairs_of_a_layers_levels():
    half, quarter = Share(0.5), Share(0.25)
    rows = {half: Kept(48, tuple(range(24))), quarter: Kept(48, tuple(range(12)))}
    columns = {half: Kept(4, (0, 2)), quarter: Kept(4, (3,))}
    space = Space((Rule(choices=(FOUR, *SHARES)),))
    both = [(i.name, i.label) for i in space.menu(["fc"], LINEAR, Levels(rows, columns))]
    assert both == [
        ("int4", "int4"),
        ("slim_r24_int4", "slim_r50%_int4"),
        ("slim_c2_int4_input", "slim_c50%_int4_input"),
        ("slim_r24_c2_int4_input", "slim_r50%_c50%_int4_input"),
        ("slim_r12_int4", "slim_r25%_int4"),
        ("slim_r12_c2_int4_input", "slim_r25%_c50%_int4_input"),
        ("slim_c1_int4_input", "slim_c25%_int4_input"),
        ("slim_r24_c1_int4_input", "slim_r50%_c25%_int4_input"),
        ("slim_r12_c1_int4_input", "slim_r25%_c25%_int4_input"),
    ]
    reading = [item.name for item in space.menu(["fc"], LINEAR, Levels(columns={quarter: columns[quarter]}))]
    assert reading == ["int4", "slim_c1_int4_input"]
    square = Levels({half: Kept(48, (1, 5))}, {half: Kept(48, (1, 5))}, same=True)
    assert names_of(space.menu(["fc"], Layer("linear", (48, 48)), square)) == ["int4", "slim_r2_c2_int4_input"]
    assert names(space) == ["int4"]


def names_of(menu):
    return [item.name for item in menu]


def test_shares_with_other_values_or_other_counts_are_not_mixed():
    half, most = Share(0.5, 4), Share(0.75)
    own = Levels(rows={half: Kept(48, tuple(range(24))), most: Kept(48, tuple(range(36)))})
    grouped = {"kind": "quantize", "bits": 4, "granularity": "group", "group_size": 64}
    choices = (
        {**SHARES[0], "multiple": 4, "weighting": "none"},
        {"kind": "slim", "keep": 0.75, "values": grouped},
        FOUR,
    )
    menu = Space((Rule(choices=choices),)).menu(["fc"], Layer("linear", (48, 9)), own)
    assert names_of(menu) == ["slim_r24_int4", "slim_r36_int4_g64", "int4"]
    assert menu[1].action.values.granularity == "channel"


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ({"keep": 1}, "share of the channels between 0 and 1, got 1"),
        ({"keep": "half"}, "share of the channels"),
        ({"keep": 0.5, "multiple": 0}, "multiple must be an integer ≥ 1"),
        ({"keep": 0.5, "rows": {"of": 2, "kept": [1]}}, "has the keys keep, multiple, values and weighting"),
    ],
)
def test_what_is_no_share_is_named(share, said):
    with pytest.raises(ActionError, match=said):
        Space((Rule(choices=({"kind": "slim", "values": FOUR, **share},)),)).menu(["fc"], LINEAR)


def test_unified_blocks_are_offered_where_they_save_bytes():
    rule = Rule(choices=(*({"kind": "unify", "block": n, "share": 0.5, "values": FOUR} for n in (2, 8, 80)), KEEP))
    assert names(Space((rule,))) == ["unify8_50%_int4", "keep"]


def test_first_rule_that_covers_a_layer_decides():
    space = Space(
        (
            Rule(modules="head", choices="pin"),
            Rule(modules=r"re:layers\.(0|1)\..*", choices="skip"),
            Rule(kinds=("embedding",), choices=(KEEP,)),
            Rule(modules="layers.*", choices=(FOUR,)),
        )
    )
    assert names(space, modules=["head"]) == ["keep"]
    assert names(space, modules=["layers.1.fc"]) is None
    assert names(space, modules=["layers.11.fc"]) == ["int4"]  # the expression must match the whole name
    assert names(space, Layer("embedding", (9, 4)), ["layers.0x"]) == ["keep"]
    assert names(space, modules=["other"]) is None  # no rule: left alone
    assert names(space, modules=["embed", "head"]) == ["keep"]  # any name of a shared weight


SPACES = st.builds(
    lambda rules: Space(tuple(rules)),
    st.lists(
        st.builds(
            Rule,
            modules=st.sampled_from(["*", "a.?", "re:b.*"]),
            kinds=st.sampled_from([(), ("conv2d", "linear")]),
            choices=st.sampled_from(["pin", "skip", (FOUR, KEEP), ({"kind": "low_rank", "fraction": 0.5},)]),
        )
    ),
)


@given(SPACES)
def test_json_both_ways(space):
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({}, 'starts with "format"'),
        ({"rules": 3}, "rules \\(a list\\)"),
        ({"rules": [], "pins": 1}, "unknown: \\['pins'\\]"),
        ({"rules": [{"modules": "*"}]}, "rule 0 .* keys are modules, kinds and choices"),
        ({"rules": [{"choices": "keep"}]}, '"pin" or "skip", not \'keep\''),
        ({"rules": [{"choices": []}]}, "has no choices"),
        ({"rules": [{"choices": "pin", "modules": "re:("}]}, "no regular expression"),
    ],
)
def test_broken_files_say_where(broken, said):
    head = {"format": "allocation-space", "version": 1} if broken else {}
    with pytest.raises(UsageError, match=said):
        Space.from_json({**head, **broken})


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (({"kind": "quantize", "bits": 9},), r"layer fc and choice .*bits"),
        (({"kind": "sparse"},), r"layer fc .*'sparse' is unknown"),
        (("int4",), "'int4', not an action object"),
        (({"kind": "low_rank", "fraction": 1.5},), "fraction in \\(0, 1\\]"),
        (({"kind": "low_rank", "fraction": 0.5, "rank": 3},), "either a rank or a fraction"),
        (({"kind": "low_rank", "rank": 48},), "left without a choice"),
    ],
)
def test_bad_choices_name_the_layer(choices, said):
    with pytest.raises(ActionError, match=said):
        Space((Rule(choices=choices),)).menu(["fc"], LINEAR)


def test_patterns_that_name_nothing_are_refused():
    with pytest.raises(UsageError, match=r"rule 1 .*'re:b', names no layer"):
        Space((Rule(modules="a.*", choices="pin"), Rule(modules="re:b", choices="pin"))).check_names(["a.b", "a.c"])
