"""A real Kubernetes and a real Postgres for development and tests, in one command and without Docker.

Layers, high to low; a module imports only from rows below it::

    cli
    sources      which cluster is meant: a kubeconfig, kind, or one of our own
    kubernetes   one cluster of our own
    images | postgres
    machine      packages, processes, control groups, builds, paths, progress, errors
"""
