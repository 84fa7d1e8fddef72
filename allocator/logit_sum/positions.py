"""Where divergences are predicted: the float network's answer at every position, and the arithmetic of its change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.statement import FloatArray, IntArray

STEEP = 300.0  # logits that rise by more have their largest taken out before exp


@dataclass(frozen=True, eq=False)
class Positions:
    """P positions of S samples, each with T classes of its own that are followed one by one and a tail of the rest.

    A delta has F numbers per position, all linear in δ, so that deltas of layers add: δ of the T classes; and if there
    is a tail, m = Σ_tail p δ / p_tail and r, d random ±1 sums of √(p / p_tail) (δ − m) over the tail, divided by √d:
    E ‖r‖² is the variance of δ in the tail. Then

        KL(p ‖ softmax(z + δ)) ≈ ln(Σ_top p e^δ + p_tail e^(m + ½‖r‖²)) − Σ_top p δ − p_tail m,

    exact without a tail, and with one to the third order in the tail's spread but for the noise of r.

    Attributes:
        top: p of the followed classes [P, T].
        tail: p of all others together [P]; None where T is all there are.
        sketches: d.
        counts: positions of each sample [S]; they stand one sample after another.
    """

    top: FloatArray
    tail: FloatArray | None
    sketches: int
    counts: IntArray

    @property
    def width(self) -> int:
        """F."""
        return int(self.top.shape[1]) + (0 if self.tail is None else 1 + self.sketches)

    @cached_property
    def sample(self) -> IntArray:
        """Sample of each position [P]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def weights(self) -> FloatArray:
        """p of what stands in each column of `soft` [P, T or T + 1]."""
        return self.top if self.tail is None else np.concatenate([self.top, self.tail[:, None]], axis=1)

    def soft(self, delta: NDArray[Any]) -> FloatArray:
        """Exponents of the T classes and the tail […, P, T or T + 1] of deltas […, P, F]."""
        classes = self.top.shape[1]
        if self.tail is None:
            return np.asarray(delta, np.float64)
        out = np.array(delta[..., : classes + 1], np.float64)
        out[..., classes] += 0.5 * np.square(delta[..., classes + 1 :].astype(np.float64)).sum(-1)
        return out

    def divergence(self, delta: NDArray[Any]) -> FloatArray:
        """KL at each position in nats […, P], of deltas […, P, F]; rounding may leave −1e-16."""
        classes = self.top.shape[1]
        raised = self.soft(delta)
        pull = np.einsum("...pk,pk->...p", delta[..., : classes + (self.tail is not None)], self.weights)
        most = raised.max(-1, keepdims=True, initial=0.0)
        if not (most < STEEP).all():  # also where it is not a number
            return np.asarray(np.log((np.exp(raised - most) * self.weights).sum(-1)) + most[..., 0] - pull)
        return np.asarray(np.log(np.einsum("...pk,pk->...p", np.exp(raised), self.weights)) - pull)

    def tangents(self, delta: FloatArray, steps: NDArray[Any]) -> NDArray[np.float32]:
        """Rows a with aᵀb = the curvature of Σ_positions KL at `delta` [P, F] in the directions of two steps [R, P, F].

        The Hessian of ln Σ p e^t is Σ q t_a t_b − (Σ q t_a)(Σ q t_b), q = p e^t / Σ p e^t; the tail's exponent is not
        linear and adds q_tail r_aᵀr_b. Shape [R, P·F].
        """
        classes = self.top.shape[1]
        raised = self.soft(delta)
        share = np.exp(raised - raised.max(-1, keepdims=True)) * self.weights
        share /= share.sum(-1, keepdims=True)
        first = steps[..., : share.shape[1]].astype(np.float32)
        root = np.sqrt(share).astype(np.float32)
        if self.tail is None:
            moved = (first - np.einsum("rpk,pk->rp", first, share.astype(np.float32))[..., None]) * root
            return np.asarray(moved.reshape(len(steps), -1))
        rest = steps[..., classes + 1 :].astype(np.float32)
        first[..., classes] += np.einsum("rpd,pd->rp", rest, delta[:, classes + 1 :].astype(np.float32))
        moved = (first - np.einsum("rpk,pk->rp", first, share.astype(np.float32))[..., None]) * root
        return np.concatenate([moved, rest * root[:, -1:]], axis=-1).reshape(len(steps), -1)

    def take(self, wanted: IntArray) -> Positions:
        """Some positions alone; what they say about samples is lost."""
        tail = None if self.tail is None else self.tail[wanted]
        return Positions(self.top[wanted], tail, self.sketches, np.ones(len(wanted), np.int64))

    def first(self, samples: int) -> Positions:
        """The positions of the first samples."""
        end = int(self.counts[:samples].sum())
        tail = None if self.tail is None else self.tail[:end]
        return Positions(self.top[:end], tail, self.sketches, self.counts[:samples])

    @staticmethod
    def joined(parts: Sequence[Positions]) -> Positions:
        """Several one after another."""
        tails = [part.tail for part in parts if part.tail is not None]
        return Positions(
            np.concatenate([part.top for part in parts]),
            np.concatenate(tails) if tails else None,
            parts[0].sketches,
            np.concatenate([part.counts for part in parts]),
        )
