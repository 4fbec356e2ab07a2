"""The result of every explainer: the logits of images, and the evidence behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal import plotting
from foveal.observation.records import explanation_dicts
from foveal.observation.tensors import Observation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Explanation(Observation):
    """A model's logits for B images and the evidence behind them, to draw, save and print.

    The evidence for a decision is the pixels that it was made from. The tensors, and the
    geometry derived from them, are inherited from `Observation`.
    """

    def to_dicts(self, top: int = 5) -> list[dict[str, Any]]:
        """Return one plain dictionary per image, as `foveal explain --json` prints it.

        Every dictionary has the keys `size_px`, `evidence_fraction`, `method` and
        `cost_forward_passes`. The others depend on the model:

        - `prediction` and `probabilities`: of a classifier.
        - `rebuilding_mse`: of a model that rebuilds the image.
        - `patch_size_px` and `keypoints`: if there are patches; each keypoint is a dictionary of
          the location and scale of its patch, and of its weight and contribution if computed.
        - `covered_fraction`: if the samples of patches are means of blocks of pixels.
        - `attention`: if there are attention maps; the location and height of each map's peak.

        Args:
            top: number of classes in `probabilities`, the most probable first.
        """
        return explanation_dicts(self, top)

    def figure(self, index: int = 0, title: str | None = None) -> "Figure":
        """Return a matplotlib figure of one image with its keypoints, patches and classes.

        Args:
            index: index of the image among the B images.
            title: title of the figure; None for no title.
        """
        return plotting.explanation_figure(self[index], title=title)

    def show(self) -> None:
        """Show one figure per image, in the output of a notebook or in windows.

        If no window can be opened, for example on a machine without a display, a warning is issued.
        """
        plotting.show(self.figure(index) for index in range(len(self)))

    def save(self, folder: str | Path, names: Sequence[str] | None = None) -> list[Path]:
        """Write one PNG per image and `explanations.json` into a folder; return the PNGs' paths.

        Figures of an earlier save into that folder are replaced or removed.

        Args:
            folder: created if it does not exist.
            names: a unique file name, without extension, for each image. None to use its index.

        Raises:
            UserError: there is not one name per image, a name is repeated, or a name is not valid
                for a file.
        """
        return plotting.save_explanation(self, Path(folder), names)
