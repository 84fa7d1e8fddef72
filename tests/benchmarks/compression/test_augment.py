import itertools

import torch
from torch.nn.functional import pad

from benchmarks.compression.augment import SHIFT, augment


def test_every_picture_is_one_of_its_shifts_or_of_their_mirror_images():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(300, 2, 6, 7, generator=generator)
    found = augment(images, -1.0, generator)
    assert found.shape == images.shape
    padded = pad(images, (SHIFT,) * 4, value=-1.0)
    matches = torch.stack(
        [
            (found == shifted).flatten(1).all(1)
            for y, x in itertools.product(range(2 * SHIFT + 1), repeat=2)
            for cut in [padded[:, :, y : y + 6, x : x + 7]]
            for shifted in (cut, cut.flip(3))
        ]
    )
    assert (matches.sum(0) == 1).all()
    drawn = matches.sum(1)
    assert len(drawn) == 50  # 25 shifts, each also in a mirror; six of each are expected
    assert drawn.count_nonzero() >= 45
    assert drawn.max() < 20


def test_the_same_generator_gives_the_same_pictures():
    images = torch.rand(20, 1, 28, 28)
    first, again, other = (augment(images, 0.0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
