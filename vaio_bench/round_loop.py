"""The rounds of a run, one process after the other: warm-up, the planned ones, and any more."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING, Any

from vaio_bench import manifest, replica, servers, target_state, targets
from vaio_bench.environment import NOISY_BUSY_SHARE, NOISY_STEAL_SHARE, ProcessorWatch
from vaio_bench.errors import WorkError
from vaio_bench.round_process import Ended, RoundError, RoundLostError, run_round
from vaio_bench.store import open_run, part_folder
from vaio_bench.warnings import WarningKind

if TYPE_CHECKING:
    from vaio_bench.run_writer import RunWriter
    from vaio_bench.runner import Job

Progress = Callable[[str, int, int], None]
"""Called with (what, done, of how many)."""

WARMUP = "warmup"
"""Folder of the run, beside `ios`, that the rows of warm-up rounds are in."""

SILENT_MAX = 2
"""Rounds in a row of which each costs the whole timeout of a silent server: then its policy is
given up."""

_TO_WARN_OF = {
    "cache_recovered": WarningKind.CACHE_RECOVERED,
    "cache_file_failed": WarningKind.CACHE_FILE_FAILED,
    "cache_above_disk": WarningKind.CACHE_ABOVE_DISK,
}
"""Kinds of events whose detail has the values that the warning names."""


def shuffled_rounds(names: Sequence[str], rounds: int, seed: int | str) -> list[tuple[str, int]]:
    """Every policy once a round, in an order drawn anew for each; more rounds only add to it."""
    shuffler = random.Random(seed)
    order = []
    for number in range(rounds):
        shuffled = list(names)
        shuffler.shuffle(shuffled)
        order += [(name, number) for name in shuffled]
    return order


class RoundLoop:
    """Runs the rounds of one job that its run folder does not hold yet."""

    def __init__(
        self, job: Job, writer: RunWriter, options: dict[str, Any], progress: Progress | None
    ) -> None:
        self.job = job
        self.writer = writer
        self.options = options
        self.progress = progress
        self.names = [policy.name for policy in job.policies]
        self.policies = {policy.name: policy for policy in job.policies}
        self._silent = dict.fromkeys(self.names, 0)
        self._done = 0
        self._planned = 0

    def run(self) -> None:
        """Runs what is missing.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the round under way has kept what it has.
            InputError: another run has one of the targets.
            VaioBenchError: a round failed.
        """
        with targets.held(self.options["targets"], writes=not self.options["read_only"]):
            self._run()

    def _run(self) -> None:
        plan, seed = self.job.plan, self.job.settings.seed
        warmup = self._missing(
            shuffled_rounds(self.names, plan.warmup_rounds, f"warm-up {seed}"),
            self.writer.manifest["warmup"]["totals"],
        )
        totals = self.writer.manifest["totals"]
        planned = self._missing(shuffled_rounds(self.names, plan.rounds, seed), totals)
        self._planned = len(warmup) + len(planned)
        for name, number in warmup:
            self._one(name, number, warmup=True)
        for name, number in planned:
            self._one(name, number)
        while plan.until is not None and self.writer.manifest["rounds"] < plan.rounds_max:
            if plan.baseline in self._given_up or self._is_narrow(plan.until):
                break
            self._one_more(seed)

    def _missing(
        self, order: list[tuple[str, int]], totals: dict[str, Any]
    ) -> list[tuple[str, int]]:
        held = {(name, int(n)) for name, of in totals.items() for n, each in of.items()
                if not each.get("stopped")}  # fmt: skip
        return [entry for entry in order if entry not in held]

    def _one_more(self, seed: int) -> None:
        number = self.writer.manifest["rounds"]
        added = shuffled_rounds(self.names, number + 1, seed)[-len(self.names) :]
        self.writer.manifest["rounds"] = number + 1
        self.writer.manifest["order"] += [list(entry) for entry in added]
        self._planned += len(added)
        for name, _ in added:
            self._one(name, number)

    def _is_narrow(self, until: float) -> bool:
        """Whether the median's interval of every policy, the A/A pair's too, is that narrow."""
        from vaio_bench.analyses.intervals import UNTIL_ROUNDS_MIN, UNTIL_WIDER, paired

        totals = self.writer.manifest["totals"]
        baseline = self.writer.manifest["comparison"]["baseline"]
        widths = []
        for name in self.names:
            # A round that one of the two lost to a filter is no pair.
            shared = set(totals.get(name, {})) & set(totals.get(baseline, {}))
            if name == baseline or name in self._given_up or not shared:
                # More rounds help no policy that loses them all.
                continue
            ours, theirs = (
                [totals[arm][number].get("latency_p50_ns") or 0
                 for number in sorted(shared, key=int)]
                for arm in (name, baseline)
            )  # fmt: skip
            known = min(*ours, *theirs) > 0 and len(ours) >= UNTIL_ROUNDS_MIN
            interval = paired(ours, theirs, wider=UNTIL_WIDER) if known else None
            widths.append(None if interval is None else interval.half_width)
        known_widths = [width for width in widths if width is not None]
        found = max(known_widths, default=None)
        self.writer.manifest["comparison"]["half_width"] = found
        return len(known_widths) == len(widths) and all(width <= until for width in known_widths)

    def _one(self, name: str, number: int, *, warmup: bool = False) -> None:
        what = f"{name}, {'warm-up ' if warmup else ''}round {number + 1}"
        ios = self.job.scan["ios"]

        def show(rows: int) -> None:
            if self.progress:
                of = self._planned * ios
                self.progress(what, self._done * ios + min(rows, ios), of)

        show(0)
        if name in self._given_up:
            self._leave_out(name, number, warmup=warmup)
            return
        filled = target_state.restore(
            self.options["targets"], fills=self.writer.manifest["round_state"]["fills"]
        )
        own = self.policies[name].hang_s
        hang_s = self.job.settings.hang_s if own is None else own
        # Rows of a warm-up go apart: no analysis of the run's rounds reads them.
        inside = f"{WARMUP}{os.sep}" if warmup else ""
        job: dict[str, Any] = {
            "trace": str(self.job.trace.path),
            "columns": self.job.settings.columns,
            "folder": str(part_folder(self.writer.path, name, number, f"{inside}ios")),
            "base_folder": str(
                part_folder(self.writer.path, name, number, f"{inside}replica") / "base"
            ),
            "gauges_folder": str(part_folder(self.writer.path, name, number, f"{inside}gauges")),
            "options": {
                **self.options,
                "hang_ns": round(hang_s * 1e9),
                "policy": name,
                "round": number,
                **servers.engine(self.policies[name], self.job, was_there=self._was_there(name)),
                "run": f"{self.writer.manifest['id']}/{name}/{number}",
            },
        }
        black_box = self.writer.path / ".black-box"
        if any(use.make != "built-in" for use in self.policies[name].filters):
            job |= {"black_box": str(black_box), "hang_s": hang_s}
        replicas = part_folder(self.writer.path, name, number, f"{inside}replica")
        chain = self.policies[name].engine_filters(hang_s)
        watch = ProcessorWatch()
        try:
            with replica.own_sites(chain, replicas, self.job.settings.clock) as (filters, site):
                job["options"]["filters"] = filters
                ended = run_round(job, show)
        except RoundLostError as error:
            self._silent[name] = self._silent[name] + 1 if error.is_silent else 0
            self._lose(name, number, error, warmup=warmup)
            return
        except RoundError as error:
            # With the traceback of a filter in Python, if that is why; on a full disk without.
            with suppress(WorkError):
                if error.events:
                    self.writer.add_events(self._named(name, number, error.events))
            raise error.of(f"policy {what}") from None
        finally:
            black_box.unlink(missing_ok=True)
        if any(use["name"] == "cdp" for use in filters):
            ended.totals["replica"] = {**site, "run": job["options"]["run"]}
        ended.totals["refilled_bytes"] = filled
        ended.totals["others_cpu_share"], ended.totals["stolen_cpu_share"] = watch.shares()
        self._silent[name] = 0
        self._keep(name, number, ended, warmup=warmup)
        self._done += 1
        if ended.interrupted:
            raise KeyboardInterrupt

    def _was_there(self, name: str) -> bool:
        """Whether a round of this policy has had its server: one that is gone since is a loss."""
        known = self.writer.manifest
        lost = any(each["policy"] == name for each in known.get("lost_rounds", []))
        return lost or "servers" in known["policies"][name]

    @property
    def _given_up(self) -> set[str]:
        """Policies whose server is known to be silent."""
        return {name for name, rounds in self._silent.items() if rounds >= SILENT_MAX}

    def _leave_out(self, name: str, number: int, *, warmup: bool) -> None:
        """A round of a policy that was given up is lost, and costs no time."""
        lost = self.writer.manifest["lost_rounds"]
        last = [each for each in lost if each["policy"] == name and each.get("tried", True)][-1]
        reason = f"not tried, as {SILENT_MAX} rounds in a row ended so: {last['reason']}"
        lost.append({"policy": name, "round": number, "warmup": warmup, "tried": False,
                     "reason": reason})  # fmt: skip
        self.writer.save()
        self._done += 1

    def _lose(self, name: str, number: int, error: RoundLostError, *, warmup: bool) -> None:
        """Keeps why a round is lost: the others go on."""
        told = {"policy": name, "round": number, "warmup": warmup, "reason": str(error)}
        self.writer.manifest.setdefault("lost_rounds", []).append(told)
        self.writer.add_events(self._named(name, number, error.events))
        self.writer.save()
        self._done += 1

    def _keep(self, name: str, number: int, ended: Ended, *, warmup: bool) -> None:
        writer = self.writer
        if ended.settled["direct"] and "direct" not in writer.manifest["target"]:
            _note_direct(writer, ended.settled)
        writer.manifest["engine"] = ended.settled
        _note_servers(writer, name, ended.settled["servers"])
        totals = ended.totals
        totals["ios"] = sum(totals["ios_by_op"])
        totals["bytes"] = sum(totals["bytes_by_op"][:2])
        totals["wall_s"] = totals["wall_ns"] / 1e9
        if ended.interrupted:
            totals["stopped"] = True
        if warmup:
            if not ended.interrupted:
                kept = writer.manifest["warmup"]["totals"]
                kept.setdefault(name, {})[str(number)] = totals
                writer.save()
            return
        events = self._named(name, number, ended.events)
        writer.add_events(events)
        _note_lost_disks(writer, events)
        self._warn_of(name, ended.events)
        self._sum_up(name, number, totals)
        writer.add_totals(name, number, totals)
        if self.job.settings.clock == "wall":
            self._warn_of_others()

    def _named(self, name: str, number: int, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A round's events as the run keeps them: disks and layers by their names."""
        layers = self.writer.manifest["policies"][name]["layers"]
        return [
            {
                **event,
                "policy": name,
                "round": number,
                "disk": self.job.disks[event["disk"]],
                "layer": layers[event["layer"]],
            }
            for event in events
        ]

    def _warn_of_others(self) -> None:
        """Who else was at the processors in the rounds so far, as one warning of each kind.

        A server of another make is one of the I/Os' own: its rounds are left out.
        """
        rounds = [
            totals
            for name, of in self.writer.manifest["totals"].items()
            if "servers" not in self.writer.manifest["policies"][name]
            for totals in of.values()
            if "others_cpu_share" in totals
        ]
        if not rounds:
            return
        others = [totals["others_cpu_share"] for totals in rounds]
        stolen = median(totals["stolen_cpu_share"] for totals in rounds)
        raised = []
        if median(others) > NOISY_BUSY_SHARE:
            raised.append(WarningKind.BUSY_ROUNDS.of(busy=median(others), most=max(others)))
        if stolen > NOISY_STEAL_SHARE:
            raised.append(WarningKind.STOLEN_CPU.of(steal=stolen))
        codes = {WarningKind.BUSY_ROUNDS.code, WarningKind.STOLEN_CPU.code}
        kept = [each for each in self.writer.manifest["warnings"] if each["code"] not in codes]
        self.writer.manifest["warnings"] = kept + [warning.to_dict() for warning in raised]

    def _warn_of(self, name: str, events: list[dict[str, Any]]) -> None:
        """Events that a reader of the figures has to know of."""
        warnings = self.writer.manifest["warnings"]
        for event in events:
            found, kind = [], _TO_WARN_OF.get(event["kind"])
            if kind is not None:
                seen = json.loads(event["detail"])
                disk = self.job.disks[event["disk"]]
                found = [kind.of(policy=name, disk=disk, **seen)]
            elif event["kind"] == "replication_totals":
                found = replica.warnings_after(name, json.loads(event["detail"]))
            for warning in map(manifest.stored, found):
                if warning not in warnings:
                    warnings.append(warning)

    def _sum_up(self, name: str, number: int, totals: dict[str, Any]) -> None:
        """The round's timeline, and what of its rows the manifest keeps."""
        from vaio_bench.analyses import fidelity, quantiles, timeline

        run = open_run(self.writer.path)
        if (name, number) not in run.parts_of:
            return
        timeline.append_round(run, name, number)
        rows = quantiles.completed(run.measured_ios(name, number))
        median = quantiles.exact_quantiles(rows, quantiles.LATENCY_NS, [0.5])
        totals["latency_p50_ns"] = median[()][0] if median else None
        found = fidelity.round_fidelity(run, name, number)
        if found is not None and self.job.settings.clock == "wall":
            totals["lateness"] = {
                "p50_ns": found.issue_error_p50_ns,
                "p99_ns": found.issue_error_p99_ns,
                "max_ns": found.issue_error_max_ns,
                "late_share": found.late_share,
                "drift_ns": found.drift_ns,
            }


def _note_lost_disks(writer: RunWriter, events: list[dict[str, Any]]) -> None:
    """Filters that died in a process of their own: the round went on without their disks."""
    for event in events:
        if event["kind"] in ("filter_crash", "filter_hang"):
            reason = json.loads(event["detail"])["reason"]
            told = f'disk {event["disk"]}: filter "{event["layer"]}" {reason}'
            lost = {key: event[key] for key in ("policy", "round", "disk")}
            writer.manifest.setdefault("lost_disks", []).append({**lost, "reason": told})


def _note_direct(writer: RunWriter, settled: dict[str, Any]) -> None:
    """Whether O_DIRECT was to be had is known once the files are open."""
    target = writer.manifest["target"]
    target["direct"] = all(settled["direct"])
    target["alignment"] = settled["lock_align_bytes"]
    if not target["direct"]:
        warning = WarningKind.PAGE_CACHE.of(target=target["path"])
        writer.manifest["warnings"].append(manifest.stored(warning))


def _note_servers(writer: RunWriter, policy: str, found: list[dict[str, Any]]) -> None:
    """What NBD servers are is known once they are connected."""
    kept = writer.manifest["policies"][policy]
    if found and "servers" not in kept:
        for warning in servers.warnings_after(policy, found):
            writer.manifest["warnings"].append(manifest.stored(warning))
    if found:
        kept["servers"] = found
