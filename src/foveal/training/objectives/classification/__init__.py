"""Classification: cross-entropy on images or on frozen features, and attention drawn to masks."""
