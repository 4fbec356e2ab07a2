"""Meaning of the values of an explanation's maps: sign, zero, scale and unit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Values:
    """Meaning of the values of maps, declared by the explainer.

    Attributes:
        label: quantity and unit, for a colour bar.
        signed: whether values above the neutral value support the class and values below it
            oppose it; these are drawn on a linear scale. If not, the values are weights, which are
            drawn as multiples of a uniform weight on a logarithmic scale.
        zero: whether 0 is the neutral value; if not, the mean of a map is neutral.
        location_label: quantity and unit of the sum over the pixels of a location, which is a
            cell of a map that is coarser than the image; None if such sums have no meaning.
    """

    label: str
    signed: bool = True
    zero: bool = True
    location_label: str | None = None


ATTENTION = Values("attention, multiples of uniform", signed=False)
ATTRIBUTION = Values("attribution")
TERMS = Values("added to the logit, per pixel", location_label="added to the logit, per location")
