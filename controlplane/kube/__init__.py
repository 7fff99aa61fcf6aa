"""Kubernetes: the only package that speaks to a cluster.

Objects stay untyped dictionaries in here and leave as `JobView` and `PodView`; HTTP errors leave as the classes in
`kube.errors`. Every call has limits for connecting, for silence and in total.
"""

__all__: list[str] = []
