use proptest::prelude::*;
use serde_json::json;

use super::super::find;
use super::super::testing::{EIO, Rig, setting};
use super::*;

const DISK: u64 = 1 << 20;
const KEY: [u8; 64] = {
    let mut key = [0; 64];
    let mut i = 0;
    while i < 64 {
        key[i] = i as u8 * 3;
        i += 1;
    }
    key
};

/// A folder with the key in a file; the policy's parameters that name it.
fn with_key(sector: u64) -> (tempfile::TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, KEY).unwrap();
    (folder, json!({"key": format!("file:{}", path.display()), "sector": sector}))
}

fn rig(sector: u64) -> (tempfile::TempDir, Rig) {
    let (folder, params) = with_key(sector);
    (folder, Rig::new(&[("crypt", params)], DataMode::Bytes, DISK))
}

/// A device full of what was encrypted before: zeroes, so that units can be changed in part.
fn zeroed(rig: &mut Rig) {
    rig.one(Op::WriteZeroes, 0, DISK);
}

fn decrypted(rig: &Rig, sector: u64) -> Vec<u8> {
    let mut image = rig.device.lock().unwrap().image.clone();
    Xts::new(&KEY).unwrap().decrypt_in_place(sector as usize, 0, &mut image);
    image
}

#[test]
fn the_device_holds_cipher_text() {
    for sector in [512, 4096] {
        let (_folder, mut rig) = rig(sector);
        rig.one(Op::Write, 8192, 65_536);
        let clear = decrypted(&rig, sector);
        assert_eq!(clear[8192..8200], 1u64.to_le_bytes(), "the first write's token");
        let device = rig.device.lock().unwrap();
        let distinct = device.image[8192..8192 + 65_536].chunks(16).collect::<Vec<_>>();
        let unique: std::collections::HashSet<_> = distinct.iter().collect();
        assert_eq!(unique.len(), distinct.len(), "no block of cipher text comes twice");
        assert_eq!(device.log, [(Op::Write, 8192, 65_536)], "one child, nothing read");
    }
}

#[test]
fn whole_units_are_never_read_first_and_parts_are() {
    let (_folder, mut rig) = rig(4096);
    zeroed(&mut rig);
    rig.device.lock().unwrap().log.clear();
    rig.one(Op::Write, 4096, 8192);
    // 512 bytes into a unit, to 1024 bytes into another, two whole ones between.
    rig.one(Op::Write, 20_992, 4096 * 3 - 512 + 1024);
    let log = rig.device.lock().unwrap().log.clone();
    assert_eq!(log[0], (Op::Write, 4096, 8192));
    let mut rest = log[1..].to_vec();
    rest.sort_by_key(|(op, at, _)| (*op as u8, *at));
    assert_eq!(
        rest,
        [
            (Op::Read, 20_480, 4096),
            (Op::Read, 32_768, 4096),
            (Op::Write, 20_480, 4096),
            (Op::Write, 24_576, 8192),
            (Op::Write, 32_768, 4096),
        ]
    );
    rig.one(Op::Read, 20_480, 16_384);
    assert_eq!(rig.unverified_sectors, 0);
}

#[test]
fn zeroes_read_back_zero_and_are_cipher_text_below() {
    let (_folder, mut rig) = rig(4096);
    rig.one(Op::Write, 0, DISK);
    rig.device.lock().unwrap().log.clear();
    rig.one(Op::WriteZeroes, 1024, 600_000 / 512 * 512);
    rig.one(Op::Read, 0, DISK);
    let device = rig.device.lock().unwrap();
    assert!(device.log.iter().all(|(op, _, length)| *op == Op::Read || *length <= ZEROES_BYTES));
    assert!(device.image.chunks(16).all(|block| block != [0; 16]));
}

#[test]
fn a_discard_spares_units_it_covers_in_part() {
    let (_folder, mut rig) = rig(4096);
    rig.one(Op::Write, 0, 65_536);
    rig.device.lock().unwrap().log.clear();
    rig.one(Op::Discard, 512, 1024);
    assert!(rig.device.lock().unwrap().log.is_empty());
    rig.one(Op::Discard, 5120, 8192);
    assert_eq!(rig.device.lock().unwrap().log, [(Op::Discard, 8192, 4096)]);
    // The rest of the units at the edges is still what was written.
    rig.one(Op::Read, 0, 65_536);
    assert_eq!(rig.unverified_sectors, (1024 + 8192) / 512);
}

#[test]
fn errors_pass_up_unchanged() {
    for (op, fail) in [
        (Op::Read, Op::Read),
        (Op::Write, Op::Write),
        (Op::Write, Op::Read),
        (Op::WriteZeroes, Op::Write),
        (Op::Discard, Op::Discard),
        (Op::Flush, Op::Flush),
    ] {
        let (_folder, mut rig) = rig(4096);
        zeroed(&mut rig);
        rig.device.lock().unwrap().fail = Some((fail, 0..DISK));
        let (at, length) = if op == Op::Flush { (0, 0) } else { (512, 12_800) };
        assert_eq!(rig.one(op, at, length).status, EIO, "{op:?} over a failing {fail:?}");
        rig.device.lock().unwrap().fail = None;
        assert_eq!(rig.one(op, at, length).status, OK);
    }
}

#[test]
fn wrong_parameters_are_all_named() {
    let errors = |params: Value| -> Vec<(String, String)> {
        let built = (find("crypt").unwrap().build)(&params, &setting(DataMode::Bytes));
        built.err().unwrap().into_iter().map(|e| (e.path, e.message)).collect()
    };
    let got = errors(json!({"cipher": "des", "sector": 1000}));
    let paths: Vec<&str> = got.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["cipher", "sector", "key"]);
    assert_eq!(errors(json!({"key": 5})).len(), 1, "wrong, and not missing as well");
    assert!(got[0].1.contains("aes-256-xts"), "{got:?}");
    let got = errors(json!({"sector": 1000}));
    assert_eq!(got[0].1, "expected 512, 1024, 2048 or 4096, got 1000");
    assert_eq!(got[1].1, "missing: expected \"file:PATH\", \"env:NAME\" or \"random\"");
    let key = |key: &str| errors(json!({ "key": key }))[0].1.clone();
    assert!(key("secret").ends_with("got \"secret\""));
    assert!(key("file:/no/such/key").starts_with("cannot read /no/such/key: "));
    assert!(key("env:NO_SUCH_KEY_IS_SET").ends_with("NO_SUCH_KEY_IS_SET, got none"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key").display().to_string();
    let with_content = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        key(&format!("file:{path}"))
    };
    assert!(with_content(&[1; 32]).ends_with("got 32 bytes"));
    assert!(with_content(&[b'g'; 128]).ends_with("got 128 bytes"));
    assert!(with_content(&[7; 64]).contains("halves of the XTS key are equal"));
}

#[test]
fn hex_and_raw_files_hold_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let hex: String = KEY.iter().map(|byte| format!("{byte:02X}")).collect();
    std::fs::write(&path, hex + "\n").unwrap();
    let source = format!("file:{}", path.display());
    assert_eq!(key::load(Some(&source)).unwrap(), KEY);
    assert_ne!(key::load(Some("random")).unwrap(), key::load(Some("random")).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Any mix of I/Os, overlapping and out of order below: reads give back what was written
    /// (the rig checks each), and the device holds it encrypted.
    #[test]
    fn what_is_written_is_read(
        plan in proptest::collection::vec((0u64..30, 1u64..40, 0u8..9, 0u64..4000), 1..120),
        sector in prop_oneof![Just(512u64), Just(4096)],
        two_filters in any::<bool>(),
    ) {
        let (_folder, params) = with_key(sector);
        let chain: &[(&str, Value)] = &[("pass", json!({})), ("crypt", params)];
        let chain = if two_filters { chain } else { &chain[1..] };
        let mut rig = Rig::new(chain, DataMode::Bytes, DISK);
        zeroed(&mut rig);
        let mut at = 10_000_000_000;
        for (place, length, action, gap) in plan {
            let op = match action {
                0..4 => Op::Read,
                4..7 => Op::Write,
                7 => Op::WriteZeroes,
                _ => Op::Discard,
            };
            at += gap;
            rig.io(at, op, place * 1536, length * 512);
        }
        rig.io(at + 1_000_000, Op::Read, 0, 1 << 17);
        for row in rig.run() {
            prop_assert_eq!(row.status, OK);
        }
    }
}
