"""The keys of problem.json and solution.json, version 1, as types: for parsing, and for the schemas."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

Number = int | float
Name = Annotated[str, Meta(min_length=1)]
Place = tuple[str, str]  # group, choice


class ResourceSpec(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Unit of a resource, how the groups add up, and its use outside all groups."""

    unit: str | UnsetType = UNSET
    aggregate: Literal["sum", "max"] = "sum"
    offset: Number = 0


class ChoiceRow(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One way to compress one group."""

    name: Name
    cost: dict[str, Number]
    score: dict[str, float]
    label: Name | UnsetType = UNSET
    action: dict[str, Any] | UnsetType = UNSET
    stderr: dict[str, Annotated[float, Meta(ge=0)]] = {}
    remainder: dict[str, Annotated[float, Meta(ge=0)]] = {}
    allowed: bool = True


class GroupRow(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Modules that are compressed by one choice."""

    name: Name
    choices: Annotated[list[ChoiceRow], Meta(min_length=1)]
    modules: list[str] | UnsetType = UNSET
    weights: Annotated[int, Meta(ge=0, le=2**63 - 1)] | UnsetType = UNSET
    tags: list[str] = []
    stats: dict[str, float] = {}


class LossSpec(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the scores sum to."""

    terms: dict[str, float] | UnsetType = UNSET
    aggregate: Literal["sum", "max", "pnorm"] = "sum"
    p: float | UnsetType = UNSET
    stderr_weight: float = 0.0


class BudgetRow(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One limit: on a resource, on the loss, or on the sum of a score."""

    resource: str | UnsetType = UNSET
    loss: Literal[True] | UnsetType = UNSET
    score: str | UnsetType = UNSET
    include_remainder: bool = False
    max: Number | UnsetType = UNSET
    min: Number | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET


class SameChoiceRow(Struct, kw_only=True, tag_field="kind", tag="same_choice", forbid_unknown_fields=True):
    """These groups take one common label."""

    groups: list[str]


class MaxDistinctRow(
    Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="max_distinct", forbid_unknown_fields=True
):
    """At most `count` labels; without groups or tags over all groups."""

    count: int
    groups: list[str] | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    ignore: list[str] = []


class AtMostRow(Struct, kw_only=True, tag_field="kind", tag="at_most", forbid_unknown_fields=True):
    """At most `count` of these choices."""

    choices: list[Place]
    count: int


class AtLeastRow(Struct, kw_only=True, tag_field="kind", tag="at_least", forbid_unknown_fields=True):
    """At least `count` of these choices."""

    choices: list[Place]
    count: int


class ExactlyRow(Struct, kw_only=True, tag_field="kind", tag="exactly", forbid_unknown_fields=True):
    """Exactly `count` of these choices."""

    choices: list[Place]
    count: int


class ImpliesRow(Struct, kw_only=True, tag_field="kind", tag="implies", forbid_unknown_fields=True):
    """If the first choice is taken, so is the second."""

    if_: Place = field(name="if")
    then: Place


CouplingRow = SameChoiceRow | MaxDistinctRow | AtMostRow | AtLeastRow | ExactlyRow | ImpliesRow


class PairRow(Struct, kw_only=True, forbid_unknown_fields=True):
    """Loss when both choices are taken."""

    a: Place
    b: Place
    value: float


class BasisSpec(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Signed eigenvalues, and each choice's error vector in their directions (missing: zero)."""

    eigenvalues: list[float]
    vectors: dict[str, dict[str, list[float]]] = {}


class InteractionRow(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Loss between groups beyond the unary scores."""

    score: str
    pairs: list[PairRow] | UnsetType = UNSET
    basis: BasisSpec | UnsetType = UNSET


class ColumnsSpec(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The companion npz of a large problem, and the string tables its codes point into."""

    file: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    choice_names: list[str] | UnsetType = UNSET
    labels: list[str] | UnsetType = UNSET
    actions: list[dict[str, Any]] | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    modules: list[str] | UnsetType = UNSET


class ProblemFile(Struct, kw_only=True, omit_defaults=True):
    """problem.json, version 1; top-level keys that start with x- are free as well."""

    format: Literal["allocation-problem"]
    version: Literal[1]
    requires: list[str] = []
    generator: dict[str, Any] | UnsetType = UNSET
    scores: dict[str, dict[str, Any]] = {}
    resources: dict[str, ResourceSpec] = {}
    groups: list[GroupRow] | UnsetType = UNSET
    columns: ColumnsSpec | UnsetType = UNSET
    reference: str | dict[str, str] | UnsetType = UNSET
    loss: LossSpec = field(default_factory=LossSpec)
    minimize: str | dict[str, float] = "loss"
    budgets: list[BudgetRow] = []
    couplings: list[CouplingRow] = []
    pins: dict[str, str] = {}
    interactions: list[InteractionRow] = []
    provenance: dict[str, Any] | UnsetType = UNSET
    meta: Any = UNSET


class CertificateSpec(Struct, kw_only=True, omit_defaults=False):
    """The kind of proof, and whether the core has checked it."""

    kind: Literal["multipliers", "core", "tree", "dual", "threshold", "enumeration"] | None
    checked: bool


class SolutionFile(Struct, kw_only=True):
    """solution.json, version 1."""

    format: Literal["allocation-solution"]
    version: Literal[1]
    status: Literal["optimal", "feasible", "infeasible", "unknown"] = "unknown"
    claim: Literal["optimal", "infeasible"] | None = None
    objective: float | None = None
    loss: float | None = None
    proven_bound: float | None = None
    claimed_bound: float | None = None
    gap: float | None = None
    certificate: CertificateSpec | None = None
    choices: dict[str, str] | None = None
    actions: dict[str, dict[str, Any]] = {}
    modules: dict[str, list[str]] = {}
    totals: dict[str, Number] = {}
    multipliers: list[float | None] = []
    slack: list[float | None] = []
    limit: str | None = None
    reasons: list[str] = []
    solver: dict[str, Any] = {}
    problem: dict[str, Any] = {}
    run: dict[str, Any] = {}
