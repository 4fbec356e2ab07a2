"""An example of a package that adds one part of each kind to Foveal."""
