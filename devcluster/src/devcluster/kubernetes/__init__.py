"""One Kubernetes cluster of our own, from its addresses and certificates to its being Ready."""
