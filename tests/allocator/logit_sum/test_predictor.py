import itertools
import json

import numpy as np
import pytest

from allocator.errors import UsageError
from allocator.logit_sum import LogitSum, Manifest, Positions, StoredGroup, Writer


def all_of(problem):
    return np.array(list(itertools.product(*(range(n) for n in problem.sizes.tolist()))))


def test_every_allocation_is_predicted_as_its_logits_sum(case_of):
    case = case_of(0)
    every = all_of(case.problem)
    true = [case.truth(choice) for choice in every]
    np.testing.assert_allclose(case.model.predict_many(every), true, rtol=1e-9, atol=1e-13)
    assert case.model.predict(np.zeros(4, int)) == pytest.approx(0, abs=1e-14)
    np.testing.assert_allclose([case.model(choice.astype(np.int32), None) for choice in every], true, atol=1e-13)
    assert max(true) > 0.1


def test_changes_of_one_and_two_groups_are_the_predictions_after_them(case_of):
    case = case_of(1)
    choice = np.array([1, 2, 0, 1])
    taken = case.model.rows(choice)
    total = case.model.total(taken)
    start = case.problem.indptr[:-1]
    moves = [(0, k, 2, j) for k in range(3) for j in range(3)]
    found = case.model.changed(taken, total, np.array([[start[g] + k, start[h] + j] for g, k, h, j in moves]))
    for value, (g, k, h, j) in zip(found, moves, strict=True):
        after = choice.copy()
        after[g], after[h] = k, j
        assert value == pytest.approx(case.model.predict(after), rel=1e-12, abs=1e-14)


def test_values_per_sample_and_the_standard_error(case_of):
    case = case_of(2, positions=9)
    counts = np.array([2, 0, 4, 3])
    model = LogitSum(case.problem, case.model.deltas, Positions(case.model.positions.top, None, 0, counts))
    choice = np.array([2, 1, 2, 0])
    sums, found = model.per_sample(choice)
    each = model.positions.divergence(model.total(model.rows(choice)))
    np.testing.assert_allclose(sums, [each[:2].sum(), 0, each[2:6].sum(), each[6:].sum()])
    predicted = model.predicted(choice)
    assert np.array_equal(found, counts)
    assert predicted.value == pytest.approx(each.mean())
    spread = ((sums - predicted.value * counts) ** 2).sum() / 3
    assert predicted.stderr == pytest.approx(np.sqrt(4 * spread) / 9)
    assert model(choice.astype(np.int32), 0.5) == pytest.approx(each[:2].mean())
    assert model(choice.astype(np.int32), 0.6) == pytest.approx(each[:6].mean())


def write(case, folder, finish=True, **other):
    names = [[c.name for c in g.choices] for g in case.problem.groups]
    groups = [StoredGroup(name=f"g{g}", choices=own, actions=[{}] * len(own)) for g, own in enumerate(names)]
    parts = {"model_sha256": "m", "calibration": ["a"], "groups": groups, "classes": 5, "top": 5, "sketches": 0}
    writer = Writer(
        folder,
        Manifest(**{**parts, "seed": 0, "dtype": "float64", "versions": {}, **other}),
    )
    top, deltas = case.model.positions.top, case.model.deltas
    for start, span in ((0, slice(0, 12)), (3, slice(12, None))):
        writer.positions(start, Positions(top[span], None, 0, np.ones(len(top[span]), np.int64)))
        for g in range(len(names)):
            writer.deltas(g, start, deltas[case.problem.indptr[g] : case.problem.indptr[g + 1], span])
    if finish:
        writer.finish()
    return folder


def test_a_store_gives_back_what_was_put_in(case_of, tmp_path):
    case = case_of(3)
    model = LogitSum.load(write(case, tmp_path / "new" / "deltas"), case.problem)
    assert np.array_equal(model.deltas, case.model.deltas)
    assert np.array_equal(model.positions.top, case.model.positions.top)
    assert LogitSum.load(write(case, tmp_path / "new" / "deltas"), case.problem).deltas.shape == model.deltas.shape


def test_a_choice_that_is_not_stored_must_keep_the_weights(case_of, tmp_path):
    case = case_of(4)
    write(case_of(4, choices=2), tmp_path)
    with pytest.raises(UsageError, match="no logit deltas of g0=c2, g1=c2"):
        LogitSum.load(tmp_path, case.problem)
    names = [[c.name for c in g.choices][1:] for g in case.problem.groups]
    only = [StoredGroup(name=f"g{g}", choices=own, actions=[{}] * 2) for g, own in enumerate(names)]
    rows = case.problem.indptr[:-1]
    folder = tmp_path / "without"
    without = np.delete(case.model.deltas, rows, 0).reshape(4, 2, 20, 5)
    writer = Writer(
        folder,
        Manifest(model_sha256="m", calibration=[], groups=only, classes=5, top=5, sketches=0, seed=0, dtype="float64",
                 versions={}),
    )  # fmt: skip
    writer.positions(0, case.model.positions)
    for g in range(4):
        writer.deltas(g, 0, without[g])
    writer.finish()
    assert np.array_equal(LogitSum.load(folder, case.problem).deltas, case.model.deltas)


def test_a_store_of_another_model_or_an_unfinished_or_changed_one_is_refused(case_of, tmp_path):
    case = case_of(5)
    with pytest.raises(UsageError, match="there is no such file"):
        LogitSum.load(tmp_path, case.problem)
    write(case, tmp_path, finish=False)
    with pytest.raises(UsageError, match="not finished; run it again"):
        LogitSum.load(tmp_path, case.problem)
    write(case, tmp_path)
    for key, value, words in [
        ("model_sha256", "n", "another model"),
        ("calibration", ["b"], "other calibration samples"),
        ("groups", [], "other groups or choices"),
        ("seed", 1, "seed=0, not 1"),
    ]:
        with pytest.raises(UsageError, match=f"{words}.*name another folder"):
            write(case, tmp_path, **{key: value})
    LogitSum.load(tmp_path, case.problem)  # refusing has touched nothing
    stated = json.loads((tmp_path / "manifest.json").read_text())
    path = tmp_path / "00001-00003.npz"
    path.write_bytes((tmp_path / "00001-00000.npz").read_bytes())
    with pytest.raises(UsageError, match="is not the file that"):
        LogitSum.load(tmp_path, case.problem)
    (tmp_path / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(UsageError, match="is no manifest of logit deltas"):
        LogitSum.load(tmp_path, case.problem)
    write_at = tmp_path / "shape"
    write(case, write_at, top=4)
    with pytest.raises(UsageError, match="holds top in shape"):
        LogitSum.load(write_at, case.problem)
    for wrong in (
        {"files": {"../x.npz": ""}},
        {"dtype": "object"},
        {"groups": [{"name": "g", "choices": ["a"], "actions": []}]},
    ):
        found = {**stated, **wrong}
        (tmp_path / "manifest.json").write_text(json.dumps(found))
        with pytest.raises(UsageError, match="name another folder"):
            LogitSum.load(tmp_path, case.problem)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(UsageError, match="holds files but no manifest"):
        write(case, tmp_path)


def test_a_problem_that_names_another_model_is_refused(case_of, tmp_path):
    case = case_of(6)
    write(case, tmp_path)
    notes = type(case.problem.notes)(provenance={"model_sha256": "other"})
    with pytest.raises(UsageError, match="another model than this problem"):
        LogitSum.load(tmp_path, case.problem.replace(notes=notes))


def test_deltas_of_another_shape_are_refused(case_of):
    case = case_of(7)
    with pytest.raises(UsageError, match="shape"):
        LogitSum(case.problem, case.model.deltas[1:], case.model.positions)


def test_deltas_of_some_choices_alone(case_of):
    case = case_of(8, groups=3)
    kept = np.array([0, 2, 3, 4, 7, 8])
    place = np.full(9, -1)
    place[kept] = np.arange(6)[::-1]
    some = LogitSum(case.problem, case.model.deltas[kept][::-1], case.model.positions, place)
    for choice in ([0, 0, 1], [2, 1, 2]):
        assert some.predict(choice) == case.model.predict(choice)
        assert some.predict_many([choice])[0] == case.model.predict_many([choice])[0]
        assert some(np.array(choice), 0.3) == case.model(np.array(choice), 0.3)
    taken, moves = np.array([0, 3, 7]), np.array([[2, 4], [2, 8]])
    whole = case.model.changed(taken, case.model.total(taken), moves)
    assert np.array_equal(some.changed(taken, some.total(taken), moves), whole)
    with pytest.raises(UsageError, match="choice 'c1' of group 'g0' has no logit deltas"):
        some.predict([1, 0, 1])
    with pytest.raises(UsageError, match="places of logit deltas"):
        LogitSum(case.problem, case.model.deltas[kept], case.model.positions, place + 1)
