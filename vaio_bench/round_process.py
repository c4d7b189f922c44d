"""The parent's side of a round: starts its process, listens, stops it, and tells how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaio_bench.black_box import HANG_S, Doing, HangWatch, named, read, signal_name
from vaio_bench.errors import (
    FilterHungError,
    InputError,
    ServerLostError,
    ServerSilentError,
    VaioBenchError,
    WorkError,
)
from vaio_bench.foreign import make_of

_STDERR_KEPT = 4000

_LOSSES = tuple(each.__name__ for each in (FilterHungError, ServerLostError, ServerSilentError))
"""Errors that cost their round and no other."""


@dataclass
class Ended:
    """A round that has ended by itself or because it was stopped."""

    totals: dict[str, Any]
    settled: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False


class RoundError(Exception):
    """A round that ended with an error, or whose process died."""

    def __init__(
        self,
        kind: type[VaioBenchError],
        message: str,
        events: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.events = list(events)
        """What the filters told until then."""

    def of(self, round_: str) -> VaioBenchError:
        """The error for the user. Wrong input is told as it is: it concerns every round."""
        if self.kind is InputError:
            return InputError(str(self))
        raised = [json.loads(each["detail"]) for each in self.events if each["kind"] == "error"]
        why = f" ({raised[0].get('callback')}: {raised[0].get('error')})" if raised else ""
        return self.kind(f"{round_}: {self}{why}")


class RoundLostError(RoundError):
    """A foreign filter or a server failed: it costs this round, not the run.

    `is_silent`: it took the whole timeout of a server that answers nothing.
    """

    def __init__(
        self, message: str, events: list[dict[str, Any]], *, is_silent: bool = False
    ) -> None:
        # Of a filter, the last event is of this (`filter_crash` or `filter_hang`).
        super().__init__(WorkError, message, events)
        self.is_silent = is_silent


def run_round(job: dict[str, Any], progress: Callable[[int], None]) -> Ended:
    """Runs a job of `round_child` and waits for it; Ctrl-C stops it and keeps what it has.

    With `black_box` in the job, a file, a foreign filter that crashes or hangs is found there.

    Raises:
        RoundLostError: a foreign filter crashed or hung, or a server went away.
        RoundError: it failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "vaio_bench.round_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C reaches this process alone, which lets the child end in good order.
        start_new_session=True,
    )
    assert process.stdin
    assert process.stderr
    told: list[str] = []
    listener = threading.Thread(target=_keep_tail, args=(process.stderr, told), daemon=True)
    listener.start()
    watch = _Watch(process, job)
    state: dict[str, Any] = {"events": []}
    interrupted = False
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # It died at once: its exit status says why.
    while True:
        try:
            _listen(process, state, progress)
            break
        except KeyboardInterrupt:
            if interrupted:
                process.kill()
                raise
            interrupted = True
            process.stdin.close()
    status = process.wait()
    listener.join(timeout=1)
    if "result" in state:
        result = state["result"]
        return Ended(result["totals"], result["settled"], state["events"], interrupted)
    if interrupted:
        raise KeyboardInterrupt
    kind = state.get("error", {}).get("kind")
    if kind in _LOSSES:
        is_silent = kind == ServerSilentError.__name__
        raise RoundLostError(state["error"]["message"], state["events"], is_silent=is_silent)
    failure = _failure(state, status, "".join(told))
    # What told of its end by itself was not ended by a filter.
    died = None if "error" in state else watch.verdict(status, state["events"], failure)
    raise died or failure


def _how(status: int) -> str:
    """How a process ended that did not say so: `crashed (SIGSEGV)`, `ended its process (...)`."""
    if status < 0:
        return f"crashed ({signal_name(-status)})"
    return f"ended its process (status {status})"


class _Watch:
    """Kills the round's process when a callback of a foreign filter does not return."""

    _LOOK_S = 0.25

    def __init__(self, process: subprocess.Popen[str], job: dict[str, Any]) -> None:
        self._process = process
        self._job = job
        self._hung: Doing | None = None
        if "black_box" in job:
            threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        hangs = HangWatch(Path(self._job["black_box"]), self._job.get("hang_s", HANG_S))
        while self._hung is None:
            try:
                self._process.wait(self._LOOK_S)
                return
            except subprocess.TimeoutExpired:
                self._hung = hangs.look()
        self._process.kill()

    def verdict(
        self, status: int, events: list[dict[str, Any]], failure: RoundError
    ) -> RoundLostError | None:
        """What a filter of another make did to a process that ended without a word.

        `failure` tells how it ended, for where it was in no callback: one of a filter's own threads
        may end the process as well.
        """
        if "black_box" not in self._job:
            return None
        options = self._job["options"]
        filters = [each.get("word", each["name"]) for each in options["filters"]]
        of_batch: dict[str, Any] = {}
        inside = [self._hung] if self._hung else read(Path(self._job["black_box"]))
        if not inside:
            made = [at for at, name in enumerate(filters) if make_of(name)]
            if not made:
                return None
            own = ", ".join(named(at, filters) for at in made)
            reason = f"{failure}, outside of any callback of {own}"
            kind, disk, layer, callback, io = "filter_crash", 0, made[0], None, None
        else:
            doing = inside[0]
            kind, how = "filter_crash", _how(status)
            if self._hung is not None:
                kind = "filter_hang"
                how = f"hung (no return in {self._job.get('hang_s', HANG_S):g} s)"
            reason = doing.told(how, filters, options["window"]["disks"])
            disk, layer, callback, io = doing.disk, doing.layer, doing.callback, doing.seq
            if doing.ios > 1:
                of_batch = {"last_io": doing.last_seq, "ios": doing.ios}
        told = {"reason": reason, "callback": callback, "io": io, **of_batch}
        detail = json.dumps(told)
        event = {"disk": disk, "layer": layer, "kind": kind, "detail": detail, "time_ns": 0}
        return RoundLostError(reason, [*events, event])


def _listen(
    process: subprocess.Popen[str], state: dict[str, Any], progress: Callable[[int], None]
) -> None:
    assert process.stdout
    for line in process.stdout:
        document = json.loads(line)
        if "progress" in document:
            progress(document["progress"][0])
        elif "events" in document:
            state["events"] += document["events"]
        else:
            state.update(document)


def _keep_tail(stream: Any, told: list[str]) -> None:
    text = ""
    for line in stream:
        text = (text + line)[-_STDERR_KEPT:]
    told.append(text)


def _failure(state: dict[str, Any], status: int, told: str) -> RoundError:
    if "error" in state:
        error = state["error"]
        kind = InputError if error["kind"] == InputError.__name__ else WorkError
        return RoundError(kind, error["message"], state["events"])
    last = told.strip().splitlines()[-1] if told.strip() else "it said nothing"
    if status < 0:
        name = signal_name(-status)
        return RoundError(WorkError, f"its process was killed by {name} ({last})")
    return RoundError(WorkError, f"its process ended with status {status} ({last})")
