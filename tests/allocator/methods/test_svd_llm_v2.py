"""The rule of SVD-LLM V2 by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.methods.svd_llm_v2 import removed
from allocator.names import Names


def bytes_of(found, costs):
    return [cost[int(name[1:])] for cost, name in zip(costs, found.solution.choices.values(), strict=True)]


def test_svd_llm_v2_shares_by_the_reciprocal_of_the_logarithm():
    # L = e², e⁴: 1/ln L = ½, ¼; of 2·.3 the first gives up ⅔, the second ⅓
    assert removed(np.exp([2, 4]), 0.3) == pytest.approx([0.4, 0.2])
    assert removed(np.exp([2, 4, 4]), 0.3) == pytest.approx([0.45, 0.225, 0.225])
    # 1/e and e: scaled to e and e³, so that 1 and ⅓ are shared
    assert removed(np.exp([-1, 1]), 0.3) == pytest.approx([0.45, 0.15])
    assert removed([5, 5], 0.3) == pytest.approx([0.3, 0.3])
    assert removed([0, 0], 0.3) == pytest.approx([0.3, 0.3])
    assert removed([7], 0.3) == pytest.approx([0.3])


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=6), st.floats(0.01, 1))
def test_svd_llm_v2_gives_up_less_where_more_is_lost(losses, ratio):
    found = removed(losses, ratio)
    assert found.mean() == pytest.approx(ratio)
    assert (found > 0).all()
    order = np.argsort(losses, kind="stable")
    assert (np.diff(found[order]) <= 1e-12).all()


def test_svd_llm_v2_takes_the_largest_ranks_within_the_least_ratio(choose, table):
    """Two layers of 100 weights and ten ranks of 10 bytes; a third, of another type, gives up the ratio itself."""
    costs = [[*range(10, 100, 10), 400]] * 3
    losses = np.array([[np.exp(4)] * 9 + [0], [np.exp(8)] * 9 + [0], [1e-3] * 9 + [0]])  # squared norms: ln L = 2, 4
    problem = table(costs, output_error_sum=losses).replace(
        group_names=Names(3, ("a.0.up", "a.1.up", "a.0.down")), weights=np.array([100, 100, 100])
    )
    factor = {"kind": "quantize", "bits": 8}
    ranks = [{"kind": "low_rank", "rank": k, "left": factor, "right": factor} for k in range(1, 10)]
    problem = problem.replace(
        action_table=(*ranks, {"kind": "keep", "dtype": "float32"}),
        action_code=np.tile(np.arange(10, dtype=np.int32), 3),
    )
    # R = .3 leaves .6, .8 and .7 of 100 bytes. R a step less would leave more than 70 of the last, still rank 7
    found = choose("svd_llm_v2", problem, 210)
    assert bytes_of(found, costs) == [60, 80, 70]
    assert choose("svd_llm_v2", problem, 29).solution.status == "infeasible"
    assert bytes_of(choose("svd_llm_v2", problem, 30), costs) == [10, 10, 10]
    assert bytes_of(choose("svd_llm_v2", problem, 1200), costs) == [400, 400, 400]
    others = problem.replace(group_names=Names(3, ("up", "gate", "down")))  # three types: nothing to share out
    assert bytes_of(choose("svd_llm_v2", others, 210), costs) == [70, 70, 70]
