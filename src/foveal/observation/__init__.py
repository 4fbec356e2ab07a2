"""Observation: the tensors of an explanation, the meaning of their values, and plain records."""
