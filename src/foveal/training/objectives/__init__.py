"""Training objectives: what a model is trained to make small, a folder per objective."""
