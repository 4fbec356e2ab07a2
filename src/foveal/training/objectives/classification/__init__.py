"""Classification: cross-entropy on images or frozen features, with an optional mask loss."""
