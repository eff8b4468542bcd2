"""What trains: hooks, learning rates, and processes on CPUs."""
