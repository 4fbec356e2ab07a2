"""Deployment: ONNX graphs, predictions for many images, and an HTTP server."""
