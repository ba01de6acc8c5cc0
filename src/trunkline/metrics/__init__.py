"""What an operator can measure of a node: `/metrics` in Prometheus' text format, `/healthz` and `/readyz`."""

from trunkline.metrics.calls import of_calls
from trunkline.metrics.page import Metrics

__all__ = ["Metrics", "of_calls"]
