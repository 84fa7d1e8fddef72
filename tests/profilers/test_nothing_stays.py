"""A profile leaves nothing of itself in memory."""

import gc
import weakref

import pytest

from allocator.applier.approximate import Approximator
from allocator.listing import listed
from allocator.profiling import profile
from profilers._plan import Target

NAMES = [one.name for one in listed("profilers") if one.available and one.name != "latency"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["lm", "cnn"])
def test_layers_and_what_was_worked_out_for_them_go(workload_of, space, monkeypatch, name, model):
    made = []
    for kind in (Target, Approximator):
        begin = kind.__init__

        def watching(self, *args, begin=begin, **options):
            begin(self, *args, **options)
            made.append(weakref.ref(self))

        monkeypatch.setattr(kind, "__init__", watching)
    gc.collect()
    gc.disable()  # rings through autograd's graph are not found anyway
    try:
        profile(
            workload_of(model), space, tuple({name, "weight_error"})
        )  # which gives a score where the other has none
        left = [type(one()).__name__ for one in made if one() is not None]
    finally:
        gc.enable()
    assert made
    assert left == []
