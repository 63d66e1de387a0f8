"""Scoring over HTTP from online features, and changing versions while requests keep coming."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mlopskit.demo.features import CATEGORIES, COLUMNS, SCHEDULE, SERVICE, STORED
from mlopskit.demo.model import NAME, PROBABILITY
from mlopskit.demo.result import Swap
from mlopskit.errors import MlopskitError
from mlopskit.serving.client import InferenceClient

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from mlopskit.demo.data import Floats, Ints
    from mlopskit.demo.world import Hour, World
    from mlopskit.features.base import FeatureStore

    Inputs = dict[str, np.ndarray[Any, Any]]

logger = logging.getLogger(__name__)

KEYS = ("origin", "carrier")
# Requests that are answered before and after a change of versions, at the least.
BEFORE_AND_AFTER = 50


class Scorer:
    """Asks the server about flights, and remembers what it asked with and what it was told.

    Attributes:
        served: The stored features as they were read online, a row per flight; NaN where null.
        sent: Requests that were sent.
        answered: Requests that were answered.
    """

    def __init__(self, world: World, store: FeatureStore, url: str) -> None:
        self._store = store
        self._client = InferenceClient(url)
        self._url = url
        flights = world.flights
        self._places, self._place_of = _places(flights)
        self._texts = {
            name: np.array([each.encode() for each in flights[name].to_pylist()], dtype=object)
            for name in CATEGORIES
        }
        self._schedule = {name: flights[name].to_numpy().astype(np.float64) for name in SCHEDULE}
        self.served = np.full((flights.num_rows, len(STORED)), np.nan)
        self.sent = 0
        self.answered = 0

    def learn(self, hour: Hour) -> None:
        """Push what became known since the hour before."""
        for view, columns in hour.learned.items():
            self._store.push(view, columns, to="online")

    def read(self, hour: Hour) -> None:
        """Read the features of an hour's flights online, as they are known at that hour.

        Flights of one carrier from one origin share their features, and ask for them once.
        """
        rows = slice(hour.first, hour.end)
        places, of_flight = np.unique(self._place_of[rows], return_inverse=True)
        keys = [self._places[place] for place in places]
        online = self._store.get_online_features(keys, SERVICE, now=hour.time).to_dict()
        found = np.array([online[name] for name in STORED], dtype=np.float64)
        self.served[rows] = found.T[of_flight]

    def ask(self, first: int, end: int, version: str | None = None) -> Floats:
        """Send flights that were read before, in one request, and return the probabilities."""
        self.sent += 1
        inputs = self.inputs(np.arange(first, end))
        probability: Floats = self._client.predict(NAME, inputs, version)[PROBABILITY]
        self.answered += 1
        return probability

    def inputs(self, rows: Ints) -> Inputs:
        """Return the request for rows that were read online before."""
        numbers = {name: self.served[rows, i] for i, name in enumerate(STORED)}
        numbers |= {name: self._schedule[name][rows] for name in SCHEDULE}
        texts = {name: self._texts[name][rows] for name in CATEGORIES}
        return {name: texts[name] if name in texts else numbers[name] for name in COLUMNS}

    def swap_under_load(self, rows: Ints, change: Callable[[], None]) -> Swap:
        """Change versions while another client sends one request after the other.

        Args:
            rows: Flights to ask about again and again.
            change: What changes the versions.
        """
        load = _Load(self._url, self.inputs(rows))
        load.start()
        try:
            load.wait_for(BEFORE_AND_AFTER)
            change()
            load.wait_for(load.answered + BEFORE_AND_AFTER)
        finally:
            load.finish()
        self.sent += load.sent
        self.answered += load.answered
        return Swap(load.sent, load.answered, dict(load.versions))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _places(flights: pa.Table) -> tuple[list[dict[str, str]], Ints]:
    """Return every pair of an origin and a carrier, and which of them each flight is."""
    origin, carrier = (flights[name].combine_chunks().dictionary_encode() for name in KEYS)
    many = len(carrier.dictionary)
    places = [
        dict(zip(KEYS, pair, strict=True))
        for pair in itertools.product(origin.dictionary.to_pylist(), carrier.dictionary.to_pylist())
    ]
    codes = origin.indices.to_numpy().astype(np.int64) * many + carrier.indices.to_numpy()
    return places, codes


class _Load(threading.Thread):
    """Sends one request after the other until it is told to stop."""

    def __init__(self, url: str, inputs: Inputs) -> None:
        super().__init__(name="demo-load", daemon=True)
        self._url = url
        self._inputs = inputs
        self._enough = threading.Event()
        self._news = threading.Condition()
        self.sent = 0
        self.answered = 0
        self.versions: Counter[str] = Counter()

    def run(self) -> None:
        """Ask until told to stop. What is not answered is counted, and the next one is sent."""
        with InferenceClient(self._url) as client:
            while not self._enough.is_set():
                self.sent += 1
                try:
                    version = client.infer(NAME, self._inputs).version
                except MlopskitError:
                    logger.exception("A request was not answered while versions changed.")
                    continue
                with self._news:
                    self.answered += 1
                    self.versions[version] += 1
                    self._news.notify_all()

    def wait_for(self, answered: int) -> None:
        """Wait until so many requests have been answered, or half a minute."""
        with self._news:
            self._news.wait_for(lambda: self.answered >= answered, timeout=30)

    def finish(self) -> None:
        """Let the last request be answered, and stop."""
        self._enough.set()
        self.join(timeout=60)
