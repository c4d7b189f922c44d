"""What `crypt` leaves on a target, opened by another library's AES-XTS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from replay_kit import Io, filters, mixed, policy_file

KEY = bytes(range(64))
REACH = 1 << 20


def _decrypt(image: bytes, sector: int) -> bytes:
    clear = b""
    for number in range(len(image) // sector):
        tweak = number.to_bytes(16, "little")
        open_ = Cipher(algorithms.AES(KEY), modes.XTS(tweak)).decryptor()
        clear += open_.update(image[number * sector : (number + 1) * sector]) + open_.finalize()
    return clear


@pytest.mark.parametrize("align", [1, 512])
@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("backend", ["uring", "psync"])
def test_decrypted_it_is_what_the_direct_path_writes(
    engine: Callable, tmp_path: Path, sector: int, align: int, backend: str
) -> None:
    # Written whole first, so that every byte of both images has a known writer.
    ops = ("read", "write", "write", "flush", "write_zeroes")
    ios = mixed(sector + align, 120, reach=REACH, align=align, ops=ops)
    whole = [Io(0, "write", at, 256 << 10) for at in range(0, REACH, 256 << 10)]
    trace = whole + ios
    (tmp_path / "key").write_bytes(KEY)
    policy = policy_file(
        tmp_path,
        filters({"use": "crypt", "key": f"file:{tmp_path / 'key'}", "sector": sector}),
    )
    images = {}
    for name, chain in (("clear", None), ("cipher", policy)):
        target = tmp_path / f"{name}.img"
        replayed = engine(
            trace, target=target, policy=chain, backend=backend, clock="wall", pace="asap",
            seed=6, verify=True,
        )  # fmt: skip
        assert replayed.found["verified"] is True
        images[name] = target.read_bytes()[:REACH]
    assert images["cipher"] != images["clear"]
    clear = _decrypt(images["cipher"], sector)
    differing = [
        at for at in range(0, REACH, 512) if clear[at : at + 512] != images["clear"][at : at + 512]
    ]
    assert differing == []
    # No sector of the cipher text is clear: even zeroes are encrypted.
    for at in range(0, REACH, 512):
        assert images["cipher"][at : at + 512] != images["clear"][at : at + 512]
