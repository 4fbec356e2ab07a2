"""Honesty: loss terms against keypoints that reveal the class (adversarial, dependence, swap)."""
