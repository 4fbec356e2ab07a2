"""Classification of large images, with a detector that ranks patches."""
