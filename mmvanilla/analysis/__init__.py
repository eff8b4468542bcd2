"""What a user asks about a model: how large, how fast, what it sees."""
