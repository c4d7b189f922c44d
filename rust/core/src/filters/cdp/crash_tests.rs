//! Crash anything, any time: whatever breaks, recovery offers states that existed, and no point
//! is lost that the source was told of.
//!
//! The real filter runs over a device with random latencies; its link and site break at random. A
//! witness above it keeps a digest of the state after every acknowledged write. At every event of
//! small traces, and at random places of larger ones, all is looked at as if source, link and
//! site had crashed just then: what recovery would offer is what the site has on stable storage.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::super::testing::{Random, Rig, setting};
use super::super::{Answer, Cx, DataMode, Filter, Properties, Up};
use super::{Cdp, settings};
use crate::cdp::entry::Change;
use crate::cdp::faults::Fault;
use crate::cdp::frame::Frame;
use crate::cdp::link::{Ack, Link, LinkEvent};
use crate::cdp::model::Model;
use crate::cdp::source::{Config, Initial};
use crate::cdp::vault::{Memory, State};
use crate::clock::Ns;
use crate::io::{OK, Op};
use crate::slab::IoId;

const DISK_BYTES: u64 = 4 << 20;
const MILLISECOND: Ns = 1_000_000;

/// A model that the test can look into while the filter uses it.
#[derive(Clone)]
struct Seen(Arc<Mutex<Model<Memory>>>);

impl Seen {
    fn with<T>(&self, look: impl FnOnce(&mut Model<Memory>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Link for Seen {
    fn connect(&mut self, now: Ns) {
        self.with(|model| model.connect(now));
    }
    fn reset(&mut self, now: Ns, why: &str) {
        self.with(|model| model.reset(now, why));
    }
    fn send(&mut self, now: Ns, frame: Frame) {
        self.with(|model| model.send(now, frame));
    }
    fn wants(&self, now: Ns) -> bool {
        self.with(|model| model.wants(now))
    }
    fn poll(&mut self, now: Ns, out: &mut Vec<LinkEvent>) {
        self.with(|model| model.poll(now, out));
    }
    fn next_event_ns(&self) -> Option<Ns> {
        self.with(|model| model.next_event_ns())
    }
    fn take_ack(&mut self, before_ns: Ns) -> Option<Ack> {
        self.with(|model| model.take_ack(before_ns))
    }
    fn next_news_ns(&self) -> Option<Ns> {
        self.with(|model| model.next_news_ns())
    }
    fn wants_at_ns(&self) -> Option<Ns> {
        self.with(|model| model.wants_at_ns())
    }
}

#[derive(Default)]
struct Told {
    state: State,
    /// Digest after the last acknowledgement at each time, and those before at the same time.
    at: VecDeque<(Ns, u64)>,
}

/// Keeps the state of all writes acknowledged to the guest.
struct Witness(Arc<Mutex<Told>>);

impl Filter for Witness {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        Answer::Pass
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        let it = cx.io(io);
        let change = match it.op {
            Op::Write => Change::Write,
            Op::WriteZeroes | Op::Discard => Change::Zero,
            Op::Read | Op::Flush => return Up::Pass,
        };
        if it.status == OK {
            let mut told = self.0.lock().unwrap();
            let data = if change == Change::Write { cx.data(io) } else { &[] };
            let range = (it.offset_bytes, it.length_bytes);
            told.state.apply(change, it.disk, range, data, |_, _, _| {});
            let digest = told.state.digest();
            told.at.push_back((cx.now(), digest));
        }
        Up::Pass
    }
}

/// What the looks hit.
#[derive(Debug, Default)]
struct Hits {
    looks: u64,
    in_flight: u64,
    link_fault: u64,
    resync: u64,
    points: u64,
}

fn parameters(random: &mut Random) -> Value {
    let mode = *random.pick(&["async", "async", "semi-sync", "sync"]);
    let spill = *random.pick(&["0B", "1MiB", "20MiB"]);
    json!({
        "rpo": "1s",
        "point_interval": format!("{}ms", 5 + random.below(60)),
        "mode": mode,
        "degrade": random.pick(&["bitmap", "bitmap", "spill-backpressure-bitmap", "lag"]),
        "journal": {"memory": format!("{}KiB", 200 + random.below(8000)), "spill": spill},
        "folding": mode == "async" && random.below(3) == 0,
        "batch": random.pick(&["4KiB", "16KiB", "64KiB"]),
        "bitmap_block": random.pick(&["4KiB", "16KiB"]),
        "backpressure": "20ms",
        "sync_timeout": format!("{}ms", 1 + random.below(30)),
        "drain": "100s",
        "link": {
            "bandwidth": format!("{}MB/s", 20 + random.below(200)),
            "rtt": format!("{}us", random.below(20_000)),
            "timeout": format!("{}ms", 40 + random.below(200)),
            "site_sync": format!("{}us", random.below(2) * random.below(9000)),
        },
    })
}

/// What the disk holds before replication begins: nothing, and the replica knows it; or data, of
/// which the replica holds nothing, some or an older state.
fn initial(random: &mut Random, config: &mut Config, vault: &mut Memory) -> State {
    let mut held = State::default();
    let how = random.below(4);
    if how == 0 {
        return held;
    }
    config.initial = *random.pick(&[Initial::Before, Initial::During]);
    config.disk_bytes = vec![DISK_BYTES];
    config.skips_zeroes = true;
    let mut older = State::default();
    for block in 0..DISK_BYTES / 4096 {
        let (data, same) = (random.below(3) == 0, random.below(8) > 0);
        for sector in block * 8..block * 8 + 8 {
            let token = if data { 1 << 40 | sector } else { 0 };
            held.set(0, sector, token);
            older.set(0, sector, if same { token } else { 1 << 41 | sector });
        }
    }
    if how > 1 {
        vault.adopt(older);
    }
    held
}

fn break_things(random: &mut Random, model: &mut Model<Memory>, until_ns: Ns) {
    let mut at_ns = 0;
    while at_ns < until_ns {
        at_ns += (20 + random.below(500)) * MILLISECOND;
        let lasts = (1 + random.below(250)) * MILLISECOND;
        model.fault(match random.below(6) {
            0 | 1 => Fault::Outage { from_ns: at_ns, to_ns: at_ns + lasts },
            2 => Fault::Reset { at_ns },
            3 => Fault::Restart { at_ns, back_ns: at_ns + lasts },
            4 => Fault::Bandwidth { at_ns, bytes_per_s: (2 + random.below(50)) as f64 * 1e6 },
            _ => Fault::Rtt { at_ns, rtt_ns: random.below(30) * MILLISECOND },
        });
    }
}

/// One world: `ios` random I/Os, `look_every` of them between looks at it (0: every event).
fn live(seed: u64, ios: u64, look_every: u64, hits: &mut Hits) {
    let mut random = Random(seed);
    let params = parameters(&mut random);
    let mut settings = settings::read(&params, &setting(DataMode::Tokens)).unwrap();
    let gap_ns = 20_000 + random.below(400_000);
    settings.config.checksums = random.below(4) > 0;
    let mut vault = Memory::default();
    let held = initial(&mut random, &mut settings.config, &mut vault);
    let mut model = Model::new(settings.line.clone(), vault);
    break_things(&mut random, &mut model, ios * gap_ns);
    let seen = Seen(Arc::new(Mutex::new(model)));
    let told = Arc::new(Mutex::new(Told::default()));
    told.lock().unwrap().at.push_back((0, held.digest()));
    told.lock().unwrap().state = held.clone();
    let properties = Properties { child_bytes: 1 << 20, ..Properties::TRANSPARENT };
    let cdp = Cdp::new(settings, Box::new(seen.clone()));
    let chain: Vec<(Box<dyn Filter>, Properties)> =
        vec![(Box::new(Witness(Arc::clone(&told))), properties), (Box::new(cdp), properties)];
    let mut rig = Rig::of(chain, DataMode::Tokens, DISK_BYTES);
    for (sector, token) in rig.device.lock().unwrap().image.chunks_exact_mut(8).enumerate() {
        token.copy_from_slice(&held.get(0, sector as u64).to_le_bytes());
    }
    rig.reopen();
    let mut kept = BTreeMap::new();
    let (mut done, mut at_ns) = (0, 0);
    while done < ios {
        let some = if look_every == 0 { ios } else { look_every.min(ios - done) };
        for _ in 0..some {
            at_ns += random.below(2 * gap_ns);
            plan(&mut random, &mut rig, at_ns);
        }
        done += some;
        // The spill file's disk is full now and then.
        rig.device.lock().unwrap().own_fails = random.below(4) == 0;
        let context = format!("seed {seed}, {done} I/Os, {params}");
        if look_every == 0 {
            rig.run_and_look(|now| look(&seen, &told, &mut kept, now, hits, &context));
        } else {
            rig.run();
            look(&seen, &told, &mut kept, at_ns, hits, &context);
        }
        for event in rig.take_events() {
            assert_ne!(event.kind, "replication_refused", "{context}: {}", event.detail);
            if event.kind == "restore_point" {
                let detail: Value = serde_json::from_str(&event.detail).unwrap();
                let id = detail["id"].as_u64().unwrap();
                check(&seen, &told, &mut kept, &context);
                assert!(kept.contains_key(&id), "{context}: point {id} is lost");
            }
        }
    }
    rig.close();
    check(&seen, &told, &mut kept, &format!("seed {seed} at the end, {params}"));
    // Once everything is repaired and has arrived, the newest point is the state itself.
    let newest = seen.with(|model| model.replica.vault.points().last().copied()).unwrap();
    let state = told.lock().unwrap().state.digest();
    assert_eq!(newest.digest, state, "seed {seed}: the last point is not the last state: {params}");
}

fn plan(random: &mut Random, rig: &mut Rig, at_ns: Ns) {
    let sectors = DISK_BYTES / 512;
    let length = *random.pick(&[512, 4096, 4096, 8192, 65536]);
    // Half of the I/Os go to a small part: overwrites, and writes into blocks being read again.
    let reach = if random.below(2) == 0 { 256 } else { sectors - 128 };
    let offset = random.below(reach) * 512;
    match random.below(20) {
        0 => rig.io(at_ns, Op::Read, offset, length),
        1 => rig.io(at_ns, Op::WriteZeroes, offset, length),
        2 => rig.io(at_ns, Op::Flush, 0, 0),
        _ => rig.io(at_ns, Op::Write, offset, length),
    };
}

/// What recovery would offer now is what existed.
fn check(seen: &Seen, told: &Mutex<Told>, kept: &mut BTreeMap<u64, Ns>, context: &str) {
    let known = kept.len();
    let fresh = seen.with(|model| model.replica.vault.points()[known..].to_vec());
    let mut told = told.lock().unwrap();
    for point in fresh {
        // Cuts ascend: what was before the last one is not asked for again.
        while told.at.len() > 1 && told.at[1].0 < point.cut_ns {
            told.at.pop_front();
        }
        let same = told.at.iter().take_while(|(at, _)| *at <= point.cut_ns);
        let mut states = same.map(|(_, digest)| *digest);
        assert!(
            states.any(|digest| digest == point.digest),
            "{context}: point {} of {} ns offers a state that never was",
            point.id,
            point.cut_ns
        );
        assert!(kept.insert(point.id, point.cut_ns).is_none(), "{context}: {} twice", point.id);
    }
}

fn look(
    seen: &Seen,
    told: &Mutex<Told>,
    kept: &mut BTreeMap<u64, Ns>,
    now: Ns,
    hits: &mut Hits,
    context: &str,
) {
    seen.with(|model| model.advance(now));
    check(seen, told, kept, context);
    hits.looks += 1;
    hits.points = hits.points.max(kept.len() as u64);
    seen.with(|model| {
        hits.in_flight += u64::from(model.in_flight(now) > 0);
        hits.link_fault += u64::from(model.is_disturbed(now));
        hits.resync += u64::from(model.replica.vault.resyncs());
    });
}

#[test]
fn every_event_of_small_traces() {
    let mut hits = Hits::default();
    for seed in 0..150 {
        live(seed, 120, 0, &mut hits);
    }
    assert!(hits.looks > 20_000, "{hits:?}");
}

fn random_points_of_larger_traces(worlds: u64) {
    let mut hits = Hits::default();
    for seed in 0..worlds {
        live(1_000_000 + seed, 20_000, 200, &mut hits);
    }
    let share = |of: u64| of as f64 / hits.looks as f64;
    let told = format!(
        "{} looks, 200 I/Os apart: {:.1} % with bytes in flight, {:.1} % in a link fault, {:.1} % \
         in a resynchronisation",
        hits.looks,
        share(hits.in_flight) * 100.0,
        share(hits.link_fault) * 100.0,
        share(hits.resync) * 100.0
    );
    std::io::Write::write_all(&mut std::io::stderr(), format!("{told}\n").as_bytes()).unwrap();
    for hit in [hits.in_flight, hits.link_fault, hits.resync] {
        assert!(share(hit) >= 0.1, "{told}");
    }
    assert!(hits.looks >= worlds * 100);
}

#[test]
fn random_points_of_some_larger_traces() {
    random_points_of_larger_traces(20);
}

#[test]
#[ignore = "takes minutes: run by `make test-all`"]
fn a_hundred_thousand_random_points_of_larger_traces() {
    random_points_of_larger_traces(1000);
}
