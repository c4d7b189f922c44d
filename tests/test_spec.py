"""Storage policies: what is accepted, and every fault at once with its path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vaio_bench import catalogue, spec
from vaio_bench.errors import InputError

CLASSES = {
    "pass": None,
    "delay": None,
    "scan": "inspection",
    "tap": "dataCapture",
    "cdp": "replication",
    "cache": "cache",
    "lz4": "compression",
    "crypt": "encryption",
    "throttle": "datastoreIoControl",
}


@pytest.fixture
def all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue with a filter of every class: the rules cover classes that come later."""
    kinds = {
        name: catalogue.Kind("filter", name, filter_class, "", {}, {})
        for name, filter_class in CLASSES.items()
    }

    def check(use: str, params: dict[str, object]) -> list[tuple[str, str]]:
        size = params.get("capacity", "1MiB")
        return [] if size == "1MiB" else [("capacity", f"expected a size, got {json.dumps(size)}")]

    monkeypatch.setattr(catalogue, "filters", lambda: kinds)
    monkeypatch.setattr(catalogue, "check_filter", check)


def policy_text(*uses: str, head: str = "") -> str:
    return f"[policy]\n{head}\n" + "".join(f'[[filter]]\nuse = "{use}"\n' for use in uses)


def faults_of(text: str) -> list[str]:
    with pytest.raises(spec.PolicyError) as caught:
        spec.parse_policy(text, "policy.toml")
    assert caught.value.exit_status == 2
    return list(caught.value.faults)


def codes_of(text: str) -> list[str]:
    return [warning.code for warning in spec.parse_policy(text, "policy.toml").warnings]


@pytest.mark.usefixtures("all_classes")
class TestRules:
    def test_classless_filters_may_be_repeated(self) -> None:
        policy = spec.parse_policy(policy_text("pass", "delay", "pass", "delay"), "a.toml")
        assert [use.use for use in policy.filters] == ["pass", "delay", "pass", "delay"]
        assert policy.warnings == ()

    def test_one_filter_a_class(self) -> None:
        (fault,) = faults_of(policy_text("throttle", "pass", "throttle"))
        assert fault.startswith("policy.toml: filter[2].use: expected no second filter of class ")
        assert 'filter[0] "throttle"' in fault

    def test_replication_before_cache(self) -> None:
        (fault,) = faults_of(policy_text("cache", "cdp"))
        assert fault.startswith("policy.toml: filter[1].use: expected replication before cache")
        assert codes_of(policy_text("cdp", "cache")) == []

    @pytest.mark.parametrize("before", ["cdp", "pass"])
    def test_nothing_before_encryption(self, before: str) -> None:
        (fault,) = faults_of(policy_text(before, "crypt"))
        assert fault.startswith("policy.toml: filter[0].use: expected encryption first")
        allowed = policy_text(before, "crypt", head="allow_filters_before_encryption = true")
        assert codes_of(allowed) == []

    def test_each_filter_before_encryption_is_a_fault(self) -> None:
        faults = faults_of(policy_text("scan", "cdp", "crypt"))
        assert [fault.split(":")[1] for fault in faults] == [" filter[0].use", " filter[1].use"]

    def test_free_lifts_the_rules_and_marks_the_run(self) -> None:
        chain = ("cache", "cdp", "crypt", "crypt")
        assert len(faults_of(policy_text(*chain))) > 3
        assert codes_of(policy_text(*chain, head='framework = "free"')) == ["framework-free"]

    def test_customs_are_warnings(self) -> None:
        assert codes_of(policy_text("crypt", "lz4")) == ["sees-cipher-text"]
        assert codes_of(policy_text("crypt", "throttle")) == []
        assert codes_of(policy_text("throttle", "cache")) == ["class-order"]
        assert codes_of(policy_text("pass", "cache", "pass")) == []


@pytest.mark.usefixtures("all_classes")
class TestFaults:
    def test_all_at_once_each_with_its_path(self) -> None:
        text = """
            surplus = 1
            [policy]
            name = "../up"
            description = 7
            framework = "fast"
            alow_filters_before_encryption = true
            [[filter]]
            use = "pass"
            placement = "proces"
            [[filter]]
            use = "cache"
            capacity = "lots"
            [[filter]]
            use = "cahce"
            [[filter]]
            capacity = "1MiB"
            [[filter]]
            use = "py:mine:Filter"
            placement = "moon"
            [[filter]]
            use = "delay"
            read = 1979-05-27
            write = [1, nan]
        """
        faults = faults_of(text)
        assert [fault.split(": ")[1] for fault in faults] == [
            "surplus",
            "policy.alow_filters_before_encryption",
            "policy.name",
            "policy.description",
            "policy.framework",
            "filter[0].placement",
            "filter[1].capacity",
            "filter[2].use",
            "filter[3].use",
            "filter[4].placement",
            "filter[4].use",
            "filter[5].read",
            "filter[5].write[1]",
        ]
        text = "\n".join(faults)
        assert 'policy.toml: filter[1].capacity: expected a size, got "lots"' in faults
        assert 'did you mean "allow_filters_before_encryption"?' in text
        assert 'did you mean "cache"?' in text
        assert "mine" in next(fault for fault in faults if "filter[4].use: " in fault)

    def test_not_toml(self) -> None:
        (fault,) = faults_of("[policy\n")
        assert fault.startswith("policy.toml: expected TOML: ")
        assert "line 1" in fault

    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("policy = 3", "policy"),
            ("filter = 3", "filter"),
            ("filter = [1]", "filter"),
            ('[filter]\nuse = "pass"', "filter"),
            ('[policy]\nname = "direct"\n[[filter]]\nuse = "pass"', "policy.name"),
            ("[policy]\nallow_filters_before_encryption = 1", "policy.allow_filters_before"),
            ('[[filter]]\nuse = ["pass"]', "filter[0].use"),
        ],
    )
    def test_wrong_shapes(self, text: str, path: str) -> None:
        (fault,) = faults_of(text)
        assert fault.startswith(f"policy.toml: {path}")


class TestFiles:
    def test_empty_policy_is_the_direct_path(self, tmp_path: Path) -> None:
        file = tmp_path / "none at all.toml"
        file.write_text("")
        policy = spec.load_policy(file)
        assert policy.filters == ()
        assert policy.name == "none at all"
        assert spec.load_policy("direct") == spec.direct()

    def test_missing_file_names_what_is_shipped(self) -> None:
        with pytest.raises(InputError, match="no such file, nor the name of a policy") as caught:
            spec.load_policy("crpyt")
        assert "crypt" in str(caught.value)

    def test_folder_and_binary(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not a file"):
            spec.load_policy(tmp_path)
        binary = tmp_path / "b.toml"
        binary.write_bytes(b"name = \xff")
        with pytest.raises(InputError, match="byte 7: expected UTF-8"):
            spec.load_policy(binary)

    @pytest.mark.usefixtures("all_classes")
    def test_two_policies_of_one_name(self, tmp_path: Path) -> None:
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "p.toml").write_text('[[filter]]\nuse = "pass"\n')
        files = [tmp_path / "a" / "p.toml", tmp_path / "b" / "p.toml", tmp_path / "c.toml"]
        with pytest.raises(spec.PolicyError) as caught:
            spec.load_policies(files)
        missing, same = caught.value.faults
        assert "c.toml: no such file" in missing
        assert 'policy.name: expected a name of its own, got "p"' in same

    @pytest.mark.usefixtures("all_classes")
    def test_resolved_for_manifest_and_engine(self) -> None:
        text = policy_text("cache", head='name = "c"') + 'block = "4KiB"\n'
        policy = spec.parse_policy(text, "x.toml")
        document = json.loads(json.dumps(policy.to_dict()))
        assert document["name"] == "c"
        assert document["source"] == "x.toml"
        assert document["filters"] == [
            {
                "use": "cache",
                "class": "cache",
                "placement": "inline",
                "params": {"block": "4KiB"},
                "make": "built-in",
                "engine_use": "cache",
                "scope": "disk",
            }
        ]
        assert policy.engine_filters() == [{"name": "cache", "params": {"block": "4KiB"}}]


class TestEngine:
    """Against the compiled engine's own catalogue."""

    @pytest.mark.parametrize("name", sorted(spec.shipped()))
    def test_shipped_policies_are_right(self, name: str) -> None:
        policy = spec.load_policy(name)
        assert policy.name == name
        assert policy.description
        assert policy.warnings == ()

    @pytest.mark.parametrize(
        ("table", "scope"),
        [
            ('use = "cache"\ncapacity = "1MiB"\nscope = "group"', "group"),
            ('use = "cache"\ncapacity = "1MiB"', "disk"),
            ('use = "cdp"\nrpo = "5s"\nlink = { bandwidth = "1Mbit/s", rtt = "1ms" }', "group"),
            ('use = "py:scoped:OfAll"', "group"),
        ],
    )
    def test_whose_ios_an_instance_sees_is_what_it_declares(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, scope: str
    ) -> None:
        (tmp_path / "scoped.py").write_text(
            "from vaio_bench.filters import Filter, Properties\n"
            "class OfAll(Filter):\n"
            '    """Of all disks."""\n'
            '    properties = Properties(transparent=True, scope="group")\n'
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        policy = spec.parse_policy(f"[[filter]]\n{table}\n", "p.toml")
        document = json.loads(json.dumps(policy.to_dict()))
        assert document["filters"][0]["scope"] == scope
        assert spec.Policy.from_dict(document).filters[0].scope == scope

    def test_the_engine_checks_parameters(self) -> None:
        text = '[[filter]]\nuse = "pass"\n[[filter]]\nuse = "cache"\ncapacity = "lots"\n'
        faults = faults_of(text)
        expected = 'policy.toml: filter[1].capacity: expected a size such as "512MiB", got "lots"'
        assert expected in faults
