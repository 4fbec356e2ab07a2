"""Honesty: keypoints that do not reveal the class (adversarial, dependence, swap)."""
