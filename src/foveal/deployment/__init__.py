"""Deployment: ONNX export, batch prediction, and an HTTP server."""
