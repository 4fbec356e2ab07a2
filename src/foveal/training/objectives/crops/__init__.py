"""Classification from crops, with a detector that learns where to look."""
