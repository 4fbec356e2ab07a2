"""Batch prediction of any number of images into Parquet, on one machine or a Ray cluster."""

from foveal.deployment.batch.run import DEVICES, ENGINES, Predicted, predict

__all__ = ["DEVICES", "ENGINES", "Predicted", "predict"]
