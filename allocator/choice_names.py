"""What choices are called: short, and different for actions that differ."""

from __future__ import annotations

from dataclasses import replace

from allocator import tensor_menu
from allocator.actions import Action, Corrected, Keep, LowRank, NumberFormat, Prune, Quantize, Slim, TensorFormat, Unify


def short_name(action: Action) -> str:
    """What a choice is called: ``int4``, ``int4_g128``, ``int4_ceil``, ``rank16_int8``, ``kept0.5_int4``, ``keep``, …

    ``int4_shift`` and ``int4_shift_gain`` are corrected.
    """
    if isinstance(action, Keep):
        return "keep" if action.dtype == "float32" else f"keep_{action.dtype}"
    if isinstance(action, Quantize):
        shared = {"channel": "", "tensor": "_tensor", "group": f"_g{action.group_size}"}[action.granularity]
        scheme = "" if action.scheme == "symmetric" else "_asym"
        method = "" if action.method == "rtn" else f"_{action.method}"
        rounding = "" if action.rounding == "nearest" else f"_{action.rounding}"
        return f"int{action.bits}{shared}{scheme}{method}{rounding}"
    if isinstance(action, LowRank):
        factors = dict.fromkeys((short_name(action.left), short_name(action.right)))
        picked = "" if action.components is None else "_picked"
        picked += "" if action.weighting == "none" else f"_{action.weighting}"
        return f"rank{action.rank}_{'_'.join(factors)}{picked}"
    if isinstance(action, NumberFormat):
        usual = replace(action, granularity=None, group_size=None, scale_dtype=None, method=None, weighting="none")
        shared = "" if action.granularity == usual.granularity else f"_{action.granularity}"
        if action.granularity == "group" and action.group_size != usual.group_size:
            shared = f"_g{action.group_size}"
        scale = "" if action.scale_dtype == usual.scale_dtype else f"_{action.scale_dtype}"
        method = "" if action.method == usual.method else f"_{action.method}"
        weighting = "" if action.weighting == "none" else f"_{action.weighting}"
        return f"{action.format}{shared}{scale}{method}{weighting}"
    if isinstance(action, Slim):
        kept = [("r", action.rows), ("c", action.columns)]
        sides = [f"{side}{len(one.kept)}" for side, one in kept if one is not None]
        weighting = "" if action.weighting == "none" else f"_{action.weighting}"
        return "_".join([action.kind, *sides, short_name(action.values)]) + weighting
    if isinstance(action, Unify):
        weighting = "" if action.weighting == "none" else f"_{action.weighting}"
        return f"unify{action.block}_{100 * action.share:g}%_{short_name(action.values)}{weighting}"
    if isinstance(action, TensorFormat):
        return tensor_menu.name_of(action, short_name)
    if isinstance(action, Corrected):
        return short_name(action.action) + correction(action)
    if isinstance(action, Prune):
        share = f"{action.keep}of{action.block}" if action.density is None else f"{action.density}"
        ways = {"signs": action.signs == "apart", "input": action.weighting != "none", "fit": action.compensate}
        return "_".join([f"kept{share}", short_name(action.values), *(way for way, on in ways.items() if on)])
    return "_".join([action.kind, *(f"{v}" for k, v in action.to_json().items() if k != "kind")])


def correction(action: Action) -> str:
    """The end of the name of a corrected choice."""
    return "_shift_gain" if isinstance(action, Corrected) and action.variance else "_shift"
