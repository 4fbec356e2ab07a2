"""Foundation: errors, files, checks of arguments, registries and the process itself."""
