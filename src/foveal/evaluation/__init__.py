"""Evaluation of models on datasets, comparison of models, and HTML reports."""
