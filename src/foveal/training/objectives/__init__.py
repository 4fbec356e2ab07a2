"""Training objectives: the losses that models minimise, a folder per objective."""
