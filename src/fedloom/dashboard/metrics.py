"""What Prometheus scrapes: the view of each run as gauges, in its text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedloom.dashboard.state import View

PREFIX = "fedloom_"
Labelled = tuple[tuple[str, ...], float]


def exposition(views: Iterable[View]) -> bytes:
    """The text of /metrics. Each number is that of the journal so far: counts fall where rounds were rolled back."""
    registry = CollectorRegistry()
    registry.register(_Runs(list(views)))
    return generate_latest(registry)


class _Runs(Collector):
    def __init__(self, views: list[View]) -> None:
        self._views = views

    def collect(self) -> Iterator[Metric]:
        for name, says, labels, numbers in (
            ("round", "Last committed round", ("run",), self._of_runs("latest")),
            ("bytes_up", "Bytes that clients sent", ("run",), self._of_runs("bytes_up")),
            ("bytes_down", "Bytes that clients were sent", ("run",), self._of_runs("bytes_down")),
            ("paused", "1 while an operator has paused the run", ("run",), self._of_runs("paused")),
            ("finished", "1 after the end of the run", ("run",), [((v.run,), float(bool(v.end))) for v in self._views]),
            ("clients", "Clients, by what they did last", ("run", "state"), self._states()),
            ("alerts", "Alerts, by kind", ("run", "kind"), self._alerts()),
            ("gate_rejected", "Rounds whose model the gate rejected", ("run",), self._rejected()),
            ("round_seconds", "Seconds of the last committed round", ("run",), self._seconds()),
            ("client_loss", "Held-out loss, as measured last", ("run", "client"), self._of_clients("loss")),
            ("client_epsilon", "Epsilon spent, as reported last", ("run", "client"), self._of_clients("epsilon")),
        ):
            family = GaugeMetricFamily(PREFIX + name, says, labels=labels)
            for values, number in numbers:
                family.add_metric(values, number)
            yield family

    def _of_runs(self, name: str) -> list[Labelled]:
        return [((view.run,), float(getattr(view, name))) for view in self._views]

    def _of_clients(self, name: str) -> list[Labelled]:
        """Of the clients that have this number."""
        return [
            ((view.run, client.name), number)
            for view in self._views
            for client in view.clients.values()
            if (number := getattr(client, name)) is not None
        ]

    def _states(self) -> list[Labelled]:
        found: list[Labelled] = []
        for view in self._views:
            states = Counter(
                "excluded" if name in view.excluded else client.last or "joined"
                for name, client in view.clients.items()
            )
            found += [((view.run, state), float(count)) for state, count in sorted(states.items())]
        return found

    def _alerts(self) -> list[Labelled]:
        return [((v.run, kind), float(count)) for v in self._views for kind, count in sorted(v.alert_counts.items())]

    def _rejected(self) -> list[Labelled]:
        return [
            ((view.run,), float(sum(each.gate == "rejected" for each in view.rounds.values()))) for view in self._views
        ]

    def _seconds(self) -> list[Labelled]:
        last = [(view.run, view.rounds.get(view.latest)) for view in self._views]
        return [((run,), each.seconds) for run, each in last if each is not None and each.seconds is not None]
