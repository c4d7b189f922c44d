//! Power fails at any moment, again and again, and the next cache starts on what is left: of the
//! disk and of the cache file, both with a volatile write cache and torn to sectors.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::backends::sim::faults::Faults;
use crate::backends::sim::platter::{self, Platter, SharedPlatter, mix};
use crate::backends::sim::{Sim, SimModel};
use crate::backends::store::Place;
use crate::clock::Clock;
use crate::eviction::POLICIES;
use crate::filters::cache::file::layout::{Header, SECTOR};
use crate::filters::{DataMode, Setting, find};
use crate::io::{OK, Op, flags};
use crate::laws::bed::{Bed, DISK_BYTES, Memory, Plan};
use crate::laws::{self, Outcome};

fn bed(params: &Value, setting: &Setting, model: SimModel, platter: &SharedPlatter) -> Bed {
    let built = (find("cache").unwrap().build)(params, setting).unwrap();
    let device = Box::new(Sim::on(model, Arc::clone(platter)));
    let mut bed = Bed::new(vec![built], device, Clock::Virtual(0), true).unwrap();
    bed.may_fail = true;
    bed
}

fn dies_after(ios: u64, seed: u64) -> SimModel {
    let faults = Faults { crash_after_ios: Some(ios), torn: true, ..Faults::default() };
    SimModel { write_cache: true, seed, faults, ..SimModel::default() }
}

fn lives(seed: u64) -> SimModel {
    SimModel { write_cache: true, seed, ..SimModel::default() }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn parameters(random: &mut Random) -> Value {
    let write_policy = random.pick(&["back", "back", "through", "around"]);
    let block = random.pick(&[4096, 4096, 8192]);
    let mut params = json!({
        "capacity": block * (1 + random.below(24)),
        "block": block,
        "file": "cache",
        "eviction": POLICIES[random.below(POLICIES.len() as u64) as usize].name,
        "write_policy": write_policy,
    });
    if write_policy == "back" {
        params["destage_after"] = json!(random.pick(&["0s", "100us", "2ms", "1h"]));
    }
    params
}

fn plan(random: &mut Random, ios: u64) -> Vec<Plan> {
    let ops = [
        (Op::Read, 0),
        (Op::Read, 0),
        (Op::Write, 0),
        (Op::Write, 0),
        (Op::Write, 0),
        (Op::Write, flags::FUA),
        (Op::WriteZeroes, 0),
        (Op::Flush, 0),
        (Op::Write, flags::PREFLUSH),
    ];
    let unit = random.pick(&[512, 4096]);
    let units = DISK_BYTES / unit;
    (0..ios)
        .map(|i| {
            let (op, flags) =
                if random.below(40) == 0 { (Op::Discard, 0) } else { random.pick(&ops) };
            let length = 1 + random.below(16);
            let offset = random.below(units - length);
            let (offset, length) = if op == Op::Flush { (0, 0) } else { (offset, length) };
            Plan {
                at_ns: i / 4 * 60_000,
                op,
                offset_bytes: offset * unit,
                length_bytes: length * unit,
                flags,
            }
        })
        .collect()
}

#[derive(Debug, Default)]
struct Seen {
    recovered: u64,
    crashes: u64,
}

/// Some lives of one file and disk, most of which end by a loss of power, some of them early.
fn world(seed: u64, seen: &mut Seen) {
    let mut random = Random(seed);
    let platter = Platter::shared(DataMode::Bytes, true);
    let mut memory: Option<Memory> = None;
    let mut told = String::new();
    for life in 0..5 {
        let params = parameters(&mut random);
        told = format!("{told}\nlife {life}: {params}");
        let mut setting = laws::setting(seed);
        setting.run = format!("life {life}");
        let ends_well = random.below(4) == 0;
        let ios = random.pick(&[40, 300, 800, 1500]);
        let ios = 1 + random.below(ios);
        let device = if ends_well { lives(seed) } else { dies_after(ios, mix(seed ^ life)) };
        let mut bed = bed(&params, &setting, device, &platter);
        let is_first = memory.is_none();
        if let Some(memory) = memory.take() {
            bed.after_crash(memory);
        }
        if !is_first {
            // Reads what is left, as far as the power lasts.
            bed.read_all().unwrap();
        }
        bed.run(&plan(&mut random, 250), u64::MAX >> 1).unwrap();
        let events = bed.take_events();
        seen.recovered +=
            events.iter().filter(|event| event.kind == "cache_recovered").count() as u64;
        if ends_well {
            bed.close().unwrap();
            assert!(bed.rows.iter().all(|row| row.status == OK), "seed {seed}{told}");
        } else {
            told = format!("{told} dies after {ios}");
            seen.crashes += 1;
        }
        assert_eq!(bed.wrong, None, "seed {seed}{told}");
        memory = Some(bed.into_memory());
        // Where the device outlived the run, the power goes now: what nobody flushed may be lost,
        // and what the next life reads of it is there to stay.
        platter::lock(&platter).crash(mix(seed ^ life), true);
    }
}

fn worlds(seeds: std::ops::Range<u64>) {
    let mut seen = Seen::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        world(seed, &mut seen);
    }
    assert!(seen.crashes > count * 3 && seen.recovered > count / 3, "{seen:?}");
}

#[test]
fn whatever_was_flushed_outlives_crash_after_crash() {
    worlds(0..80);
}

#[test]
#[ignore = "takes minutes: run by `make test-all`"]
fn whatever_was_flushed_outlives_very_many_crashes() {
    worlds(1000..21_000);
}

#[test]
fn every_write_policy_keeps_every_law_on_a_file() {
    for (write_policy, eviction) in [("through", "lru"), ("back", "arc"), ("around", "s3-fifo")] {
        let params = json!({
            "capacity": "64KiB", "file": "cache", "eviction": eviction,
            "write_policy": write_policy,
        });
        let build = || Ok((find("cache").unwrap().build)(&params, &laws::setting(3)).unwrap());
        for finding in laws::certify(&build, 3, None, None) {
            assert_ne!(finding.outcome, Outcome::Broken, "{params}: {finding:?}");
        }
    }
}

/// A write-back cache whose host dies with dirty, flushed data in the file.
fn left_dirty() -> (SharedPlatter, Value, Memory) {
    let platter = Platter::shared(DataMode::Bytes, true);
    let params = json!({
        "capacity": "64KiB", "file": "cache", "write_policy": "back", "destage_after": "1h",
    });
    let mut bed = bed(&params, &laws::setting(1), lives(1), &platter);
    assert_eq!(bed.one(Op::Write, 0, 16_384).unwrap(), OK);
    assert_eq!(bed.one(Op::Flush, 0, 0).unwrap(), OK);
    let memory = bed.into_memory();
    platter::lock(&platter).crash(1, true);
    (platter, params, memory)
}

const FILE: u16 = 1;

fn place(offset_bytes: u64, length_bytes: u64) -> Place {
    Place { disk: FILE, offset_bytes, length_bytes }
}

fn file_of(platter: &SharedPlatter, bytes: u64) -> Vec<u8> {
    let mut image = vec![0; bytes as usize];
    platter::lock(platter).seen().read(place(0, bytes), &mut image);
    image
}

/// What a cache says that does not start; the file and the disk are as before.
fn refuses(platter: &SharedPlatter, params: &Value, setting: &Setting) -> String {
    let before = file_of(platter, 1 << 20);
    let mut bed = bed(params, setting, lives(2), platter);
    assert_eq!(bed.one(Op::Write, 0, 4096).unwrap(), libc::EIO, "not to be written to");
    assert_eq!(bed.one(Op::Read, 0, 4096).unwrap(), libc::EIO, "nor read: it may be stale");
    assert!(file_of(platter, 1 << 20) == before, "it is left alone");
    bed.failure().expect("it says why")
}

#[test]
fn dirty_data_reach_the_disk_whatever_cache_comes_next() {
    for write_policy in ["through", "back", "around"] {
        let (platter, mut params, memory) = left_dirty();
        params["write_policy"] = json!(write_policy);
        params["capacity"] = json!("1MiB");
        if write_policy != "back" {
            params.as_object_mut().unwrap().remove("destage_after");
        }
        let mut bed = bed(&params, &laws::setting(1), lives(2), &platter);
        bed.after_crash(memory);
        bed.read_all().unwrap();
        assert_eq!(bed.wrong, None, "{write_policy}");
        let events = bed.take_events();
        assert_eq!(events[0].kind, "cache_recovered");
        assert_eq!(events[0].detail, "{\"blocks\":4,\"bytes\":16384}");
        // And is on the disk itself, durably.
        drop(bed);
        platter::lock(&platter).crash(9, true);
        let mut sector = [0; 16];
        let at = Place { disk: 0, offset_bytes: 0, length_bytes: 16 };
        platter::lock(&platter).seen().read(at, &mut sector);
        assert_eq!(sector[0], 1, "the token of the first write");
    }
}

#[test]
fn a_file_of_another_target_is_refused_while_it_holds_what_that_lacks() {
    let (platter, params, _) = left_dirty();
    let mut other = laws::setting(1);
    other.disk_ids = vec![77];
    let why = refuses(&platter, &params, &other);
    assert!(why.contains("it holds 4 blocks that another target lacks"), "{why}");
    let mut smaller = laws::setting(1);
    smaller.disk_bytes = vec![DISK_BYTES / 2];
    let why = refuses(&platter, &params, &smaller);
    assert!(why.contains("4 blocks that a larger target lacks"), "{why}");
    let mut later = laws::setting(1);
    (later.disk_ids, later.disk_writers) = (vec![5], vec![8]);
    let why = refuses(&platter, &params, &later);
    assert!(why.contains("another target"), "{why}");
    // Once its own target has them, anybody may have the file.
    let mut bed = bed(&params, &laws::setting(1), lives(3), &platter);
    bed.close().unwrap();
    drop(bed);
    let mut bed = super::crashes::bed(&params, &other, lives(4), &platter);
    assert_eq!(bed.one(Op::Write, 0, 4096).unwrap(), OK);
    assert_eq!(bed.failure(), None);
}

#[test]
fn a_target_that_another_run_wrote_to_is_newer_than_the_file() {
    let written_by = |writer: u64, before: u64| {
        let mut setting = laws::setting(1);
        (setting.disk_ids, setting.disk_writers) = (vec![5], vec![before]);
        setting.writer = writer;
        setting
    };
    // As its own run left it, as it was when that was cut short before it signed the target, and
    // after another.
    for before in [7, 6, 8] {
        let platter = Platter::shared(DataMode::Bytes, true);
        let params = json!({
            "capacity": "64KiB", "file": "cache", "write_policy": "back", "destage_after": "1h",
        });
        let mut first = bed(&params, &written_by(7, 6), lives(1), &platter);
        assert_eq!(first.one(Op::Write, 0, 4096).unwrap(), OK);
        assert_eq!(first.one(Op::Flush, 0, 0).unwrap(), OK);
        drop(first);
        platter::lock(&platter).crash(1, true);
        if before == 8 {
            let why = refuses(&platter, &params, &written_by(9, before));
            assert!(why.contains("its target lacked before another run wrote there"), "{why}");
        } else {
            let mut next = bed(&params, &written_by(9, before), lives(2), &platter);
            assert_eq!(next.one(Op::Read, 0, 4096).unwrap(), OK);
            assert_eq!(next.take_events().len(), 1);
        }
    }
}

#[test]
fn a_file_that_is_not_understood_is_refused_and_left_alone() {
    type Change<'a> = &'a dyn Fn(&mut [u8]);
    let header = |platter: &SharedPlatter, change: &dyn Fn(&mut [u8])| {
        let mut sector = file_of(platter, SECTOR as u64);
        change(&mut sector);
        platter::lock(platter).put(place(0, SECTOR as u64), &sector);
    };
    let cases: [(Change<'_>, &str); 3] = [
        (&|sector| sector[0] = b'x', "expected a cache file or a new name, found something else"),
        (&|sector| sector[8] = 9, "expected version 1 of its layout, found 9"),
        (&|sector| sector[33] ^= 1, "its header is damaged"),
    ];
    for (change, words) in cases {
        let (platter, params, _) = left_dirty();
        header(&platter, change);
        let why = refuses(&platter, &params, &laws::setting(1));
        assert!(why.contains(words), "{why}");
    }
    // A damaged sector of the map may have named anything.
    let (platter, params, _) = left_dirty();
    platter::lock(&platter).put(place(4096 + 100, 4), b"torn");
    let why = refuses(&platter, &params, &laws::setting(1));
    let words = "1 sectors of its map are damaged, which may have named 31 blocks that the disk \
                 lacks, beside 0 that can be read; remove the file if they may go";
    assert!(why.contains(words), "{why}");
}

#[test]
fn a_file_that_was_never_finished_starts_empty() {
    // A cache through has no map: whatever lies there means nothing, and nothing of it is read.
    let (platter, params, _) = left_dirty();
    let mut sector = vec![0; SECTOR];
    let header = Header {
        run: 5,
        block: 4096,
        frames: 100,
        target: 0,
        target_bytes: 0,
        writer: 0,
        writer_before: 0,
        has_map: false,
    };
    header.encode(&mut sector);
    platter::lock(&platter).put(place(0, SECTOR as u64), &sector);
    for _ in 0..2 {
        let mut bed = bed(&params, &laws::setting(1), lives(3), &platter);
        assert_eq!(bed.one(Op::Write, 4096, 4096).unwrap(), OK);
        bed.close().unwrap();
        assert!(bed.take_events().is_empty());
        drop(bed);
        platter::lock(&platter).put(place(0, SECTOR as u64), &[0; SECTOR]);
    }
}
