"""A measurement that was stopped goes on from its parts, and ends with the same bytes."""

import numpy as np
import pytest

from allocator.profiling import profile
from profilers.ggn import Ggn
from profilers.kl import Kl


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("statistic", [Kl(), Ggn(sketches=2, diagonal=True)], ids=["kl", "ggn"])
def test_a_stopped_run_goes_on(workload_of, space, tmp_path, statistic):
    whole = profile(workload_of("twice"), space, statistic)
    name = next(iter(whole.scores))

    def stop_early(stage, done, total):
        if any(tmp_path.iterdir()):
            raise StoppedError

    with pytest.raises(StoppedError):
        profile(workload_of("twice"), space, statistic, progress=stop_early, resume=tmp_path)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left
    assert all(p.endswith(".npz") for p in left)
    times = {p: (tmp_path / p).stat().st_mtime_ns for p in left}
    resumed = profile(workload_of("twice"), space, statistic, resume=tmp_path)
    assert np.array_equal(resumed.scores[name], whole.scores[name])
    assert np.array_equal(resumed.stderr[name], whole.stderr[name])
    assert {p: (tmp_path / p).stat().st_mtime_ns for p in left} == times


def test_a_part_that_cannot_be_read_is_measured_again(workload_of, space, tmp_path):
    whole = profile(workload_of("twice"), space, Kl(), resume=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    again = profile(workload_of("twice"), space, Kl(), resume=tmp_path)
    assert np.array_equal(again.scores["kl"], whole.scores["kl"])


def test_parts_of_other_options_are_not_used(workload_of, space, tmp_path):
    first = profile(workload_of("twice"), space, Ggn(seed=0), resume=tmp_path)
    second = profile(workload_of("twice"), space, Ggn(seed=1), resume=tmp_path)
    assert not np.array_equal(first.scores["ggn"], second.scores["ggn"])
