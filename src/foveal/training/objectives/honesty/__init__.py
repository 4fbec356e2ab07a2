"""Honesty: loss terms that keep keypoints from revealing the class."""
