"""Where the cluster in use comes from: a kubeconfig, kind, or one of our own."""
