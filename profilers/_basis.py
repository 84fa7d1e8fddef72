"""Interactions of choices from the projections of a sketch: as few directions as carry them, drawn in where noisy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from profilers._findings import Basis
from profilers._sketch import Sketched

MOST_DIRECTIONS = 1024
NEGLIGIBLE = 1e-10
"""Of the largest eigenvalue: smaller ones are rounding."""


def basis(found: Sketched, score: str) -> tuple[Basis, float]:
    """½ Σ_r (Σ_g u_rg)² / (S · Σ positions) over passes and samples r, its terms between groups scaled by ρ.

    The rows u_r are turned into their principal directions, at most 1,024, so that eigenvalues and vectors are no more
    than there are choices. ρ is the reliability of the interactions (`reliability`), in the eigenvalues: the format
    counts products between groups only, so the unary scores stay as they are.
    """
    wide = [u.flatten(0, 1) for u in found.projections]
    rows = torch.cat(wide, 1)
    trust = reliability(found)
    values, vectors = _principal(rows / (len(found.projections[0]) * found.positions.sum()).sqrt())
    out, start = [], 0
    for target, places in zip(found.plan.targets, found.places, strict=True):
        own = torch.zeros(len(target.menu), len(values), dtype=torch.float64)
        own[places] = vectors[start : start + len(places)]
        out.append(own)
        start += len(places)
    return Basis(score, values * trust, out), trust


def reliability(found: Sketched) -> float:
    """ρ in 0…1: how far the interactions that one half of the samples shows are those of the other half.

    Each half gives a matrix O of correlations between choices of different groups. r = ⟨O₁, O₂⟩ / (‖O₁‖ ‖O₂‖) is the
    share of O that is not noise, for half of the samples; 2r / (1 + r) for all of them (Spearman 1910, Brown 1910).
    That share of a noisy O is its best linear predictor.
    """
    samples = len(found.positions)
    if samples < 4 or len(found.projections) < 2:
        return 0.0
    halves = [[u[:, half::2].flatten(0, 1) for u in found.projections] for half in (0, 1)]
    sizes = [u.square().sum((0, 1)).sqrt() for u in found.projections]
    first, second = ([u / size.clamp(min=1e-300) for u, size in zip(half, sizes, strict=True)] for half in halves)
    common = _product(first, second)
    alone = _product(first, first) * _product(second, second)
    if common <= 0 or alone <= 0:
        return 0.0
    half = min(1.0, common / math.sqrt(alone))
    return 2 * half / (1 + half)


def _product(first: list[Tensor], second: list[Tensor]) -> float:
    """⟨AᵀA, BᵀB⟩ without the blocks within groups: that of all columns less that of each group's."""
    whole = _inner(torch.cat(first, 1), torch.cat(second, 1))
    return whole - sum(_inner(a, b) for a, b in zip(first, second, strict=True))


def _inner(a: Tensor, b: Tensor) -> float:
    """⟨AᵀA, BᵀB⟩ = ‖B Aᵀ‖², by the smaller products."""
    if a.shape[1] < min(len(a), len(b)):
        return float(((a.T @ a) * (b.T @ b)).sum())
    return float((b @ a.T).square().sum())


def _principal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [R] and unit eigenvectors [J, R] of rowsᵀ rows, largest first."""
    narrow = rows.shape[0] < rows.shape[1]
    values, vectors = torch.linalg.eigh(rows @ rows.T if narrow else rows.T @ rows)
    kept = values > NEGLIGIBLE * values[-1:].clamp(min=0)
    values, vectors = values[kept].flip(0)[:MOST_DIRECTIONS], vectors[:, kept].flip(1)[:, :MOST_DIRECTIONS]
    return values, (rows.T @ vectors) / values.sqrt() if narrow else vectors
