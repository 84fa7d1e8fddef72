import pytest
import torch

from allocator.errors import UsageError
from allocator.space import Rule, Space
from allocator.tasks.measurement import ratio
from allocator.workload import Workload
from profilers._plan import plan
from profilers.component_slopes import ComponentSlopes, _before_a_useful_one
from profilers.first_order import FirstOrder

KEPT = {"kind": "keep", "dtype": "float32"}
SPACE = Space(
    (
        Rule(
            choices=(
                {"kind": "low_rank", "fraction": 0.25},
                {"kind": "low_rank", "fraction": 0.75},
                {"kind": "low_rank", "rank": 1, "components": [1]},
                {"kind": "quantize", "bits": 3, "scheme": "symmetric", "granularity": "channel"},
                KEPT,
            )
        ),
    )
)


def test_a_rank_scores_the_slopes_of_what_it_leaves_out(workload, loss_slopes):
    problem = ComponentSlopes().profile(workload, SPACE)
    found = iter(zip(problem.scores["component_slopes"], problem.stderr["component_slopes"], strict=True))
    ranks = 0
    for target in plan(workload, SPACE).targets:
        weight = target.unit.weight.detach()
        matrix = weight.double().reshape(target.layer.rows, -1)
        for item in target.menu:
            score, error = next(found)
            rank = getattr(item.action, "rank", None)
            if rank is None:
                changes = {name: delta for place, delta in target.changes() for name in [target.menu[place].name]}
                if item.name not in changes:
                    assert score == error == 0
                    continue
                delta = changes[item.name]
            else:  # the truncation itself, by a dense decomposition
                u, s, v = torch.linalg.svd(matrix, full_matrices=False)
                kept = item.action.components or range(rank)
                out = [i for i in range(len(s)) if i not in kept]
                delta = (-(u[:, out] * s[out]) @ v[out]).reshape(weight.shape).float()
                ranks += 1
            slopes, counts = loss_slopes(workload, target.unit.weight, delta)
            wanted = ratio(slopes, counts)
            assert score == pytest.approx(wanted.value, rel=2e-3, abs=2e-3 * wanted.stderr + 1e-9)
            assert error == pytest.approx(wanted.stderr, rel=2e-3, abs=1e-9)
    assert ranks > 1
    notes = problem.notes.meta["profilers"]["component_slopes"]
    assert "slopes" not in notes
    assert 0 <= notes["not_in_a_tail"] <= notes["that_raise_the_loss"] <= notes["components"]


def test_rounded_factors_differ_from_it_only_by_their_rounding(workload_of):
    problem = ComponentSlopes().profile(workload_of("cnn"), SPACE)
    whole = FirstOrder().profile(workload_of("cnn"), SPACE)
    ranks = [c.row for g in problem.groups for c in g.choices if c.action["kind"] == "low_rank"]
    near, far = problem.scores["component_slopes"][ranks], whole.scores["first_order"][ranks]
    assert near == pytest.approx(far, abs=0.1 * abs(far).max())
    assert (near != far).any()


def test_components_before_useful_ones():
    assert _before_a_useful_one([True, False, True, True]) == 1  # the last two are a tail, and go with any rank
    assert _before_a_useful_one([True, True]) == 0


def test_one_sample_is_refused(workload_of):
    workload = workload_of("embedding")
    single = Workload(workload.model, list(workload.calibration)[:1], workload.evaluation, workload.task)
    with pytest.raises(UsageError, match="component_slopes needs at least 2"):
        ComponentSlopes().profile(single, SPACE)
