"""Evaluation of models on data sets, their comparison, and HTML reports."""
