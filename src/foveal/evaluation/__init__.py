"""Evaluation: models measured on data sets, compared, and reported."""
