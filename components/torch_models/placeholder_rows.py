"""The placeholder rows as the only parameter: placed into the token embeddings by position.

The reference script makes the whole vocabulary table a parameter, decays it, and copies every other row back after
each step. Here the table stays frozen, so there is no gradient, optimizer state or all-reduce for it; the gradient of
the rows is the same number (`tests/parity`).
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel


class PlaceholderEmbedding(nn.Module):
    """Token embeddings with the rows of the placeholders' tokens in place of the table's.

    The placeholders' ids are the last ones: `first_id` up to `first_id + n - 1`, word after word.
    """

    def __init__(self, table: nn.Embedding, first_id: int) -> None:
        """Takes the frozen table and the first placeholder id."""
        super().__init__()
        self.table = table
        self.rows = nn.ParameterList()
        self.first_id = first_id

    @property
    def weight(self) -> torch.Tensor:
        """The frozen table, which transformers asks for by this name: [vocabulary, d]."""
        return self.table.weight

    @property
    def num_rows(self) -> int:
        """How many rows all words have together."""
        return sum(map(len, self.rows))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The embeddings of `input_ids`, int64 [b, tokens], as [b, tokens, d] in the table's dtype."""
        offset = input_ids - self.first_id
        is_placeholder = offset >= 0
        ordinary = self.table(input_ids.masked_fill(is_placeholder, 0))
        rows = self.rows[0] if len(self.rows) == 1 else torch.cat(list(self.rows))
        placed = nn.functional.embedding(offset.clamp(min=0), rows).to(ordinary.dtype)
        return torch.where(is_placeholder.unsqueeze(-1), placed, ordinary)


def place_rows(text_encoder: PreTrainedModel, rows: torch.Tensor, first_id: int) -> tuple[nn.Parameter, int]:
    """The trainable rows, float32 [n, d], now placed into `text_encoder`, and the id of the first of them there.

    The encoder's own weights are frozen. The first word that is placed gets `first_id`, each other one those after.
    """
    parameter = nn.Parameter(rows.detach().clone().float())
    embedding = text_encoder.get_input_embeddings()
    if not isinstance(embedding, PlaceholderEmbedding):
        text_encoder.requires_grad_(False)
        embedding = PlaceholderEmbedding(embedding, first_id)
        text_encoder.set_input_embeddings(embedding)
    own_first_id = embedding.first_id + embedding.num_rows
    embedding.rows.append(parameter)
    return parameter, own_first_id
