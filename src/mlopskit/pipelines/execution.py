"""One run of a graph on this machine: what can run runs, and everything is noted as it happens.

One thread, the caller's, decides and writes the history; steps run in it one by one, or in threads
of their own, and only compute.
"""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
import time
import traceback
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import RunCancelled, StepFailed, StorageError
from mlopskit.pipelines.entities import NoValue, PipelineRun, StepRun
from mlopskit.pipelines.files import Unstorable
from mlopskit.pipelines.handover import GONE, Handover
from mlopskit.pipelines.scratch import folders_in
from mlopskit.pipelines.values import Encoder, dumped

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlopskit.pipelines.graph import Graph, Node
    from mlopskit.pipelines.keys import Keys
    from mlopskit.pipelines.locks import Lock
    from mlopskit.pipelines.promises import Promise
    from mlopskit.pipelines.store import Store, Stored
    from mlopskit.redaction import Redactor

logger = logging.getLogger(__name__)

LONGEST_TRACEBACK: Final = 20_000  # characters
ASK_AGAIN_S: Final = 0.05  # how often a key that another process holds is asked for


@dataclass(frozen=True)
class _Outcome:
    """What came of running a step."""

    node: Node
    seconds: float
    attempts: int
    value: Any = GONE
    stored: Stored | None = None
    reason: str = ""
    error: BaseException | None = None


class Execution:
    """One run of one graph.

    Args:
        graph: The graph.
        run: The run's record as it begins.
        store: Where values and history are kept.
        keys: What computes the keys of steps.
        workers: How many steps may run at the same time.
        redactor: Takes secrets out of errors before they are stored.
        note: Called with a step's name and a reason where its value cannot be kept.
    """

    def __init__(
        self,
        graph: Graph,
        run: PipelineRun,
        *,
        store: Store,
        keys: Keys,
        workers: int,
        redactor: Redactor,
        note: Callable[[str, str], None],
    ) -> None:
        self._graph = graph
        self._run = run
        self._store = store
        self._keys = keys
        self._workers = workers
        self._redactor = redactor
        self._note = note
        self._steps: dict[str, StepRun] = dict(run.steps)
        self._position = {name: position for position, name in enumerate(self._steps)}
        self._values = Handover(graph, store.decoder)
        self._errors: dict[str, BaseException] = {}
        self._held: dict[str, Lock] = {}
        self._running: set[str] = set()
        self._ended: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._cancelled = False
        self._missing: Counter[str] = Counter()
        self._children: dict[str, list[Node]] = {node.name: [] for node in graph.nodes}
        self._ready: deque[Node] = deque()
        for node in graph.nodes:
            self._missing[node.name] = len(node.parents)
            for parent in node.parents:
                self._children[parent].append(node)
            if not node.parents:
                self._ready.append(node)

    def run(self) -> PipelineRun:
        """Run the graph to its end.

        Raises:
            StepFailed: If a step failed; all that did not need it has finished.
            RunCancelled: If somebody cancelled the run.
            StorageError: If the history cannot be written.
        """
        try:
            self._run_all()
            if self._cancelled:
                return self._end_cancelled()
            if self._errors:
                return self._end_failed()
            return self._end_finished()
        except (StepFailed, RunCancelled):
            raise
        except BaseException as exc:
            self._abandoned("failed" if isinstance(exc, Exception) else "killed")
            raise
        finally:
            self._stop.set()
            for lock in self._held.values():
                lock.release()
            if not self._running:
                self._store.clear_empty(self._store.scratch(self._run.id))

    def _run_all(self) -> None:
        """Run what can be run, until nothing is left or the run is cancelled."""
        while True:
            blocked = self._begin_ready()
            if self._running:
                self._await_one(ASK_AGAIN_S if blocked else None)
            elif self._cancelled or not self._ready:
                return
            else:
                time.sleep(ASK_AGAIN_S)

    def _begin_ready(self) -> bool:
        """Begin what can begin now; tell whether keys that others hold were in the way."""
        blocked: list[Node] = []
        while self._ready and len(self._running) < self._workers:
            self._cancelled = self._cancelled or self._store.history.is_cancelled(self._run.id)
            if self._cancelled:
                break
            node = self._ready.popleft()
            if not self._begin(node):
                blocked.append(node)
        self._ready.extend(blocked)
        return bool(blocked)

    def _await_one(self, timeout_s: float | None) -> None:
        with suppress(queue.Empty):
            self._conclude(self._ended.get(timeout=timeout_s))

    def _begin(self, node: Node) -> bool:
        """Begin a step, or take its value from the cache; tell if it has to wait for another."""
        key, reason = self._keys.key(node, self._values.document)
        if key is not None:
            if self._from_cache(node, key):
                return True
            lock = self._store.lock(key)
            if lock is None:
                logger.debug("Step %r waits: its key is being made elsewhere.", node.name)
                return False
            self._held[node.name] = lock
            if self._from_cache(node, key):  # made while we asked for the lock
                self._release(node)
                return True
        self._change(
            node, status="running", key=key, uncached_reason=reason, started_at=datetime.now(UTC)
        )
        if self._workers == 1:
            self._conclude(self._work(node))
            return True
        self._running.add(node.name)
        context = contextvars.copy_context()
        threading.Thread(
            target=lambda: self._ended.put(context.run(self._work_in_thread, node)),
            name=f"mlopskit-step-{node.name}",
            daemon=True,  # after Ctrl-C nobody waits for a step that cannot be interrupted
        ).start()
        return True

    def _from_cache(self, node: Node, key: str) -> bool:
        started = time.perf_counter()
        found = self._store.find(key)
        if found is None:
            return False
        stored, run_id = found
        self._values.keep(node.name, stored, GONE)
        self._change(
            node,
            status="finished",
            key=key,
            cached=True,
            cached_from=run_id,
            started_at=datetime.now(UTC),
            seconds=time.perf_counter() - started,
        )
        self._release_children(node)
        return True

    def _work_in_thread(self, node: Node) -> _Outcome:
        started = time.perf_counter()
        try:
            return self._work(node)
        except BaseException as exc:  # noqa: BLE001 - it is raised again in the caller's thread
            return _Outcome(node, time.perf_counter() - started, 1, error=exc)

    def _work(self, node: Node) -> _Outcome:
        """Run a step, as often as it takes, and store its value."""
        started = time.perf_counter()
        scratch = self._store.scratch(self._run.id) / str(self._position[node.name])
        with folders_in(scratch):
            value, attempts, error = self._attempts(node)
        if error is not None:
            self._store.clear(scratch)
            return _Outcome(node, time.perf_counter() - started, attempts, error=error)
        stored, reason = None, ""
        try:
            stored = self._store.put(value)
            self._store.clear(scratch)
        except Unstorable as exc:
            reason = str(exc)
        seconds = time.perf_counter() - started
        return _Outcome(node, seconds, attempts, value=value, stored=stored, reason=reason)

    def _attempts(self, node: Node) -> tuple[Any, int, Exception | None]:
        step, wait_s = node.step, node.step.retry_wait_s
        for attempt in range(1, step.retries + 2):
            try:
                bound = node.bound(self._values.arguments(node))
                return step.function(*bound.args, **bound.kwargs), attempt, None
            except Exception as exc:  # noqa: BLE001 - it becomes the cause of StepFailed
                error = _from_the_step(exc, node)
            if attempt <= step.retries:
                logger.warning("Step %r failed (%r) and is tried again.", node.name, error)
                if self._stop.wait(wait_s):
                    break
                wait_s *= 2
        return None, attempt, error

    def _conclude(self, outcome: _Outcome) -> None:
        """Note what came of a step, and let those begin that waited for it."""
        node, error = outcome.node, outcome.error
        self._running.discard(node.name)
        if error is not None:
            self._conclude_failure(outcome, error)
            self._release(node)
            if not isinstance(error, Exception):
                raise error
            return
        if outcome.reason:
            self._note(node.name, outcome.reason)
        self._values.keep(node.name, outcome.stored, outcome.value)
        reason = outcome.reason or self._steps[node.name].uncached_reason
        self._change(
            node,
            document=None if outcome.stored is None else dumped(outcome.stored.document),
            status="finished",
            key=None if outcome.reason else self._steps[node.name].key,
            uncached_reason=reason,
            seconds=outcome.seconds,
            attempts=outcome.attempts,
        )
        self._release(node)
        self._release_children(node)

    def _conclude_failure(self, outcome: _Outcome, error: BaseException) -> None:
        node = outcome.node
        failed = isinstance(error, Exception)
        if failed:
            self._errors[node.name] = error
        text = "".join(traceback.format_exception(error))
        self._change(
            node,
            status="failed" if failed else "killed",
            seconds=outcome.seconds,
            attempts=outcome.attempts,
            error=self._redactor.text(f"{type(error).__name__}: {error}"),
            traceback=self._redactor.text(text[-LONGEST_TRACEBACK:]),
        )
        self._skip_children(node)

    def _skip_children(self, node: Node) -> None:
        for child in self._children[node.name]:
            if self._steps[child.name].status == "waiting":
                self._change(child, status="skipped", error=f"step {node.name!r} did not finish")
                self._skip_children(child)

    def _release_children(self, node: Node) -> None:
        self._values.given(node)
        for child in self._children[node.name]:
            self._missing[child.name] -= 1
            if not self._missing[child.name] and self._steps[child.name].status == "waiting":
                self._ready.append(child)

    def _release(self, node: Node) -> None:
        lock = self._held.pop(node.name, None)
        if lock is not None:
            lock.release()

    def _change(self, node: Node, *, document: str | None = None, **changes: Any) -> None:
        step = self._steps[node.name].model_copy(update=changes)
        self._steps[node.name] = step
        self._store.history.save_step(self._run.id, self._position[node.name], step, document)

    def _end_finished(self) -> PipelineRun:
        document, reason = None, ""
        try:
            encoder = Encoder(self._store.blobs.put, self._output_document)
            document = dumped(encoder.document(self._graph.output))
        except (Unstorable, StorageError) as exc:
            reason = f"the output could not be stored: {exc}"
        output = self._values.output(self._graph)
        return self._end("finished", output, document, reason)

    def _output_document(self, promise: Promise) -> Any:
        try:
            return self._values.document(promise)
        except KeyError:
            return self._store.put(self._values.value(promise)).document

    def _end_failed(self) -> PipelineRun:
        first, *others = sorted(self._errors, key=self._position.__getitem__)
        reason = f"step {first!r} failed"
        self._end("failed", NoValue(reason=reason), None, reason)
        error = self._errors[first]
        raise StepFailed(self._graph.pipeline, first, self._run.id, error, others) from error

    def _end_cancelled(self) -> PipelineRun:
        self._end("killed", NoValue(reason="the run was cancelled"), None, "the run was cancelled")
        raise RunCancelled(self._graph.pipeline, self._run.id)

    def _abandoned(self, status: str) -> None:
        """Note as well as may be that the run ends here."""
        for name, step in self._steps.items():
            if step.status == "running":
                self._steps[name] = step.model_copy(update={"status": "killed"})
        try:
            reason = "the run was interrupted" if status == "killed" else "the run broke off"
            self._end(status, NoValue(reason=reason), None, reason)
        except StorageError:
            logger.exception("The end of the run %s could not be stored.", self._run.id)

    def _end(self, status: str, output: Any, document: str | None, reason: str) -> PipelineRun:
        for name, step in self._steps.items():
            if step.status == "waiting":
                changes = {"status": "skipped", "error": "the run ended before"}
                self._steps[name] = step.model_copy(update=changes)
        run = self._run.model_copy(
            update={
                "status": status,
                "output": output,
                "steps": dict(self._steps),
                "ended_at": datetime.now(UTC),
            }
        )
        self._store.history.end(run, document, reason)
        return run


def _from_the_step(error: Exception, node: Node) -> Exception:
    """Let an exception's traceback begin in the step's own function, if it came that far."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code is not node.step.function.__code__:
        trace = trace.tb_next
    return error if trace is None else error.with_traceback(trace)
