"""The whole product on a development cluster, and one order placed with it: what `make up` and `make demo` run."""
