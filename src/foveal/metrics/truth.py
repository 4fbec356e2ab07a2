"""What is known of where the truth lies in an image."""

from torch import Tensor

from foveal.explanation import Explanation


def check_truth(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return the truth as booleans (B, H, W).

    Args:
        explanation: of B images of H x W pixels.
        truth: (B, H, W) or (B, 1, H, W), above 0 where it is; bytes as in `ImageSet.masks` too.

    Raises:
        ValueError: it is of another number or size of images.
    """
    flat = truth[:, 0] if truth.ndim == 4 and truth.shape[1] == 1 else truth
    expected = (len(explanation), *explanation.size)
    if tuple(flat.shape) != expected:
        raise ValueError(
            f"Expected a truth {expected}, as the explained images are, but got "
            f"{tuple(truth.shape)}."
        )
    return flat > 0
