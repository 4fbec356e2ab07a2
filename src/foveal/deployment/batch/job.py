"""What the engines are told, and what they give back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from foveal.deployment.batch.decoding import Shape
from foveal.deployment.batch.listing import Listing
from foveal.models import ImageModel


@dataclass(frozen=True)
class Job:
    """A listing to predict.

    Attributes:
        model: name of the model, for the rows.
        shape: of the images that it takes.
        listing: of the images.
        batch_size: images in one forward pass.
        explain: draw a picture of each image.
        device: `cpu`, `cuda` or `auto`, which takes GPUs where there are any.
        workers: models at work at a time; None for as many as there are CPUs or GPUs.
    """

    model: str
    shape: Shape
    listing: Listing
    batch_size: int
    explain: bool = False
    device: str = "auto"
    workers: int | None = None


@dataclass(frozen=True)
class Batch:
    """Predicted rows of a shard: the batch number `index` of it, and pictures by row number."""

    shard: int
    index: int
    rows: pa.Table
    pictures: Mapping[int, bytes] = field(default_factory=dict)


Engine = Callable[
    [ImageModel, Job, Iterable[int]], Iterator[Batch]
]  # yields the batches of the shards


def batches_of(job: Job, shard: int) -> int:
    """Return how many batches a shard has."""
    return -(-job.listing.counts[shard] // job.batch_size)


def whole_shards(
    job: Job, batches: Iterable[Batch]
) -> Iterator[tuple[int, pa.Table, dict[int, bytes]]]:
    """Yield number, rows and pictures of each shard once all of its batches have come.

    The batches may come in any order; one that comes twice counts once.
    """
    waiting: dict[int, dict[int, Batch]] = {}
    for batch in batches:
        parts = waiting.setdefault(batch.shard, {})
        parts[batch.index] = batch
        if len(parts) == batches_of(job, batch.shard):
            del waiting[batch.shard]
            rows = pa.concat_tables([parts[index].rows for index in sorted(parts)])
            pictures = {
                index * job.batch_size + place: picture
                for index, part in parts.items()
                for place, picture in part.pictures.items()
            }
            yield batch.shard, rows, pictures
