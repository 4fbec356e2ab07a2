"""Batch prediction of any number of images into Parquet, on one machine or a Ray cluster."""

from foveal.foundation.errors import extra

with extra("pyarrow", "predict"):
    import pyarrow  # noqa: F401

from foveal.deployment.batch.run import DEVICES, ENGINES, Predicted, predict

__all__ = ["DEVICES", "ENGINES", "Predicted", "predict"]
