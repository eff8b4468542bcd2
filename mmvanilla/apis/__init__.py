"""From configs and checkpoints to models, runners and images."""
