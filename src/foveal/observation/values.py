"""Meaning of the values of an explanation's maps: sign, zero, scale and unit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Values:
    """Meaning of the values of maps, declared by the explainer.

    Attributes:
        label: quantity and unit, for a colour bar.
        signed: values above the neutral one speak for the class, values below it against, on a
            linear scale. Otherwise they are weights, on a logarithmic scale, in multiples of a
            uniform weight.
        zero: 0 is the neutral value and means "nothing"; if not, the mean of a map is neutral.
        location_label: quantity and unit of the sum over the pixels of a location; None where
            such sums mean nothing.
    """

    label: str
    signed: bool = True
    zero: bool = True
    location_label: str | None = None


ATTENTION = Values("attention, multiples of uniform", signed=False)
ATTRIBUTION = Values("attribution")
TERMS = Values("added to the logit, per pixel", location_label="added to the logit, per location")
