"""Run / Stop for anything that learns: a generator of records, drawn while it runs.

A loop in a cell, or in a button's callback, would block the kernel, and Stop would be heard when
all is over. So the generator runs in a thread of its own, which sets the picture's bytes at most
a few times a second.

Stop has three stages. It raises a flag that the thread looks at after each record. If no record
comes soon, `Stopped` is raised inside the generator, which ends a loop in Python at once, and
lets the generator's own `finally` write its checkpoint. A call that waits outside Python, as
`time.sleep` does, cannot be ended so: a second after Stop the run is given up, and its thread may
touch nothing any more. `Stopped` waits for it where the call returns.
"""

import contextvars
import ctypes
import html
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from course.kit import style, walker

Record = Mapping[str, float]
SOON, LATE = 0.3, 0.7  # seconds between the stages of Stop
PATIENCE = 3  # times as long as a picture took, at least, until the next: most time is training's
END = object()  # what the generator gives when it has nothing more to give


class Stopped(BaseException):
    """Raised in the reader's code by Stop. No `except Exception` catches it."""


@dataclass
class Run:
    """One press of the button: its settings, frozen at the start, and what it has recorded."""

    settings: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    status: str = "running"  # then "finished", "stopped" or "failed"


class _Worker:
    """The thread of one run. `Stopped` may reach it only while it is in the reader's code."""

    def __init__(self, work: Callable[["_Worker"], None]) -> None:
        self.halt, self.over = threading.Event(), threading.Event()
        self._lock, self._with_reader = threading.Lock(), False
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(work, self), daemon=True)

    def ask(self, readers: Callable[[], Any]) -> Any:
        """Call the reader's code, which `Stopped` may end."""
        try:
            self._with_reader = True
            return readers()
        finally:
            with self._lock:
                self._with_reader = False
                self._raise(None)  # if one was on its way, the flag is enough now

    def interrupt(self) -> None:
        """Raise `Stopped` where the thread is, if that is in the reader's code."""
        with self._lock:
            if self._with_reader:
                self._raise(Stopped)

    def _raise(self, kind: type[BaseException] | None) -> None:
        thread = ctypes.c_ulong(self.thread.ident or 0)
        exception = None if kind is None else ctypes.py_object(kind)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, exception)


class LiveRun(ipywidgets.VBox):
    """Buttons Run, Stop and Reset, a picture and a list of all runs with their settings."""

    def __init__(
        self,
        train: Callable[..., Iterator[Record]],
        settings: Callable[[], dict[str, Any]],
        draw: Callable[[Sequence[Run]], Figure],
        describe: Callable[[Run], str],
        *,
        fps: float = 4.0,
    ) -> None:
        """Build the controls; nothing runs yet.

        Args:
            train: called with the settings by name, in the worker thread. Yields a record a
                step; it must make its own `torch.Generator` and set its own grad mode, because
                both belong to a thread. Its `finally` is run at Stop.
            settings: reads the choices, once a start, in the kernel's thread. A ValueError is a
                refusal, and its words are shown.
            draw: all runs so far → a figure; must not use pyplot.
            describe: a run → one line with its settings, such that it can be repeated.
            fps: pictures a second, at most; fewer where drawing would take over a quarter of
                the time.
        """
        self.train, self.settings, self.draw, self.describe = train, settings, draw, describe
        self.runs: list[Run] = []
        self._pause = 1 / fps
        self._lock = threading.RLock()  # of all that is shown, and of the runs
        self._worker: _Worker | None = None  # of the run that is under way; others are given up
        small = {"layout": {"width": "90px", "flex": "0 0 auto"}}  # a long message squeezes none
        self.run = ipywidgets.Button(description="Run", icon="play", **small)
        self.halt = ipywidgets.Button(description="Stop", icon="stop", disabled=True, **small)
        self.reset = ipywidgets.Button(description="Reset", icon="trash", **small)
        self.image, self.message, self.history = (
            walker.picture(),
            ipywidgets.HTML(),
            ipywidgets.HTML(),
        )
        self.run.on_click(lambda _: self.start())
        self.halt.on_click(lambda _: self.stop())
        self.reset.on_click(lambda _: self.clear())
        buttons = ipywidgets.HBox([self.run, self.halt, self.reset, self.message])
        super().__init__([buttons, self.image, self.history])
        self._show()

    def start(self) -> None:
        """Begin a run, unless one is under way: a double click starts one."""
        with self._lock:
            if self.running:
                return
            try:
                settings = dict(self.settings())  # choices freeze here
            except ValueError as error:
                self.message.value = f"<b>{html.escape(str(error))}</b>"
                return
            self.runs.append(Run(settings))
            self.run.disabled = self.reset.disabled = True
            self.halt.disabled, self.message.value = False, "running …"
            run = self.runs[-1]
            self._worker = _Worker(lambda worker: self._work(worker, run))
            self._worker.thread.start()

    def stop(self) -> None:
        """End the run: after its present step, or in the midst of it, or without it."""
        with self._lock:
            if self._worker is None or self._worker.halt.is_set():
                return
            self._worker.halt.set()
            threading.Thread(target=self._see_to, args=(self._worker,), daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether a run is under way; one that was given up is not."""
        return self._worker is not None

    def clear(self) -> None:
        """Forget all runs. Does nothing while one is under way."""
        with self._lock:
            if not self.running:
                self.runs.clear()
                self.message.value = ""
                self._show()

    def wait(self, seconds: float) -> bool:
        """Wait for the run to end, for tests and for lecturers.

        Args:
            seconds: how long at most.
        Returns:
            Whether nothing runs any more.
        """
        worker = self._worker
        return worker is None or worker.over.wait(seconds)

    def _see_to(self, worker: _Worker) -> None:
        """The second and the third stage of Stop."""
        if worker.over.wait(SOON):
            return
        worker.interrupt()
        if not worker.over.wait(LATE):
            late = "What it called has not returned yet: it is ended when it does."
            self._end(worker, "stopped", late)

    def _work(self, worker: _Worker, run: Run) -> None:
        """In the run's thread: all of it, whatever happens."""
        status, message = "stopped", ""
        try:
            status = self._follow(worker, run)
        except Stopped:
            pass
        except Exception as error:  # whatever the reader's own function raises
            status, message = "failed", _explain(error, len(run.records))
        self._end(worker, status, message)

    def _follow(self, worker: _Worker, run: Run) -> str:
        """Take records until there are no more, or Stop was pressed. Returns the status."""
        records, due = iter(()), 0.0
        try:
            records = worker.ask(lambda: iter(self.train(**run.settings)))
            while not worker.halt.is_set():
                record = worker.ask(lambda: next(records, END))
                if record is END:
                    return "finished"
                with self._lock:
                    if worker is self._worker:  # not given up
                        run.records.append(record)
                started = time.monotonic()
                if started >= due:
                    self._show(worker)
                    drawn = time.monotonic()
                    due = drawn + max(self._pause, PATIENCE * (drawn - started))
            return "stopped"
        finally:
            if hasattr(records, "close"):
                records.close()  # its own `finally` is run now

    def _end(self, worker: _Worker, status: str, message: str) -> None:
        """Show how a run has ended, once; buttons back."""
        with self._lock:
            if worker is not self._worker:
                return  # given up before
            run = self.runs[-1]
            run.status = status
            last = len(run.records) - 1  # the first record is step 0
            done = f"{status} " + (f"after step {last}" if run.records else "before a record")
            if status != "failed":
                message = f"{done}. {message}" if message else done
            try:
                self._show(worker)
            except Exception as error:
                message = _explain(error, len(run.records))
            self.message.value = message
            self.halt.disabled, self.run.disabled, self.reset.disabled = True, False, False
            self._worker = None
            worker.over.set()

    def _show(self, worker: _Worker | None = None) -> None:
        """Draw all runs; a worker that was given up meanwhile shows nothing."""
        lines = [
            f"<li>{html.escape(self.describe(run))}: <b>{run.status}</b></li>" for run in self.runs
        ]
        picture = style.png(self.draw(self.runs))
        with self._lock:
            if worker is self._worker:
                items = "".join(lines)
                self.history.value = f"<ol style='line-height: 1.4'>{items}</ol>" if lines else ""
                self.image.value = picture


def _explain(error: Exception, records: int) -> str:
    """What went wrong, and in which line of whose function, as HTML."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = (
        f" in <code>{html.escape(frame.name)}</code>: <code>{html.escape(frame.line or '')}</code>"
    )
    what = html.escape(f"{type(error).__name__}: {error}")
    return f"<b>{what}</b>{line}, after {records} records. Mend it and press Run again."
