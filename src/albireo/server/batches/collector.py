"""Batches -> Prometheus: gathered when somebody scrapes.

Registered by runner.py with the server's other metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from albireo.server.batches.store import Record

#: Of batches that are not over; each is told, with 0 where there is none.
_STATUSES = ("validating", "in_progress", "finalizing", "cancelling")


class BatchCollector(Collector):
    """Counts are of all batches that the directory holds."""

    def __init__(
        self, model_name: str, records: Callable[[], Sequence[Record]], num_running: Callable[[], int]
    ) -> None:
        self._model_name, self._records, self._num_running = model_name, records, num_running

    def collect(self) -> Iterator[Metric]:
        """What there is now."""
        batches = [record.batch for record in self._records()]
        name = (self._model_name,)
        statuses = Counter(batch.status for batch in batches)
        states = GaugeMetricFamily("albireo:batches", "Batches that are not over.", labels=("model_name", "status"))
        for status in _STATUSES:
            states.add_metric((*name, status), statuses[status])
        yield states
        running = GaugeMetricFamily("albireo:batch_requests_running", "Lines in the engine.", labels=("model_name",))
        running.add_metric(name, self._num_running())
        yield running
        counts = [batch.request_counts for batch in batches]
        ended = CounterMetricFamily("albireo:batch_requests", "Lines that are over.", labels=("model_name", "outcome"))
        ended.add_metric((*name, "completed"), sum(each.completed for each in counts))
        ended.add_metric((*name, "failed"), sum(each.failed for each in counts))
        yield ended
