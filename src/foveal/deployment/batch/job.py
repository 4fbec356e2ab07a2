"""Input and output of the engines: a job, and its predicted batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from foveal.deployment.batch.decoding import Shape
from foveal.deployment.batch.listing import Listing
from foveal.models import ImageModel


@dataclass(frozen=True)
class Job:
    """A listing to predict, with its settings.

    Attributes:
        model: name of the model, for the rows.
        shape: size and channels of the images that the model expects.
        listing: the images.
        batch_size: images per forward pass.
        explain: whether to draw each explanation.
        device: `cpu`, `cuda` or `auto`, which uses GPUs if there are any.
        workers: parallel models; None for one per CPU or GPU.
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
    """Predicted rows of batch `index` of a shard, and pictures by row index."""

    shard: int
    index: int
    rows: pa.Table
    pictures: Mapping[int, bytes] = field(default_factory=dict)


# Runs a job on the shards with these indices, and yields their batches.
Engine = Callable[[ImageModel, Job, Iterable[int]], Iterator[Batch]]


def batches_of(job: Job, shard: int) -> int:
    """Return the number of batches of a shard."""
    return -(-job.listing.counts[shard] // job.batch_size)


def whole_shards(
    job: Job, batches: Iterable[Batch]
) -> Iterator[tuple[int, pa.Table, dict[int, bytes]]]:
    """Yield index, rows and pictures of each shard as soon as it is complete.

    The batches may arrive in any order, and more than once.
    """
    waiting: dict[int, dict[int, Batch]] = {}
    for batch in batches:
        parts = waiting.setdefault(batch.shard, {})
        parts[batch.index] = batch
        if len(parts) == batches_of(job, batch.shard):
            del waiting[batch.shard]
            rows = pa.concat_tables([parts[index].rows for index in sorted(parts)])
            pictures = {
                index * job.batch_size + row: picture
                for index, part in parts.items()
                for row, picture in part.pictures.items()
            }
            yield batch.shard, rows, pictures
