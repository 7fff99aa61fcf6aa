"""Container images, built by content with or without Docker, and kept as archives."""
