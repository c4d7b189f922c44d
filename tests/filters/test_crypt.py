"""`crypt` leaves on the target what an independent library decrypts to the clear text."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import vaio_bench as vb

KEY = bytes(range(64))


def decrypt(data: bytes, unit_bytes: int) -> bytes:
    """AES-256-XTS by units, tweak = little-endian unit number, as `aes-xts-plain64` has it."""
    clear = bytearray()
    for number in range(len(data) // unit_bytes):
        tweak = modes.XTS(number.to_bytes(16, "little"))
        decryptor = Cipher(algorithms.AES(KEY), tweak).decryptor()
        clear += decryptor.update(data[number * unit_bytes : (number + 1) * unit_bytes])
    return bytes(clear)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "disk.key"
    path.write_bytes(KEY)
    return path


@pytest.mark.parametrize("backend", ["psync", "uring"])
@pytest.mark.parametrize("sector", [512, 4096])
def test_an_independent_library_decrypts_the_target(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    mixed_ios: list[Any],
    key_file: Path,
    tmp_path: Path,
    sector: int,
    backend: str,
) -> None:
    # Discarded data are nobody's: two targets may differ there.
    ios = [io for io in mixed_ios if io[1] != "discard"]
    trace = write_trace(ios)
    clear, cipher = tmp_path / "clear.img", tmp_path / "cipher.img"
    policy = f'use = "crypt"\nkey = "file:{key_file}"\nsector = {sector}'
    replay(trace, target=clear, seed=3, depth=32, backend=backend)
    found = replay(trace, policy, target=cipher, seed=3, depth=32, backend=backend)
    assert found.summary["verified"] is True
    assert found.summary["errors"] == 0
    expected, stored = clear.read_bytes(), cipher.read_bytes()
    got = decrypt(stored, sector)
    written = [io for io in ios if io[1] in ("write", "write_zeroes")]
    assert len(written) > 1000
    for _, _, offset, length in written:
        assert got[offset : offset + length] == expected[offset : offset + length]
        assert stored[offset : offset + length] != expected[offset : offset + length]


def test_the_key_comes_from_the_environment_too(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(os.environ, "VAIO_BENCH_TEST_KEY", KEY.hex())
    trace = write_trace([(0, "write", 0, 65536)])
    clear, cipher = tmp_path / "clear.img", tmp_path / "cipher.img"
    replay(trace, target=clear, backend="psync")
    replay(trace, 'use = "crypt"\nkey = "env:VAIO_BENCH_TEST_KEY"', target=cipher, backend="psync")
    assert decrypt(cipher.read_bytes()[:65536], 512) == clear.read_bytes()[:65536]


def test_bad_keys_are_refused_before_anything_is_written(
    write_trace: Callable[..., Path], replay: Callable[..., Any], tmp_path: Path
) -> None:
    trace = write_trace([(0, "write", 0, 4096)])
    short = tmp_path / "short.key"
    short.write_bytes(b"x" * 32)
    equal = tmp_path / "equal.key"
    equal.write_bytes(b"y" * 64)
    for key, message in [
        (f"file:{short}", "expected 64 bytes or 128 hex digits"),
        (f"file:{equal}", "halves of the XTS key are equal"),
        ("file:/does/not/exist", "cannot read /does/not/exist"),
        ("secret", 'expected "file:PATH", "env:NAME" or "random", got "secret"'),
    ]:
        with pytest.raises(vb.InputError, match=r"filter\[0\]\.key: ") as caught:
            replay(trace, f'use = "crypt"\nkey = "{key}"', target=tmp_path / "disk.img")
        assert message in str(caught.value)
        assert not (tmp_path / "disk.img").exists()
