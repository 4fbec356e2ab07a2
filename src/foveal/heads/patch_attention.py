"""Attention pooling: learned queries of each task over the vectors of many patches."""

import torch
from torch import Tensor, nn

from foveal.foundation.errors import UserError

# Coordinates in [-1, 1] are multiplied by this, so that keys of nearby locations differ enough.
SPREAD = 8.0


class PatchAttention(nn.Module):
    """Cross-attention from several learned queries per task to the patches of an image.

    This follows Bergner et al. 2023, "Iterative patch selection", section 3.2. Patches do not
    attend to each other: the logits are computed only from weighted sums of their vectors.

    Args:
        width: dimension D of a patch's vector.
        tasks: number T of tasks.
        heads: number of queries per task.
        num_classes: number of classes of each task.
        dropout: fraction of pooled features dropped in training.

    Raises:
        UserError: the width is not a multiple of the number of heads.
    """

    def __init__(self, width: int, tasks: int, heads: int, num_classes: int, dropout: float = 0.0):
        super().__init__()
        if width % heads:
            raise UserError(
                f"Expected a width that is a multiple of {heads} heads, but got {width}."
            )
        self.tasks, self.heads = tasks, heads
        self.place = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, width))
        self.norm = nn.LayerNorm(width)
        # The queries are constant, so their products with the keys are one linear layer.
        self.key = nn.Linear(width + 2, tasks * heads)
        self.value = nn.Linear(width, width)
        self.heads_of = nn.ModuleList(  # one classifier per task
            nn.Sequential(
                nn.LayerNorm(heads * (width // heads)),
                nn.Dropout(dropout),
                nn.Linear(heads * (width // heads), width),
                nn.GELU(),
                nn.Linear(width, num_classes),
            )
            for _ in range(tasks)
        )

    def forward(
        self, vectors: Tensor, keypoints: Tensor, scores: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of all tasks for patches at keypoints.

        Args:
            vectors: (B, K, D), vectors of the patches.
            keypoints: (B, K, 2) in grid units.
            scores: (B, K), added to every query's score of each patch before the softmax, or None.

        Returns:
            The logits (B, T, classes), and each task's weights of the patches (B, T, K), averaged
            over its queries.
        """
        xy = keypoints.to(vectors.dtype)
        tokens = self.norm(vectors + self.place(xy))  # (B, K, D)
        attention = self.key(torch.cat([tokens, SPREAD * xy], dim=-1))  # (B, K, T * heads)
        if scores is not None:
            attention = attention + scores[..., None]
        weights = attention.softmax(dim=1).unflatten(-1, (self.tasks, self.heads))
        values = self.value(tokens).unflatten(-1, (self.heads, -1))  # (B, K, heads, D / heads)
        pooled = torch.einsum("bkth,bkhd->bthd", weights, values).flatten(2)  # (B, T, D)
        logits = [classify(pooled[:, task]) for task, classify in enumerate(self.heads_of)]
        return torch.stack(logits, dim=1), weights.mean(dim=-1).transpose(1, 2)
