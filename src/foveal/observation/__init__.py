"""Observation: the tensors of an explanation, the meaning of their values, and plain records.

An observation is a model's logits for images, with the evidence that they were computed from.
"""
