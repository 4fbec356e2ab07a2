"""Many patches -> one answer: learned questions attend to the patches' vectors."""

import torch
from torch import Tensor, nn

from foveal.foundation.errors import UserError

PLACE = 8.0  # what grid units are multiplied by: places that differ little must be told apart


class PatchAttention(nn.Module):
    """Each of a few tasks asks by several heads which patches matter to it, and reads those.

    Cross-attention of learned queries (Bergner et al. 2023, "Iterative patch selection",
    section 3.2). Patches tell each other nothing: what an answer is made from are the weighted
    vectors alone.

    Args:
        width: numbers D in a patch's vector.
        tasks: number T of answers.
        heads: queries of each task.
        num_classes: of each answer.
        dropout: share of what was read dropped in training.

    Raises:
        UserError: the width is no multiple of the number of heads.
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
        self.key = nn.Linear(width + 2, tasks * heads)  # queries times keys, folded into one
        self.value = nn.Linear(width, width)
        self.heads_of = nn.ModuleList(
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
        """Answer from the patches' vectors (B, K, D) at keypoints (B, K, 2).

        Args:
            vectors: of the patches.
            keypoints: in grid units.
            scores: (B, K) added to the logarithm of each patch's weight, or None.

        Returns:
            Logits (B, T, classes), and the patches' weights (B, T, K), means over the heads.
        """
        place = keypoints.to(vectors.dtype)
        tokens = self.norm(vectors + self.place(place))  # (B, K, D)
        asked = self.key(torch.cat([tokens, PLACE * place], dim=-1))  # (B, K, T * heads)
        if scores is not None:
            asked = asked + scores[..., None]
        weights = asked.softmax(dim=1).unflatten(-1, (self.tasks, self.heads))
        values = self.value(tokens).unflatten(-1, (self.heads, -1))  # (B, K, heads, D / heads)
        read = torch.einsum("bkth,bkhd->bthd", weights, values).flatten(2)  # (B, T, D)
        logits = [head(read[:, task]) for task, head in enumerate(self.heads_of)]
        return torch.stack(logits, dim=1), weights.mean(dim=-1).transpose(1, 2)
