"""Logit deltas in the form in which they are kept: see `allocator.logit_sum.Positions`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from allocator.logit_sum import Positions

TABLES = 16
"""Sets of random signs that positions take in turn: the noise of a sketch then averages out over positions."""

AT_ONCE = 1 << 20
"""Logits turned into float64 at a time: 8 MB, which a processor's cache holds."""

Table: TypeAlias = Tensor
"""Signs [TABLES, K, d], int8."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How deltas are kept.

    Attributes:
        classes: of a position, the most of all batches; batches that have fewer are filled up with classes of p = 0.
        top: classes of a position that are followed one by one: those most likely to the float network.
        sketches: d, random sums of the rest.
        seed: of their signs.
    """

    classes: int
    top: int
    sketches: int
    seed: int

    @property
    def whole(self) -> bool:
        """Whether every class is followed, and there is no rest."""
        return self.classes <= self.top

    @property
    def dtype(self) -> torch.dtype:
        """Of stored numbers: half precision for the many of a large vocabulary, 5e-4 of each delta at most."""
        return torch.float32 if self.whole else torch.float16

    def signs(self) -> Table:
        """Random ±1, the same in every run."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (TABLES, self.classes, self.sketches)
        return torch.randint(0, 2, shape, generator=generator, dtype=torch.int8) * 2 - 1


def positions(form: Form, logits: Tensor, mask: Tensor | None) -> Positions:
    """The float network's side of a batch with logits [N, …positions, K]; masked positions are left out."""
    flat, counts = _kept(logits, mask)
    kept: list[Tensor] = []
    rest: list[Tensor] = []
    for part in _steps(flat):
        p = _filled(form, torch.softmax(part.double(), -1))
        if form.whole:
            kept.append(p)
            continue
        top = p.topk(form.top, -1)
        kept.append(top.values)
        rest.append(p.scatter(-1, top.indices, 0.0).sum(-1))
    return Positions(
        torch.cat(kept).cpu().numpy(),
        None if form.whole else torch.cat(rest).cpu().numpy(),
        0 if form.whole else form.sketches,
        counts.numpy(),
    )


def deltas(form: Form, logits: Tensor, changed: Tensor, mask: Tensor | None, signs: Table | None) -> Tensor:
    """δ = changed − logits of a batch [P, F], less its mean under the float network, which the softmax does not see.

    ``signs`` are those of the form; None where it follows every class.
    """
    before, after = _kept(logits, mask)[0], _kept(changed, mask)[0]
    done = 0
    out: list[Tensor] = []
    for z, y in zip(_steps(before), _steps(after), strict=True):
        p = torch.softmax(z.double(), -1)
        delta = y.double().sub_(z)
        delta -= _mean(p, delta)
        p, delta = _filled(form, p), _filled(form, delta)
        out.append(delta if signs is None else _folded(form, p, delta, signs, done))
        done += len(z)
    limit = torch.finfo(form.dtype).max
    return torch.cat(out).clamp(-limit, limit).to(form.dtype).cpu()


def _folded(form: Form, p: Tensor, delta: Tensor, signs: Table, done: int) -> Tensor:
    """δ of the top classes, the mean of the rest, and its sketches [P, top + 1 + d]; p and δ are used up.

    ``done`` positions of the batch came before.
    """
    top = p.topk(form.top, -1).indices
    exact = delta.gather(-1, top)
    p = p.scatter_(-1, top, 0.0)
    mass = p.sum(-1, keepdim=True)
    mean = torch.where(mass > 0, _mean(p, delta) / mass, 0.0)
    spread = delta.sub_(mean).float().mul_(p.float().sqrt_())
    sketch = spread.new_empty((len(delta), form.sketches))
    for place in range(min(TABLES, len(delta))):
        table = signs[(done + place) % TABLES].to(spread)
        sketch[place::TABLES] = spread[place::TABLES] @ table
    sketch = torch.where(mass > 0, sketch.double() / (mass * form.sketches).sqrt(), 0.0)
    return torch.cat([exact, mean, sketch], -1)


def _mean(p: Tensor, delta: Tensor) -> Tensor:
    """Σ p δ [P, 1]; a product, so that nothing of the size of the vocabulary is made for it."""
    return torch.bmm(p[:, None], delta[:, :, None])[:, 0]


def _kept(logits: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(logits of the positions that count [P, K], how many each sample has [N])."""
    flat = logits.reshape(len(logits), -1, logits.shape[-1])
    if mask is None:
        return flat.flatten(0, 1), torch.full((len(flat),), flat.shape[1], dtype=torch.int64)
    wanted = mask.reshape(len(flat), -1)
    return flat[wanted.to(flat.device)], wanted.sum(1).cpu()


def _filled(form: Form, part: Tensor) -> Tensor:
    """With zeros for the classes that other batches have beyond these."""
    return torch.nn.functional.pad(part, (0, form.classes - part.shape[-1])) if form.classes > part.shape[-1] else part


def _steps(flat: Tensor) -> Iterator[Tensor]:
    step = max(TABLES, AT_ONCE // flat.shape[-1])
    return (flat[i : i + step] for i in range(0, len(flat), step))
