"""What the columns of a report's tables are: how a figure is written, and what it means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """One figure of a table.

    Attributes:
        key: in the dictionary of figures.
        name: its heading.
        form: how it is written.
        means: what it is, in a line that a practitioner understands.
        better: `higher`, `lower`, or another few words.
    """

    key: str
    name: str
    form: str
    means: str
    better: str

    def cell(self, figures: Mapping[str, Any]) -> str:
        """Return the figure as it is written, a dash where there is none."""
        value = figures.get(self.key)
        return "–" if value is None else self.form.format(value)


JUDGED = (
    Column(
        "sufficiency_agreement",
        "agrees",
        "{:.1%}",
        "… and how often the judge then answers as the model does",
        "higher",
    ),
    Column(
        "necessity",
        "necessity",
        "{:.1%}",
        "how much of the judge's accuracy goes when the evidence is greyed",
        "higher",
    ),
)
MODELS: tuple[Column, ...] = (
    Column("accuracy", "accuracy", "{:.1%}", "share of test images whose class is found", "higher"),
    Column(
        "evidence_fraction",
        "evidence",
        "{:.0%}",
        "share of the image's pixels that the decision was made from",
        "lower",
    ),
    Column(
        "position_leakage",
        "leakage",
        "{:.2f}",
        "accuracy of a probe that sees where the model looks, but no pixels; "
        "what it can tell, the patches need not show",
        "near chance",
    ),
    Column(
        "content_following",
        "follows content",
        "{:.2f}",
        "another class' pixels cut at the same places: how often the answer is that class",
        "higher",
    ),
    Column(
        "position_following",
        "follows position",
        "{:.2f}",
        "… and how often it stays with the class of the places",
        "lower",
    ),
    Column(
        "random_focus_accuracy",
        "random focus",
        "{:.1%}",
        "accuracy when the model must look where another image asked it to",
        "for comparison",
    ),
    Column(
        "sufficiency",
        "judged",
        "{:.1%}",
        "accuracy of an independent judge that sees the evidence alone, all else grey",
        "higher",
    ),
    *JUDGED,
    Column(
        "shuffled_attention_accuracy",
        "shuffled maps",
        "{:.1%}",
        "accuracy when the model must weigh what it sees by another image's attention",
        "lower",
    ),
    Column(
        "uniform_attention_accuracy",
        "uniform maps",
        "{:.1%}",
        "… and when it must weigh every place alike",
        "lower",
    ),
    Column(
        "rebuilding_mse",
        "MSE",
        "{:.4f}",
        "mean squared error of the image rebuilt from the patches, pixels from 0 to 1",
        "lower",
    ),
    Column(
        "rebuilding_ssim",
        "SSIM",
        "{:.2f}",
        "structural similarity of the image rebuilt from the patches, 1 for equal ones",
        "higher",
    ),
    Column(
        "fgsm_accuracy",
        "FGSM",
        "{:.1%}",
        "accuracy on a sample of 200 images with every pixel moved by 8/255 against the model",
        "higher",
    ),
    Column(
        "pgd_accuracy",
        "PGD",
        "{:.1%}",
        "… and by ten smaller steps; an upper bound, as a stronger attack may find more",
        "higher",
    ),
    Column("parameters", "parameters", "{:,}", "learned values", "lower"),
    Column("macs", "MACs", "{:,}", "multiply-adds for one image", "lower"),
    Column("latency_ms", "ms", "{:.2f}", "milliseconds for one image, one thread, median", "lower"),
)
EXPLANATIONS: tuple[Column, ...] = (
    Column(
        "evidence_fraction",
        "evidence",
        "{:.0%}",
        "share of the image's pixels that is shown; of maps and rivals the hottest tenth",
        "lower",
    ),
    Column(
        "sufficiency",
        "judged",
        "{:.1%}",
        "accuracy of an independent judge that sees this evidence alone",
        "higher",
    ),
    *JUDGED,
    Column(
        "deletion",
        "deletion",
        "{:.2f}",
        "probability of the answer while the hottest pixels are greyed first, mean over all shares",
        "lower",
    ),
    Column("insertion", "insertion", "{:.2f}", "… and while they are shown first", "higher"),
    Column(
        "stable_evidence",
        "stable",
        "{:.2f}",
        "overlap of the evidence before and after slight noise that does not change the answer",
        "higher",
    ),
    Column(
        "keypoint_shift_px",
        "shift",
        "{:.2f}",
        "how many pixels a keypoint moves under that noise",
        "lower",
    ),
    Column(
        "annotated_images",
        "annotated",
        "{:,}",
        "how many images have an annotation of where the truth lies; the next three are means over "
        "these",
        "for comparison",
    ),
    Column(
        "pointing_game",
        "hits",
        "{:.1%}",
        "how often the hottest pixel lies where the truth is known to be",
        "higher",
    ),
    Column("energy_inside", "inside", "{:.1%}", "share of the heat that lies there", "higher"),
    Column(
        "evidence_iou",
        "overlap",
        "{:.2f}",
        "intersection over union of the evidence and that place",
        "higher",
    ),
    Column(
        "published_pixel_flipping",
        "pixel flipping",
        "{:.2f}",
        "published (Bach et al. 2015): probability of the answer while pixels are blackened, the "
        "hottest first",
        "lower",
    ),
    Column(
        "published_road",
        "ROAD",
        "{:.2f}",
        "published (Rong et al. 2022): how often the answer stays while the hottest pixels are "
        "painted over by their neighbours",
        "lower",
    ),
    Column(
        "published_relevance_mass_accuracy",
        "mass inside",
        "{:.1%}",
        "published (Arras et al. 2022): share of the positive heat that lies where the truth is",
        "higher",
    ),
    Column(
        "published_mprt",
        "MPRT",
        "{:.2f}",
        "published (Adebayo et al. 2018): rank correlation with the explanation of a model whose "
        "weights were drawn anew; 1 means that the explanation does not ask the model",
        "lower",
    ),
    Column(
        "published_efficient_mprt",
        "eMPRT",
        "{:.2f}",
        "published (Hedström et al. 2023): by what share the map's entropy rises in that model",
        "higher",
    ),
    Column(
        "published_images",
        "of images",
        "{:.0f}",
        "how many images the published metrics were measured on",
        "for comparison",
    ),
    Column(
        "cost_forward_passes",
        "passes",
        "{:.1f}",
        "what answer and explanation cost, in forward passes",
        "lower",
    ),
    Column("ms_per_image", "ms", "{:.2f}", "milliseconds an image, in batches, all cores", "lower"),
)


def present(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns that at least one of the rows has a figure for."""
    return [column for column in columns if any(row.get(column.key) is not None for row in rows)]
