"""Batch prediction: predictions for any number of images, written to Parquet files.

It runs on one machine or on a Ray cluster.
"""

from foveal.foundation.errors import extra

with extra("pyarrow", "predict"):
    import pyarrow  # noqa: F401

from foveal.deployment.batch.run import DEVICES, ENGINES, Predicted, predict

__all__ = ["DEVICES", "ENGINES", "Predicted", "predict"]
