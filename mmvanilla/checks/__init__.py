"""Does a config fit together? Levels, strides, channels, classes, imports, λ, learning rates."""
