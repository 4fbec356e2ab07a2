"""The interface of the engines: a prediction job, and the batches that an engine returns for it.

An engine predicts the images of a job with a model. The engine `local` uses this machine, and the
engine `ray` uses a Ray cluster.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from foveal.deployment.batch.decoding import Shape
from foveal.deployment.batch.listing import Listing
from foveal.models import ImageModel


@dataclass(frozen=True)
class Job:
    """The images to predict, and the settings of the prediction.

    Attributes:
        model: name of the model, which is written into each row.
        shape: size and channels of the images that the model expects.
        listing: the images, divided into shards.
        batch_size: images per forward pass.
        explain: whether to draw each explanation.
        device: `cpu`, `cuda` or `auto`, which uses GPUs if there are any.
        workers: number of batches that are predicted in parallel; None for a number that suits the
            engine and its CPUs or GPUs.
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
    """The predictions for one batch of a shard.

    Attributes:
        shard: index of the shard.
        index: index of the batch in the shard.
        rows: one row per image.
        pictures: drawn explanations as PNGs, by the index of the row in `rows`.
    """

    shard: int
    index: int
    rows: pa.Table
    pictures: Mapping[int, bytes] = field(default_factory=dict)


# Predicts the images of a job in the shards with these indices, and yields the predicted batches.
Engine = Callable[[ImageModel, Job, Iterable[int]], Iterator[Batch]]


def batch_count(job: Job, shard: int) -> int:
    """Return the number of batches in a shard."""
    return -(-job.listing.counts[shard] // job.batch_size)


def assemble_shards(
    job: Job, batches: Iterable[Batch]
) -> Iterator[tuple[int, pa.Table, dict[int, bytes]]]:
    """Yield each shard as soon as all its batches have arrived: its index, rows and pictures.

    Args:
        job: the job that the batches belong to.
        batches: batches of any shards in any order. If a batch of an incomplete shard arrives
            twice, the later copy is used.

    Yields:
        Index of the shard, its rows in order, and its pictures by index of the row in the shard.
    """
    waiting: dict[int, dict[int, Batch]] = {}
    for batch in batches:
        arrived = waiting.setdefault(batch.shard, {})
        arrived[batch.index] = batch
        if len(arrived) == batch_count(job, batch.shard):
            del waiting[batch.shard]
            rows = pa.concat_tables([arrived[index].rows for index in sorted(arrived)])
            pictures = {
                index * job.batch_size + row: picture
                for index, arrived_batch in arrived.items()
                for row, picture in arrived_batch.pictures.items()
            }
            yield batch.shard, rows, pictures
