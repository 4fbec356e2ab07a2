"""Training objectives: the losses that training minimises, in one folder per objective."""
