"""Classification from crops: squares of an image, chosen by a detector that is trained for it."""
