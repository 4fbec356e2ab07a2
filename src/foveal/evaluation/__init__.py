"""Evaluation of models on datasets, their comparison, and HTML reports."""
