//! `throttle`: token buckets for I/Os and bytes a second. The page is below.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Built, Class, Cx, Filter, Kind, ParamError, Properties, Setting, params};
use crate::clock::Ns;
use crate::io::Op;
use crate::slab::IoId;
use crate::units::{ByteRate, Positive, Time};

const PAGE: &str = "\
# throttle

Lets at most so many I/Os and so many bytes a second through to the layers below: what a
per-disk limit of a datastore does. I/Os above the limit wait in one queue, in their order.

Two token buckets, one for I/Os and one for bytes; an I/O goes when both allow it. A bucket fills
at its rate up to what `burst` at that rate brings, so a disk that was idle may go faster for a
moment. An I/O goes when its bucket is not overdrawn, and may overdraw it: an I/O larger than the
whole bucket is late, never stuck.

Reads and writes cost one I/O and their bytes; discards and write_zeroes cost one I/O and no
bytes; flushes cost nothing and are never held.

## Parameters
- `iops`: I/Os a second, such as `2000`.
- `bandwidth`: bytes a second, such as `\"64MiB/s\"` or `\"500Mbit/s\"`. At least one of the two.
- `burst`: for how long a disk that was idle may exceed the rate at will, by default `\"100ms\"`:
  a bucket holds what the rate brings in this time, and at least one I/O.

## Example
```toml
[[filter]]
use = \"throttle\"
iops = 2000
bandwidth = \"64MiB/s\"
burst = \"1s\"
```

## Class and properties
Class datastoreIoControl. It defers, and keeps the order of what it holds.

## Laws it declares
Transparent: what is read below is read above. Errors pass up unchanged. No I/O of its own.
Over any stretch of T seconds at most rate * (T + burst) is let through, and one I/O more.

## Unsuitable for
Sharing a limit between disks: each disk has its own buckets. Modelling a slow device: one that is
busy makes all wait, one that is throttled answers the I/O at its own speed (see `delay`).

## Sources
ITU-T I.371, annex A: the generic cell rate algorithm (virtual scheduling), which is a token
bucket that stores one time stamp. Storage I/O Control: vSphere Resource Management, 'Managing
Storage I/O Resources'.
";

pub const KIND: Kind =
    Kind { name: "throttle", class: Some(Class::DatastoreIoControl), page: PAGE, schema, build };

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// I/Os a second.
    iops: Option<Positive>,
    /// Bytes a second.
    bandwidth: Option<ByteRate>,
    /// What the buckets hold, as a time at their rate.
    burst: Option<Time>,
}

const BURST_NS: Ns = 100_000_000;

fn schema() -> Value {
    params::schema_of::<Params>()
}

fn build(table: &Value, _setting: &Setting) -> Built {
    let params: Params = params::parse(table)?;
    let Time(burst_ns) = params.burst.unwrap_or(Time(BURST_NS));
    let bucket = |per_second: f64| Bucket::new(per_second, burst_ns);
    let throttle = Throttle {
        ios: params.iops.map(|Positive(rate)| bucket(rate)),
        bytes: params.bandwidth.map(|ByteRate(rate)| bucket(rate)),
        queue: VecDeque::new(),
    };
    if throttle.ios.is_none() && throttle.bytes.is_none() {
        let message = "expected iops or bandwidth, such as iops = 2000";
        return Err(vec![ParamError::new("", message)]);
    }
    Ok((Box::new(throttle), Properties { may_defer: true, ..Properties::TRANSPARENT }))
}

/// A token bucket, kept as the time at which it will be full again: ahead of now by the tokens
/// that are missing. Times are floats: exact to a nanosecond for over a hundred days.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    ns_per_token: f64,
    burst_ns: f64,
    full_at_ns: f64,
}

impl Bucket {
    fn new(per_second: f64, burst_ns: Ns) -> Self {
        Self { ns_per_token: 1e9 / per_second, burst_ns: burst_ns as f64, full_at_ns: 0.0 }
    }

    /// From when on it is not overdrawn.
    fn ready_at_ns(&self) -> Ns {
        (self.full_at_ns - self.burst_ns).max(0.0).ceil() as Ns
    }

    fn take(&mut self, now: Ns, tokens: f64) {
        self.full_at_ns = self.full_at_ns.max(now as f64) + tokens * self.ns_per_token;
    }
}

struct Throttle {
    ios: Option<Bucket>,
    bytes: Option<Bucket>,
    /// Held, oldest first; a timer is set for the first.
    queue: VecDeque<IoId>,
}

impl Throttle {
    fn ready_at_ns(&self) -> Ns {
        let at = |bucket: &Option<Bucket>| bucket.as_ref().map_or(0, Bucket::ready_at_ns);
        at(&self.ios).max(at(&self.bytes))
    }

    fn take(&mut self, cx: &Cx<'_>, now: Ns, io: IoId) {
        let io = cx.io(io);
        if let Some(ios) = &mut self.ios {
            ios.take(now, 1.0);
        }
        if let Some(bytes) = self.bytes.as_mut().filter(|_| io.op.has_data()) {
            bytes.take(now, io.length_bytes as f64);
        }
    }
}

impl Filter for Throttle {
    fn open(&mut self, slots: usize) {
        self.queue.reserve(slots);
        for bucket in self.ios.iter_mut().chain(&mut self.bytes) {
            bucket.full_at_ns = 0.0;
        }
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if cx.io(io).op == Op::Flush {
            return Answer::Pass;
        }
        let now = cx.now();
        let ready = self.ready_at_ns();
        if self.queue.is_empty() && ready <= now {
            self.take(cx, now, io);
            return Answer::Pass;
        }
        if self.queue.is_empty() {
            cx.timer(ready, 0);
        }
        self.queue.push_back(io);
        Answer::Defer
    }

    fn wants_complete(&self) -> bool {
        false
    }

    fn timer(&mut self, cx: &mut Cx<'_>, _token: u64) {
        let now = cx.now();
        while let Some(&io) = self.queue.front() {
            let ready = self.ready_at_ns();
            if ready > now {
                cx.timer(ready, 0);
                return;
            }
            self.take(cx, now, io);
            self.queue.pop_front();
            cx.resume(io);
        }
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        out.push(("throttled_ios", self.queue.len() as i64));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{Rig, setting};
    use super::super::{DataMode, find};
    use super::*;

    const SECOND: Ns = 1_000_000_000;

    fn rig(params: Value) -> Rig {
        Rig::new(&[("throttle", params)], DataMode::Tokens, 1 << 30)
    }

    #[test]
    fn iops_are_kept_after_the_burst() {
        let mut rig = rig(json!({"iops": 1000, "burst": "10ms"}));
        for i in 0..300 {
            rig.io(0, Op::Read, i * 4096, 4096);
        }
        let rows = rig.run();
        // The burst (10), the I/O that overdraws, then one a millisecond.
        assert!(rows[10].complete_ns < 20_000, "{:?}", rows[10]);
        for (i, row) in (0u64..).zip(&rows).skip(11) {
            let expected = (i - 10) * 1_000_000;
            assert!((expected..expected + 20_000).contains(&row.complete_ns), "{i}: {row:?}");
        }
    }

    #[test]
    fn bytes_are_kept_whatever_the_sizes() {
        let mut rig = rig(json!({"bandwidth": "1MiB/s", "burst": "0s"}));
        // Larger than any bucket: late, not stuck.
        for i in 0..8 {
            rig.io(0, Op::Write, i << 20, if i % 2 == 0 { 1 << 18 } else { 1 << 19 });
        }
        let rows = rig.run();
        let bytes_before_last = 4 * (1u64 << 18) + 3 * (1 << 19);
        let expected = (bytes_before_last as f64 / (1 << 20) as f64 * 1e9) as Ns;
        assert!((expected..expected + 20_000).contains(&rows[7].complete_ns), "{:?}", rows[7]);
    }

    #[test]
    fn an_idle_disk_saves_up_no_more_than_the_burst() {
        let mut rig = rig(json!({"iops": 1000}));
        for i in 0..500 {
            rig.io(100 * SECOND, Op::Read, i * 4096, 4096);
        }
        let rows = rig.run();
        let at_once = rows.iter().filter(|row| row.response_ns() < 20_000).count();
        assert_eq!(at_once, 101);
    }

    #[test]
    fn flushes_are_never_held_and_zeroes_cost_no_bytes() {
        let mut rig = rig(json!({"bandwidth": "4kB/s", "burst": "0s"}));
        rig.io(0, Op::Write, 0, 4096).io(0, Op::Write, 4096, 4096).io(0, Op::Flush, 0, 0);
        rig.io(0, Op::WriteZeroes, 8192, 1 << 20);
        let rows = rig.run();
        assert!(rows[2].response_ns() < 20_000, "{:?}", rows[2]);
        assert!((SECOND..2 * SECOND).contains(&rows[1].response_ns()), "{:?}", rows[1]);
        assert!(rows[3].response_ns() > 2 * SECOND, "behind the write: {:?}", rows[3]);
        assert!(rows[3].response_ns() < 2 * SECOND + 100_000_000, "no bytes: {:?}", rows[3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// The law of the page, over every stretch between two I/Os.
        #[test]
        fn no_stretch_exceeds_the_rate(
            gaps in proptest::collection::vec(0u64..3_000_000, 2..120),
            iops in 200u32..5000,
            burst_ms in 0u64..30,
        ) {
            let mut rig = rig(json!({"iops": iops, "burst": format!("{burst_ms}ms")}));
            let mut at = 0;
            for (i, gap) in (0..).zip(&gaps) {
                at += gap;
                rig.io(at, Op::Flush, 0, 0).io(at, Op::Read, i * 4096, 4096);
            }
            let mut through: Vec<Ns> = rig
                .run()
                .iter()
                .filter(|row| row.op == Op::Read)
                .map(|row| row.complete_ns)
                .collect();
            through.sort_unstable();
            // The device adds at most 10 us, which may push two I/Os together.
            for (i, from) in through.iter().enumerate() {
                for (n, to) in (1..).zip(&through[i..]) {
                    let stretch = (to - from + 10_000) as f64 / 1e9 + burst_ms as f64 / 1e3;
                    prop_assert!(f64::from(n) <= f64::from(iops) * stretch + 2.0);
                }
            }
        }
    }

    #[test]
    fn wrong_parameters_are_all_named() {
        let errors = |params: Value| -> Vec<(String, String)> {
            let built = (find("throttle").unwrap().build)(&params, &setting(DataMode::Nothing));
            built.err().unwrap().into_iter().map(|e| (e.path, e.message)).collect()
        };
        let got = errors(json!({"iops": 0, "bandwidth": "fast", "burst": "1x"}));
        let paths: Vec<&str> = got.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["bandwidth", "burst", "iops"]);
        let got = errors(json!({"burst": "1s"}));
        assert_eq!(got[0].1, "expected iops or bandwidth, such as iops = 2000");
    }
}
