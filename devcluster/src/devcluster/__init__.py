"""A real Kubernetes and a real Postgres for development and tests, in one command and without Docker.

Layers, high to low (a module imports only from rows below it)::

    cli
    sources                     which cluster is meant: a kubeconfig, kind, or one of our own
    cluster                     one cluster of our own, from nothing to Ready and back
    components network pki images packages postgres
    processes cgroups progress
    paths errors
"""
