"""Run / Stop for anything that learns: a generator of records, drawn while it runs.

A loop in a cell, or in a button's callback, would block the kernel, and Stop would be heard when
all is over. So the generator runs in a thread of its own, which sets the picture's bytes at most
a few times a second; Stop raises a flag that the thread looks at after each record.
"""

import contextvars
import html
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets

from helpers import plotting
from helpers.widgets import parts

Record = Mapping[str, float]


@dataclass
class Run:
    """One press of the button: its settings, frozen at the start, and what it has recorded."""

    settings: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    status: str = "running"  # then "finished", "stopped" or "failed"


class LiveRun(ipywidgets.VBox):
    """Buttons Run, Stop and Reset, a picture and a list of all runs with their settings."""

    def __init__(
        self,
        train: Callable[..., Iterator[Record]],
        settings: Callable[[], dict[str, Any]],
        draw: Callable[[Sequence[Run]], plotting.Figure],
        describe: Callable[[Run], str],
        *,
        fps: float = 4.0,
    ) -> None:
        """Build the controls; nothing runs yet.

        Args:
            train: called with the settings by name, in the worker thread. Yields a record a
                step; it must make its own `torch.Generator` and set its own grad mode, because
                both belong to a thread.
            settings: reads the choices, once a start, in the kernel's thread. A ValueError is a
                refusal, and its words are shown.
            draw: all runs so far → a figure; must not use pyplot.
            describe: a run → one line with its settings, such that it can be repeated.
            fps: pictures a second, at most.
        """
        self.train, self.settings, self.draw, self.describe = train, settings, draw, describe
        self.runs: list[Run] = []
        self._pause = 1 / fps
        self._lock, self._halt = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self.running = False  # whether a run is under way
        small = {"layout": {"width": "90px"}}
        self.run = ipywidgets.Button(description="Run", icon="play", **small)
        self.halt = ipywidgets.Button(description="Stop", icon="stop", disabled=True, **small)
        self.reset = ipywidgets.Button(description="Reset", icon="trash", **small)
        self.image, self.message, self.history = (
            parts.picture(),
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
            self._halt.clear()
            self.running = True
            self.runs.append(Run(settings))
            self.run.disabled = self.reset.disabled = True
            self.halt.disabled, self.message.value = False, "running …"
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run, args=(self._work, self.runs[-1]), daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Ask the run to end after its present step."""
        self._halt.set()

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
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _work(self, run: Run) -> None:
        message, drawn = "", 0.0
        try:
            records = self.train(**run.settings)
            for record in records:
                run.records.append(record)
                if self._halt.is_set():
                    run.status = "stopped"
                    records.close() if hasattr(records, "close") else None
                    break
                if time.monotonic() - drawn >= self._pause:
                    self._show()
                    drawn = time.monotonic()
            else:
                run.status = "finished"
        except Exception as error:  # whatever the reader's own function raises
            run.status, message = "failed", _explain(error, len(run.records))
        try:
            self._show()
        except Exception as error:
            message = _explain(error, len(run.records))
        self.message.value = message or f"{run.status} after {max(0, len(run.records) - 1)} steps"
        with self._lock:
            self.running, self.halt.disabled = False, True
            self.run.disabled = self.reset.disabled = False

    def _show(self) -> None:
        lines = [
            f"<li>{html.escape(self.describe(run))}: <b>{run.status}</b></li>" for run in self.runs
        ]
        self.history.value = f"<ol style='line-height: 1.4'>{''.join(lines)}</ol>" if lines else ""
        self.image.value = plotting.png(self.draw(self.runs))


def _explain(error: Exception, records: int) -> str:
    """What went wrong, and in which line of whose function, as HTML."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = (
        f" in <code>{html.escape(frame.name)}</code>: <code>{html.escape(frame.line or '')}</code>"
    )
    what = html.escape(f"{type(error).__name__}: {error}")
    return f"<b>{what}</b>{line}, after {records} records. Mend it and press Run again."
