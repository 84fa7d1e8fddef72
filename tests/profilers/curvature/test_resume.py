"""What was stopped goes on from its parts, and ends with the same bytes."""

import numpy as np
import pytest

from allocator.profiling import profile
from profilers.hessian import Hessian
from profilers.hessian_trace import HessianTrace
from profilers.kfac import Kfac
from profilers.lanczos import Lanczos


class StoppedError(Exception):
    pass


SOME = [
    Hessian(),
    HessianTrace(method="hutchinson", probes=20),
    HessianTrace(pieces=2),
    Lanczos(count=2, steps=12, pieces=2, probes=6),
    Kfac(cache_bytes=3 * 4 * 61),
]


@pytest.mark.parametrize("statistic", SOME, ids=["hessian", "hutchinson", "hutchpp", "lanczos", "kfac"])
def test_a_stopped_run_goes_on(true_loss, space, tmp_path, statistic):
    whole = profile(true_loss("embedding"), space, statistic)
    name = next(iter(whole.scores))

    def stop_early(stage, done, total):
        if any(tmp_path.iterdir()):
            raise StoppedError

    with pytest.raises(StoppedError):
        profile(true_loss("embedding"), space, statistic, progress=stop_early, resume=tmp_path)
    left = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert left
    resumed = profile(true_loss("embedding"), space, statistic, resume=tmp_path)
    assert np.array_equal(resumed.scores[name], whole.scores[name])
    assert np.array_equal(resumed.stderr[name], whole.stderr[name])
    assert {p: (tmp_path / p).stat().st_mtime_ns for p in left} == left
