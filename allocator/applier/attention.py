"""Multi-head attention whose four matrices are layers that are called, for the one of torch, where none is."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.errors import UsageError


class OpenAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention with `q_proj`, `k_proj`, `v_proj` and `out_proj` as Linear layers, called as modules.

    torch's own keeps the first three as bare parameters and reads `out_proj.weight` past its module, so that neither
    hooks nor compressed layers have a say. All options and arguments are the same; outputs differ by rounding, since
    three products stand for one. `allocator.applier.opening` makes it out of torch's, and back.
    """

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear

    def __getattr__(self, name: str) -> Any:
        """Also `in_proj_weight` [3E, E] (None if the widths differ) and `in_proj_bias`, for code that reads them."""
        if name not in ("in_proj_weight", "in_proj_bias"):
            return super().__getattr__(name)
        parts = [getattr(one, name.removeprefix("in_proj_")) for one in (self.q_proj, self.k_proj, self.v_proj)]
        joined = parts[0] is not None and len({part.shape for part in parts}) == 1
        return torch.cat(parts) if joined else None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention; N samples, T queries, S keys, H heads.

        Args:
            query: [N, T, E] if batch_first, [T, N, E] if not, [T, E] of a single sample.
            key: the same with S and kdim.
            value: the same with S and vdim.
            key_padding_mask: [N, S] or [S]; True (or −inf, added) where a key is padding.
            need_weights: return the attention weights too: [N, T, S], or [N, H, T, S] if not averaged.
            attn_mask: [T, S] or [N·H, T, S]; True (or −inf, added) where a query may not look.
            average_attn_weights: over the heads.
            is_causal: says that attn_mask, which must be given, is the causal one.

        Raises:
            UsageError: is_causal without attn_mask; nested tensors.
        """
        if query.is_nested or key.is_nested or value.is_nested:
            raise UsageError("opened attention takes no nested tensors: pad them, and give a key_padding_mask")
        if is_causal and attn_mask is None:
            raise UsageError("is_causal only says that attn_mask is the causal one: give the mask as well")
        given = (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        q, k, v = (self._samples_first(projected) for projected in given)
        if query.dim() == 2 and key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        hinted = is_causal and key_padding_mask is None and not need_weights
        mask = self._merged(None if hinted else attn_mask, key_padding_mask, q)
        k, v = self._extended(k, self.bias_k), self._extended(v, self.bias_v)
        if mask is not None:
            mask = functional.pad(mask, (0, k.shape[1] - mask.shape[-1]))
        q, k, v = (self._by_head(part) for part in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * math.sqrt(1.0 / self.head_dim)) @ k.transpose(-2, -1)
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            if dropout:
                weights = functional.dropout(weights, dropout)
            mixed = weights @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout, hinted)
        output = self.out_proj(self._as_given(mixed.transpose(1, 2).flatten(2), query.dim()))
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights.squeeze(0) if query.dim() == 2 else weights
        return output, weights

    def _samples_first(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def _as_given(self, x: Tensor, dimensions: int) -> Tensor:
        if dimensions == 2:
            return x.squeeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _merged(self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor) -> Tensor | None:
        """Both masks as one that is added to the scores, [N or 1, H or 1, T or 1, S]."""
        merged = None
        if attn_mask is not None:
            merged = _added(attn_mask, q.dtype)
            merged = (
                merged[None, None] if merged.dim() == 2 else merged.view(q.shape[0], self.num_heads, *merged.shape[1:])
            )
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, q.dtype)[:, None, None]
            merged = padding if merged is None else merged + padding
        return merged

    def _extended(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Keys or values [N, S, E] with the learnt one and the zero one behind, where the options ask for them."""
        if bias is not None:
            x = torch.cat([x, bias.expand(x.shape[0], -1, -1)], 1)
        return functional.pad(x, (0, 0, 0, 1)) if self.add_zero_attn else x


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask of bools as numbers: −inf where it is True."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, -math.inf)
