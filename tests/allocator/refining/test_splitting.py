"""Calibration data cut in two: nothing is lost, nothing is shared, batches that hang together stay whole."""

import pytest

from allocator.errors import UsageError
from allocator.refining.samples import cuts
from allocator.splitting import halves, hang_together, split
from allocator.tasks.batches import count
from allocator.workload import Workload


@pytest.mark.parametrize(
    ("rows", "first", "last"),
    [
        ((24, 16), [24, 6], [10]),
        ((40,), [30], [10]),
        ((4, 4, 4, 4), [4, 4, 4], [4]),
        ((1, 1, 1, 1, 1), [1, 1, 1], [1, 1]),
        ((2, 2), [2], [2]),
        ((3, 2, 30), [3, 2, 22], [8]),
    ],
)
def test_the_last_quarter_validates(workload_of, rows, first, last):
    workload = workload_of(rows=rows)
    parted = split(workload)
    assert [count(batch) for batch in parted.calibration] == first
    assert [count(batch) for batch in parted.evaluation] == last
    assert parted.digests("calibration") + parted.digests("evaluation") == workload.digests()
    assert parted.model is workload.model


def test_batches_that_hang_together_are_not_cut(workload_of):
    workload = workload_of("embedding", rows=(5, 4, 6, 3, 5, 4, 3, 6, 5, 4, 4, 4))
    assert hang_together(workload)
    parted = split(workload)
    assert [count(batch) for batch in parted.calibration] == [5, 4, 6, 3, 5, 4, 3, 6, 5]
    assert [count(batch) for batch in parted.evaluation] == [4, 4, 4]
    assert not hang_together(workload_of())
    assert not hang_together(workload_of("lm"))
    assert not hang_together(workload_of(rows=(1, 1)))


@pytest.mark.parametrize(("name", "rows"), [("tied", (3,)), ("tied", (1, 1, 1)), ("embedding", (9, 9, 9))])
def test_too_few_samples_are_refused(workload_of, name, rows):
    with pytest.raises(UsageError, match=f"calibration data of {name} have too few samples"):
        split(workload_of(name, rows=rows))


def test_a_row_that_stands_in_both_parts_validates_nothing(workload_of):
    workload = workload_of(rows=(16,))
    images, classes = workload.calibration[0]
    rows = [*range(12), 0, 12, 5, 13]
    doubled = [(images[rows], classes[rows])]
    parted = split(Workload(workload.model, doubled, workload.evaluation, workload.task))
    parted.check()  # shares no sample
    seen, kept = parted.digests("calibration"), parted.digests("evaluation")
    assert seen == workload.digests()[:12]
    assert kept == workload.digests()[12:14]
    four = [(images.repeat(4, 1, 1, 1), classes.repeat(4))]
    with pytest.raises(UsageError, match="too few samples"):
        split(Workload(workload.model, four, workload.evaluation, workload.task))


def test_the_evaluation_data_are_not_looked_at(workload):
    class Forbidden:
        def __iter__(self):
            raise AssertionError("evaluation data were read")

    split(Workload(workload.model, workload.calibration, Forbidden(), workload.task))


def test_cuts_give_enough_positions(workload_of):
    assert cuts(workload_of(rows=(40, 20))) == range(32, 61)
    assert cuts(workload_of(rows=(10,))) == range(10, 11)
    assert cuts(workload_of("lm", rows=(24, 16))) == range(7, 41)  # five positions in a text of six tokens
    assert list(cuts(workload_of("embedding", rows=(5, 4, 30, 6)))) == [39, 45]
    assert list(cuts(workload_of("embedding", rows=(5, 4, 6)))) == [15]
    assert list(cuts(workload_of("embedding", rows=(40, 4, 6)))) == [44, 50]


def test_halves_share_no_sample_and_keep_the_evaluation_data(workload_of):
    workload = workload_of(rows=(24, 16))
    first, second = halves(workload)
    assert first.digests() + second.digests() == workload.digests()
    assert (len(first.digests()), len(second.digests())) == (20, 20)
    assert all(half.digests("evaluation") == workload.digests("evaluation") for half in (first, second))


def test_too_few_samples_for_two_halves_do_both_with_a_warning(workload_of):
    workload = workload_of(rows=(3,))
    with pytest.warns(UserWarning, match="look better than they are. Give 4 samples or more"):
        first, second = halves(workload)
    assert first is second is workload
