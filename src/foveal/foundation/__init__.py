"""Foundation: errors, files, checks of arguments, registries, signals and memory."""
