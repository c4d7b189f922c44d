"""Storage policies: TOML read, checked whole, and resolved for the engine and the manifest.

A policy names the filters that an I/O meets, in the order in which it meets them:

    [policy]
    name = "encrypted"              # default: the file's name
    description = "AES-XTS"
    allow_filters_before_encryption = false
    framework = "vaio"              # "free" lifts the framework's rules and marks the run
    hang = "30s"                    # a filter of another make that stands still so long has hung

    [[filter]]
    use = "crypt"                   # a filter of `vaio-bench explain`
    placement = "inline"            # or "thread", "process": see `explain placement`
    cipher = "aes-256-xts"          # the filter's own keys, checked by the engine

What a policy reads (the library of `so:PATH`, a `file:PATH` with a key, the rules of `yara`) is
looked for beside the policy's file, then in the folder of the command. What a filter writes, such
as a cache file, is in the folder of the command.

Every fault of a file is reported at once, each with its path: `policy.toml: filter[1].capacity:
expected a size such as "512MiB", got "lots"`. Filters are counted from 0.
"""

from __future__ import annotations

import datetime
import difflib
import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from vaio_bench import catalogue, foreign, framework, placement
from vaio_bench.black_box import HANG_S
from vaio_bench.errors import InputError
from vaio_bench.placement import Placement
from vaio_bench.units import parse_time_ns
from vaio_bench.warnings import RunWarning, WarningKind

DIRECT = "direct"
"""Name of the path without a policy, in every file and table of a run."""

FRAMEWORKS = ("vaio", "free")
HANG_S_MIN, HANG_S_MAX = 0.1, 86_400.0
# A policy's name becomes the name of a folder in the run.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")


class PolicyError(InputError):
    """A policy with mistakes: all of them, one a line, each with its path."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class FilterUse:
    """One filter of a policy, its parameters checked."""

    use: str
    filter_class: str | None
    placement: Placement
    params: dict[str, Any]
    make: str = "built-in"
    """`built-in`, `library` or `python`."""
    engine_use: str = ""
    """What the engine calls it, where that is not `use`."""
    scope: str = "disk"
    """Whose I/Os an instance sees, as it declares: `disk`, or `group` for those of all disks."""

    def to_dict(self) -> dict[str, Any]:
        """The shape of the manifest."""
        return {
            "use": self.use,
            "class": self.filter_class,
            **self.placement.to_dict(),
            "params": self.params,
            "make": self.make,
            "engine_use": self.engine_use or self.use,
            "scope": self.scope,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> FilterUse:
        """The inverse of `to_dict`."""
        keys = ("use", "params", "make", "engine_use", "scope")
        spin_ns = stored.get("spin_ns", placement.SPIN_NS)
        placed = Placement(stored["placement"], spin_ns)
        own = {key: stored[key] for key in keys if key in stored}
        return cls(filter_class=stored["class"], placement=placed, **own)


@dataclass(frozen=True)
class Policy:
    """A checked storage policy; without filters it is the direct path."""

    name: str
    description: str = ""
    framework: str = "vaio"
    allow_filters_before_encryption: bool = False
    hang_s: float | None = None
    """A filter of another make has hung when a callback takes longer, or when it holds I/Os and
    lets go of none for so long; None: as the run's settings say."""
    filters: tuple[FilterUse, ...] = ()
    source: str | None = None
    """The file it was read from; None for the direct path."""
    warnings: tuple[RunWarning, ...] = field(default=(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The resolved policy, as the manifest keeps it."""
        return {
            "name": self.name,
            "description": self.description,
            "framework": self.framework,
            "allow_filters_before_encryption": self.allow_filters_before_encryption,
            "hang_s": self.hang_s,
            "source": self.source,
            "filters": [use.to_dict() for use in self.filters],
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Policy:
        """The policy that `to_dict` made the manifest's entry of; its warnings stay there."""
        filters = [FilterUse.from_dict(each) for each in stored["filters"]]
        keys = ("description", "framework", "allow_filters_before_encryption", "hang_s", "source")
        head = {key: stored[key] for key in keys}
        return cls(name=stored["name"], filters=tuple(filters), **head)

    @property
    def server(self) -> FilterUse | None:
        """The NBD server at the end of the chain, which takes the place of the backend."""
        last = self.filters[-1] if self.filters else None
        return last if last is not None and catalogue.is_server(last.use) else None

    def layers(self, backend: str) -> list[str]:
        """What an I/O passes, first filter first and what stands for the device last.

        Before a filter that runs elsewhere stands the hop there.
        """
        names: list[str] = []
        for use in self._chain():
            names += [placement.LAYER, use.use] if use.placement.is_hop else [use.use]
        return [*names, "nbd" if self.server else backend]

    def engine_filters(self, hang_s: float = HANG_S) -> list[dict[str, Any]]:
        """The chain as the engine's options have it, first filter first.

        `[{"name", "params"}]`, with the policy's `word` for it where the engine has another name.
        """
        return placement.engine_filters(self._chain(), hang_s)

    def _chain(self) -> tuple[FilterUse, ...]:
        return self.filters[:-1] if self.server else self.filters


def direct() -> Policy:
    """The path without a policy: I/Os go straight to the device."""
    return Policy(DIRECT, "the path without a filter policy")


def shipped() -> dict[str, Path]:
    """The policies that come with the package, by name."""
    folder = Path(str(resources.files("vaio_bench") / "policies"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_policy(policy: str | Path) -> Policy:
    """Reads and checks one policy.

    Args:
        policy: the path of a TOML file, the name of a policy that is shipped, or `direct`.

    Raises:
        InputError: there is no such file, or it cannot be read.
        PolicyError: it has mistakes, all of them listed.
    """
    path = Path(policy)
    if not path.is_file():
        if str(policy) == DIRECT:
            return direct()
        known = shipped()
        if str(policy) not in known:
            names = ", ".join([DIRECT, *known])
            kind = "not a file" if path.exists() else "no such file"
            raise InputError(
                f"{policy}: {kind}, nor the name of a policy that is shipped ({names})"
            )
        path = known[str(policy)]
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start}: expected UTF-8 text") from error
    return parse_policy(text, str(path))


def load_policies(policies: Sequence[str | Path]) -> list[Policy]:
    """Reads several policies of one comparison; their names must differ.

    Raises:
        PolicyError: the mistakes of all of them.
    """
    loaded: list[Policy] = []
    faults: list[str] = []
    for policy in policies:
        try:
            loaded.append(load_policy(policy))
        except InputError as error:
            faults += str(error).splitlines()
    for i, later in enumerate(loaded):
        for earlier in loaded[:i]:
            if later.name == earlier.name:
                faults.append(
                    f"{later.source or DIRECT}: policy.name: expected a name of its own, got "
                    f'"{later.name}" as in {earlier.source or DIRECT}'
                )
    if faults:
        raise PolicyError(faults)
    return loaded


def parse_policy(text: str, file: str) -> Policy:
    """Checks the text of a policy.

    Args:
        text: TOML.
        file: what messages call it; its stem is the default name.

    Raises:
        PolicyError: every mistake in it, one a line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError([f"{file}: expected TOML: {error}"]) from error
    return _Reader(file).read(document)


class _Reader:
    """Collects every fault of one document."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[str] = []

    def fault(self, path: str, message: str) -> None:
        self.faults.append(f"{self.file}: {path}: {message}")

    def read(self, document: dict[str, Any]) -> Policy:
        self._unknown_keys("", document, ("policy", "filter"))
        head = document.get("policy", {})
        if not isinstance(head, dict):
            self.fault("policy", f"expected a table [policy], got {_shown(head)}")
            head = {}
        tables = document.get("filter", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.fault("filter", "expected [[filter]] tables, one a filter, got " + _shown(tables))
            tables = []
        name, chosen, before_encryption = self._head(head, direct=not tables)
        hang_s = self._hang_s(head.get("hang"))
        filters = [
            self._filter(i, table, is_last=i + 1 == len(tables)) for i, table in enumerate(tables)
        ]
        chain = [
            framework.Link(i, use.use, use.filter_class)
            for i, use in enumerate(filters)
            if use is not None
        ]
        warnings: list[RunWarning] = []
        if chosen == "free":
            warnings.append(WarningKind.FRAMEWORK_FREE.of(policy=name))
        else:
            rules = framework.broken_rules(chain, before_encryption=before_encryption)
            for index, message in rules:
                self.fault(f"filter[{index}].use", message)
            warnings += framework.customs(name, chain)
        warnings += [
            WarningKind.PYTHON_FILTER.of(policy=name, use=use.use)
            for use in filters
            if use is not None and use.make == "python"
        ]
        if self.faults:
            raise PolicyError(self.faults)
        return Policy(
            name=name,
            description=head.get("description", ""),
            framework=chosen,
            allow_filters_before_encryption=before_encryption,
            hang_s=hang_s,
            filters=tuple(use for use in filters if use is not None),
            source=self.file,
            warnings=tuple(warnings),
        )

    def _head(self, head: dict[str, Any], *, direct: bool) -> tuple[str, str, bool]:
        keys = ("name", "description", "allow_filters_before_encryption", "framework", "hang")
        self._unknown_keys("policy.", head, keys)
        stem = re.sub(r"[^A-Za-z0-9 ._+-]", "-", Path(self.file).stem)
        name = head.get("name", stem if _NAME.fullmatch(stem) else "policy")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            expected = "expected up to 64 letters, digits, spaces or . _ + -"
            self.fault("policy.name", f"{expected}, a letter or digit first, got {_shown(name)}")
            name = stem
        elif name == DIRECT and not direct:
            self.fault("policy.name", f'expected another name: "{DIRECT}" is the unfiltered path')
        if not isinstance(head.get("description", ""), str):
            self.fault("policy.description", f"expected text, got {_shown(head['description'])}")
        before_encryption = head.get("allow_filters_before_encryption", False)
        if not isinstance(before_encryption, bool):
            self.fault(
                "policy.allow_filters_before_encryption",
                f"expected true or false, got {_shown(before_encryption)}",
            )
            before_encryption = True  # Its rule cannot be judged: one fault is enough.
        chosen = head.get("framework", FRAMEWORKS[0])
        if chosen not in FRAMEWORKS:
            expected = " or ".join(f'"{value}"' for value in FRAMEWORKS)
            self.fault("policy.framework", f"expected {expected}, got {_shown(chosen)}")
            chosen = FRAMEWORKS[0]
        return name, chosen, before_encryption

    def _hang_s(self, value: object) -> float | None:
        if value is None:
            return None
        try:
            hang_s = parse_time_ns(value) / 1e9
        except InputError:
            hang_s = 0.0
        if not HANG_S_MIN <= hang_s <= HANG_S_MAX:
            expected = 'expected a time from "100ms" to "1d", such as "30s"'
            self.fault("policy.hang", f"{expected}, got {_shown(value)}")
            return None
        return hang_s

    def _filter(self, index: int, table: dict[str, Any], *, is_last: bool) -> FilterUse | None:
        """The filter, or None when it cannot be told which one it is."""
        at = f"filter[{index}]"
        params = {key: value for key, value in table.items() if key not in ("use", "placement")}
        placed = self._placement(at, table.get("placement", "inline"))
        use = table.get("use")
        if isinstance(use, str) and foreign.make_of(use) is not None:
            return self._foreign(at, use, placed, params)
        known = catalogue.filters()
        if isinstance(use, str) and catalogue.is_server(use):
            return self._server(at, use, placed, params, is_last=is_last)
        if not isinstance(use, str) or use not in known:
            self.fault(f"{at}.use", _unknown_use(use, list(known)))
            return None
        unfit = [fault for key, value in params.items() for fault in _unfit(key, value)]
        params = {key: self._key_beside(value) for key, value in params.items()}
        faults = unfit or catalogue.check_filter(use, params)
        for path, message in faults:
            self.fault(f"{at}.{path}" if path else at, message)
        declared = {} if faults else catalogue.declared(use, params)
        self._unplaceable(at, placement.unfit_properties(placed, declared))
        return FilterUse(
            use, known[use].filter_class, placed, params, scope=declared.get("scope", "disk")
        )

    def _unplaceable(self, at: str, message: str | None) -> None:
        if message is not None:
            self.fault(f"{at}.placement", message)

    def _server(
        self, at: str, use: str, placed: Placement, params: dict[str, Any], *, is_last: bool
    ) -> FilterUse:
        if not is_last:
            self.fault(f"{at}.use", f"expected an NBD server as the last filter, got {_shown(use)}")
        unfit = [fault for key, value in params.items() for fault in _unfit(key, value)]
        for path, message in unfit or catalogue.check_server(use, params):
            self.fault(f"{at}.{path}" if path else at, message)
        self._unplaceable(at, placement.unfit_server(placed))
        return FilterUse(use, None, placed, params)

    def _foreign(
        self, at: str, use: str, placed: Placement, params: dict[str, Any]
    ) -> FilterUse | None:
        unfit = [fault for key, value in params.items() for fault in _unfit(key, value)]
        for key in foreign.reads(use):
            if isinstance(params.get(key), str):
                params[key] = self._beside(params[key])
        kind, _, path = use.partition(":")
        found = f"so:{self._beside(path)}" if kind == "so" and path else use
        about, faults = (None, unfit) if unfit else foreign.describe(found, params)
        for path, message in faults:
            self.fault(f"{at}.{path}" if path else at, message)
        if about is None:
            return None
        self._unplaceable(at, placement.unfit_properties(placed, about.properties))
        return FilterUse(
            use, about.filter_class, placed, params, about.make, about.engine_use,
            about.properties.get("scope", "disk"),
        )  # fmt: skip

    def _beside(self, name: str) -> str:
        """A file beside the policy's, where there is one; else the name as it is."""
        beside = Path(self.file).parent / name
        return str(beside) if beside.is_file() else name

    def _key_beside(self, value: Any) -> Any:
        """A parameter whose `file:PATH`, also in a table, is looked for beside the policy."""
        if isinstance(value, dict):
            return {key: self._key_beside(item) for key, item in value.items()}
        if isinstance(value, str) and value.startswith("file:"):
            return f"file:{self._beside(value.removeprefix('file:'))}"
        return value

    def _placement(self, at: str, value: object) -> Placement:
        placed, faults = placement.parse(value)
        for path, message in faults:
            self.fault(f"{at}.{path}", message)
        return placed

    def _unknown_keys(self, prefix: str, table: dict[str, Any], known: Sequence[str]) -> None:
        for key in table:
            if key not in known:
                expected = f"unknown key: expected one of {', '.join(known)}"
                self.fault(f"{prefix}{key}", expected + _nearest(key, known))


def _unknown_use(use: object, known: Sequence[str]) -> str:
    names = ", ".join(known)
    if use is None:
        return f"missing: expected the name of a filter ({names})"
    if not isinstance(use, str):
        return f"expected the name of a filter ({names}), got {_shown(use)}"
    return f"expected the name of a filter ({names}), got {_shown(use)}{_nearest(use, known)}"


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _unfit(path: str, value: object) -> list[tuple[str, str]]:
    """Values that TOML has and the engine's parameters have not, by key path."""
    if isinstance(value, dict):
        return [fault for key, item in value.items() for fault in _unfit(f"{path}.{key}", item)]
    if isinstance(value, list):
        return [fault for i, item in enumerate(value) for fault in _unfit(f"{path}[{i}]", item)]
    unbounded = isinstance(value, float) and not math.isfinite(value)
    if unbounded or isinstance(value, datetime.date | datetime.time):
        return [(path, f"expected text, a finite number, true or false, got {_shown(value)}")]
    return []


def _shown(value: object) -> str:
    """A value as its writer would recognise it, cut short."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
