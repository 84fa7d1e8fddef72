"""Each recipe's rule on numbers that can be followed by hand."""

import numpy as np
import pytest

from allocator.errors import UsageError
from allocator.methods.certifying import Certified
from allocator.methods.exl2 import filled
from allocator.methods.modelopt_gradient import falling
from allocator.methods.running import budgeted, method_named
from allocator.statement import Basis, Budget, Pairs


def taken(chosen):
    return list(chosen.solution.choices.values())


@pytest.fixture
def uncertified(monkeypatch):
    """No network to measure on: the rule alone."""
    nothing = Certified(gain=0.0, measured=0.0, stderr=0.0, remainder=0.0, samples=2)
    monkeypatch.setattr("allocator.methods.certifying.certify", lambda *_: nothing)
    monkeypatch.setattr("allocator.methods.lossless.Lossless.data", lambda self, workload: workload)


COSTS = [[1, 2, 4], [1, 2, 4]]


def test_hawq_takes_the_least_sum_of_sensitivities(table, choose):
    # Ω = average trace · ‖Δ‖²: layer 0 has trace 2 and errors 4, 1, 0; layer 1 trace 1 and 5, 3, 0 (halved, ½ Ω).
    problem = table(COSTS, hessian_trace=[[4, 1, 0], [2.5, 1.5, 0]])
    # 5 bytes: (4, 1) costs 0 + 2.5, (1, 4) 4 + 0, (2, 2) 1 + 1.5 = 2.5 for 4 bytes; ties are the core's: value is 2.5
    assert choose("hawq_v2", problem, 5).predicted == 2.5
    assert taken(choose("hawq_v2", problem, 6)) == ["c1", "c2"]  # 1 + 0 against 0 + 1.5
    assert choose("hawq_v3", problem, 6).predicted == 1  # the same programme, by an integer program


def test_hawq_v3_has_two_widths_in_the_manner_of_the_space(space):
    (rule,) = method_named("hawq_v3").space(space).rules
    assert [choice["bits"] for choice in rule.choices] == [4, 8]
    assert {choice["granularity"] for choice in rule.choices} == {"channel"}
    (rule,) = method_named("hawq_v3[bits=2+8]").space(space).rules
    assert [choice["bits"] for choice in rule.choices] == [2, 8]
    with pytest.raises(UsageError, match="two widths"):
        method_named("hawq_v3[bits=4]").space(space)


def test_llc_adds_the_measured_gap_to_the_signed_first_order(table, choose, uncertified):
    # first order −1, −.1, 0 looks best at one byte, but its gap is 1.5: −1 + 1.5 > −.1 + 0
    problem = table(
        COSTS,
        remainder={"first_order": [[1.5, 0, 0], [0.2, 0.1, 0]]},
        first_order=[[-1, -0.1, 0], [0.1, 0.1, 0]],
    )
    found = choose("llc", problem, 4)
    assert taken(found) == ["c1", "c1"]  # −.1 + (.1 + .1) = .1; c0 for either costs .2 or .4 more
    assert found.solution.loss == pytest.approx(0.1)
    assert found.predicted == pytest.approx(0.0)  # the first order alone: what is held against the measurement


def test_compact_low_rank_is_the_smallest_that_is_predicted_to_cost_nothing(table, choose, uncertified):
    slopes, gaps = [[-0.3, -0.5, 0], [0.2, 0.1, 0]], [[0.4, 0.1, 0], [0.1, 0.1, 0]]
    near = [[0.1, 0.1, 0], [0.1, 0.1, 0]]
    problem = table(COSTS, remainder={"component_slopes": gaps}, component_slopes=slopes, weight_error_relative=near)
    # with gaps: layer 0 .1, −.4, 0; layer 1 .3, .2, 0. Sum ≤ 0: (c1, c0) at −.1 is 3 bytes, (c0, c0) at .4 is too much
    assert taken(choose("compact_low_rank", problem, None)) == ["c1", "c0"]
    far = table(
        COSTS, remainder={"component_slopes": gaps}, component_slopes=slopes,
        weight_error_relative=[[0.1, 0.1, 0], [0.9, 0.1, 0]],
    )  # fmt: skip
    assert taken(choose("compact_low_rank", far, None)) == ["c1", "c1"]  # .9 > γ² = .81 is forbidden: −.4 + .2
    assert choose("compact_low_rank", problem, 2).solution.status == "infeasible"


def test_lossless_low_rank_takes_the_least_signed_slope_within_gamma(table, choose, uncertified):
    problem = table(
        COSTS, component_slopes=[[-0.3, 0.1, 0], [-9, 0.1, 0]], weight_error_relative=[[0.5, 0.1, 0], [0.99, 0.1, 0]]
    )
    assert taken(choose("lossless_low_rank", problem, 6)) == ["c0", "c2"]  # −.3 + 0; −9 lies beyond γ


@pytest.mark.parametrize(
    ("before", "after", "remainder", "lossless"),
    [  # table 2 of arXiv 2412.06868, and the least gap of its table 1
        (1.2470, 1.2457, 0.00228, False),  # ResNet-18
        (1.0812, 1.0787, 0.00432, False),  # ResNet-34
        (1.0019, 0.9854, 0.00642, True),  # ResNet-50
    ],
)
def test_published_gains_are_certified_only_above_their_published_gaps(before, after, remainder, lossless):
    found = Certified(gain=before - after, measured=after - before, stderr=0.0, remainder=remainder, samples=50_000)
    assert found.lossless is lossless
    assert found.margin == pytest.approx(before - after - remainder)
    assert found.words.startswith("lossless" if lossless else "not certified, short by")


def test_a_standard_error_can_take_the_certificate_away():
    assert Certified(gain=1.0, measured=-0.8, stderr=0.1, remainder=0.2, samples=9).lossless
    assert not Certified(gain=1.0, measured=-0.8, stderr=0.9, remainder=0.2, samples=9).lossless


def test_relative_error_is_the_least_common_one_that_fits(table, choose):
    # ‖Δ‖²/‖W‖² with ‖W‖² = 10, 100: layer 0 .8, .2, 0; layer 1 .5, .3, 0
    problem = table(COSTS, stats={"norm": [10, 100]}, weight_error_sum=[[8, 2, 0], [50, 30, 0]])
    assert taken(choose("relative_error", problem, 4)) == ["c1", "c1"]  # δ² = .3; one byte less takes .5
    assert taken(choose("relative_error", problem, 3)) == ["c1", "c0"]


def test_clado_counts_pairs(table, choose):
    problem = table([[1, 4], [1, 4], [1, 4]], measured_pairs=[[0.1, 0], [0.2, 0], [0.3, 0]])
    cancel = Pairs("measured_pairs", np.array([[2, 4], [0, 2]]), np.array([-0.45, 0.5]))
    # two layers at 1 byte, one at 4: alone the first two are cheapest (.3); with pairs 0 and 1 cost .8, 1 and 2 .05
    found = choose("clado[clip=false]", problem.replace(interactions=(cancel,)), 6)
    assert taken(found) == ["c1", "c0", "c0"]
    assert found.predicted == pytest.approx(0.05)
    assert found.said == ""


def test_cet_lets_errors_cancel_along_the_steep_axis(table, choose):
    # one axis of curvature 2: v = 1 for layer 0, −1 for layer 1, 1 for layer 2; each alone costs ½·2·1 = 1
    problem = table([[1, 4], [1, 4], [1, 4]], lanczos=[[1, 0], [1, 0], [1, 0]])
    axis = Basis("lanczos", np.array([2.0]), np.array([[1.0], [0], [-1], [0], [1], [0]]))
    found = choose("cet", problem.replace(interactions=(axis,)), 6)
    assert found.predicted == pytest.approx(0)  # layer 1 with 0 or 2: (1 − 1)² = 0; 0 with 2 would be (1 + 1)² = 4
    assert taken(found)[1] == "c0"
    assert found.said == "0 % of the curvature found points downhill and was dropped"


def test_modelopt_scores_fall_with_the_cost(table, choose):
    cost, indptr = np.array([4, 1, 2, 1, 2]), np.array([0, 3, 5])
    assert falling(np.array([3.0, 2, 5, 1, 7]), cost, indptr).tolist() == [2, 2, 2, 1, 1]
    problem = table(COSTS, output_fisher=[[3, 5, 0], [2, 1, 0]])  # the 5 becomes 3: nothing gained for its byte
    assert choose("modelopt_gradient", problem, 5).predicted == 2  # (4, 1): 0 + 2; (2, 2): 3 + 1
    assert taken(choose("modelopt_gradient", problem, 5)) == ["c2", "c0"]


def test_modelopt_kl_minimises_the_largest_and_leaves_the_rest(table, choose):
    problem = table([[1, 2, 3], [1, 2, 4]], kl=[[9, 3, 0], [5, 4, 0]])
    # thresholds that fit 5 bytes: 4 → (c1, c1), 4 bytes; 3 → (c1, c2), 6. (c2, c1) would take 5, and stays unused
    assert taken(choose("modelopt_kl", problem, 5)) == ["c1", "c1"]
    assert taken(choose("modelopt_kl", problem, 3)) == ["c1", "c0"]  # 5, where the least sum would be the same


def test_acip_drops_by_loss_and_not_by_loss_per_byte(table, choose):
    # steps: layer 0 .2 for 2 bytes, then .5 for 1; layer 1 .3 for 20, then 1 for 10. 4 + 40 − 22 = 22 are left at .3
    problem = table([[1, 2, 4], [10, 20, 40]], ggn=[[0.7, 0.2, 0], [1.3, 0.3, 0]])
    assert taken(choose("acip", problem, 24)) == ["c1", "c1"]  # (c2, c1) would fit too, and lose less
    assert taken(choose("acip", problem, 42)) == ["c1", "c2"]
    # by steps, .2 and .5 against .45 and .45, the second of layer 1 goes before the second of layer 0; by losses .7, .9
    assert taken(choose("acip", table(COSTS, ggn=[[0.7, 0.2, 0], [0.9, 0.45, 0]]), 3)) == ["c1", "c0"]


def test_radio_fills_water_by_its_own_curve(table, choose):
    # d_l = a_l·4^−B at one byte a bit: B_0 − B_1 = ½ log2(a_0/a_1) = ½ log2 16 = 2; sum 8 gives 5 and 3
    costs = [list(range(1, 9))] * 2
    falls = [[8, 7, 6, 5, 4, 3, 2, 1]] * 2
    rate = 2 * np.log(2)
    problem = table(costs, stats={"rd_scale": [16, 1], "rd_decay": [rate, rate]}, weight_error=falls)
    assert taken(choose("radio", problem, 8)) == ["c4", "c2"]


def test_collaborative_compression_fits_the_curves(table, choose):
    bits = np.arange(1, 9)
    problem = table([bits, bits], fisher_empirical=[16 * 4.0**-bits, 1 * 4.0**-bits])
    assert taken(choose("collaborative_compression", problem, 8)) == ["c4", "c2"]


def test_d_rank_shares_by_the_root_of_effective_rank(table, choose):
    # k ∝ √(R/ω): R = 9 and 1, ω = 1: 6 and 2 of 8
    costs, falls = [list(range(1, 9))] * 2, [[8, 7, 6, 5, 4, 3, 2, 1]] * 2
    problem = table(costs, stats={"effective_rank": [9, 1], "rank_cost": [1, 1]}, weight_error=falls)
    assert taken(choose("d_rank", problem, 8)) == ["c5", "c1"]


def test_modegpt_shares_sparsity_by_the_softmax_of_unimportance(table, choose):
    # φ = L φ̄ softmax(−s/ε): s = 0, .15·ln 3, ε = .15 → shares ¾, ¼; of 20 bytes 8 have to go: 6 and 2
    costs, falls = [list(range(1, 11))] * 2, [list(range(10, 0, -1))] * 2
    problem = table(costs, stats={"importance": [0, 0.15 * np.log(3)]}, weight_error=falls)
    assert taken(choose("modegpt", problem, 12)) == ["c3", "c7"]  # 4 and 8 bytes


def test_autoround_forgets_the_sign(table, choose):
    problem = table(COSTS, first_order=[[-5, 1, 0], [1, -0.5, 0]])
    found = choose("autoround_delta", problem, 4)
    assert taken(found) == ["c1", "c1"]
    assert found.predicted == 1.5


def test_exl2_spends_what_annealing_leaves(table, choose):
    problem = table(COSTS, output_error_relative=[[0.4, 0.2, 0.1], [0.5, 0.2, 0.0]])
    assert taken(choose("exl2[powers=2]", problem, 4)) == [
        "c1",
        "c1",
    ]  # every p > 1: .2 and .2 beat .4 and 0, .1 and .5
    roomy = budgeted(method_named("exl2"), problem, (Budget(resource="weight_bytes", max=6),))
    assert filled(roomy, np.array([0, 0])).tolist() == [1, 2]  # .5 first, to its best; then what fits of the other


def test_ompq_gives_bits_to_layers_unlike_the_others(table, choose):
    # θ = e^−(ln 2), e^0 = ½, 1; means over later layers: ¾, 1. Choices of 2, 4 and 8 bits at as many bytes.
    problem = table([[2, 4, 8]] * 2, stats={"likeness": [np.log(2), 0]}, weight_error=[[1, 1, 1]] * 2)
    actions = tuple({"kind": "quantize", "bits": b, "scheme": "symmetric", "granularity": "channel"} for b in (2, 4, 8))
    problem = problem.replace(action_table=actions, action_code=np.array([0, 1, 2] * 2, np.int32))
    found = choose("ompq", problem, 10)
    assert taken(found) == ["c0", "c2"]
    assert found.predicted == pytest.approx(-(2 * 0.75 + 8))


def test_what_is_missing_is_named(table):
    row = (Budget(resource="weight_bytes", max=3),)
    with pytest.raises(UsageError, match=r"hawq_v2 needs the score 'hessian_trace'.*profile with hessian_trace"):
        budgeted(method_named("hawq_v2"), table(COSTS, kl=COSTS), row)
    with pytest.raises(UsageError, match="modelopt_kl needs a budget"):
        budgeted(method_named("modelopt_kl"), table(COSTS, kl=COSTS), ())
