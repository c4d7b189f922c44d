//! `delay`: holds I/Os for a time, fixed or drawn. The page is below.

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Built, Cx, Filter, Kind, ParamError, Properties, Setting, params};
use crate::clock::Ns;
use crate::io::Op;
use crate::slab::IoId;
use crate::units::{Positive, Time};

const PAGE: &str = "\
# delay

Holds each I/O for a time before the layers below see it: a stand-in for a filter, a network hop
or a slower device whose latency is known but which cannot be had.

`write` also holds write_zeroes and discards. Flushes are never held. Other I/Os keep flowing, in
any number: the delay is latency, not a queue (see `throttle` for that).

## Parameters
- `read`, `write`: a time, or a distribution of times. At least one of them.

| distribution | keys | the time drawn |
|---|---|---|
| a time | | always that time |
| `uniform` | `min`, `max` | evenly between them |
| `normal` | `mean`, `sd` | Gaussian; what falls below zero is zero |
| `exponential` | `mean` | memoryless |
| `lognormal` | `median`, `sigma` | median times e to the power of a Gaussian of deviation `sigma` |

- `spin` (true or false, default false): on the wall clock, keep the worker busy meanwhile, as a
  filter does that computes. The time is then exact, takes CPU, and other I/Os of the worker wait:
  one worker spins for one I/O at a time, so that at `20us` it passes 50,000 I/Os a second at most,
  however many are in flight, and the device meanwhile has fewer to work on.

Times are drawn in order of submission from the run's seed: a run in virtual time repeats exactly.

## Example
```toml
[[filter]]
use = \"delay\"
read = \"100us\"
write = { distribution = \"lognormal\", median = \"200us\", sigma = 0.5 }
```

## Class and properties
No class; may be repeated. It defers, and it reorders I/Os that do not overlap when times differ.

## Laws it declares
Transparent: what is read below is read above. Errors pass up unchanged. No I/O of its own.

## Unsuitable for
Modelling a device's limits: a delay holds a million I/Os as long as it holds one. On the wall
clock times come out longer, never shorter, unless they are spun: by the driver's timer resolution
(a few us), and with several I/Os in flight by what the worker is at when one is due, such as
handing others to the kernel. That is booked to `delay` as well.

## Sources
G. E. P. Box, M. E. Muller, 'A Note on the Generation of Random Normal Deviates', 1958 (the
Gaussian); inversion for the exponential (Knuth, TAOCP vol. 2, 3.4.1). See also `throttle`.
";

pub const KIND: Kind = Kind { name: "delay", class: None, page: PAGE, schema, build };

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How long reads are held.
    read: Option<Held>,
    /// How long writes, write_zeroes and discards are held.
    write: Option<Held>,
    /// Keep the worker busy meanwhile.
    #[serde(default)]
    spin: bool,
}

/// A time, or a table that names a distribution.
#[derive(Debug, JsonSchema)]
#[serde(untagged)]
enum Held {
    Fixed(Time),
    Drawn(Drawn),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Drawn {
    distribution: Shape,
    min: Option<Time>,
    max: Option<Time>,
    mean: Option<Time>,
    sd: Option<Time>,
    median: Option<Time>,
    sigma: Option<Positive>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Shape {
    Uniform,
    Normal,
    Exponential,
    Lognormal,
}

impl<'de> Deserialize<'de> for Held {
    // By hand: serde's untagged enums lose the path of the key that is wrong.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeldVisitor;
        impl<'de> Visitor<'de> for HeldVisitor {
            type Value = Held;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Held, E> {
                let wrong = || E::custom(format!("expected {EXPECTED}, got \"{text}\""));
                Time::parse(text).map(Held::Fixed).ok_or_else(wrong)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Held, A::Error> {
                Drawn::deserialize(MapAccessDeserializer::new(map)).map(Held::Drawn)
            }
        }
        deserializer.deserialize_any(HeldVisitor)
    }
}

const EXPECTED: &str = "a time such as \"100us\" or a table such as \
     { distribution = \"exponential\", mean = \"1ms\" }";

fn schema() -> Value {
    params::schema_of::<Params>()
}

fn build(table: &Value, setting: &Setting) -> Built {
    let (params, mut errors) = params::parse_known::<Params>(table)?;
    let mut law = |key, held: Option<Held>| held.and_then(|h| Law::new(key, &h, &mut errors));
    let (read, write) = (law("read", params.read), law("write", params.write));
    if errors.is_empty() && read.is_none() && write.is_none() {
        errors.push(ParamError::new("", "expected read or write, such as read = \"100us\""));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let seed = setting.seed ^ u64::from(setting.disk_index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let delay = Delay { read, write, spin: params.spin, seed, random: Random(seed) };
    Ok((Box::new(delay), Properties { may_defer: true, reorders: true, ..Properties::TRANSPARENT }))
}

/// A distribution of times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Law {
    Fixed(f64),
    Uniform { min: f64, span: f64 },
    Normal { mean: f64, sd: f64 },
    Exponential { mean: f64 },
    Lognormal { median: f64, sigma: f64 },
}

impl Law {
    fn new(key: &str, held: &Held, errors: &mut Vec<ParamError>) -> Option<Self> {
        let drawn = match held {
            Held::Fixed(Time(ns)) => return Some(Self::Fixed(*ns as f64)),
            Held::Drawn(drawn) => drawn,
        };
        let before = errors.len();
        let shape = json!(drawn.distribution).as_str().unwrap_or_default().to_owned();
        let needs: &[&str] = match drawn.distribution {
            Shape::Uniform => &["min", "max"],
            Shape::Normal => &["mean", "sd"],
            Shape::Exponential => &["mean"],
            Shape::Lognormal => &["median", "sigma"],
        };
        let time = |time: Option<Time>| time.map(|Time(ns)| ns as f64);
        let given = [
            ("min", time(drawn.min)),
            ("max", time(drawn.max)),
            ("mean", time(drawn.mean)),
            ("sd", time(drawn.sd)),
            ("median", time(drawn.median)),
            ("sigma", drawn.sigma.map(|Positive(sigma)| sigma)),
        ];
        for (name, value) in given {
            let wanted = needs.contains(&name);
            if wanted != value.is_some() {
                let word = if wanted { "missing: " } else { "unknown key: " };
                let message = format!("{word}{shape} takes {}", needs.join(" and "));
                errors.push(ParamError::new(format!("{key}.{name}"), message));
            }
        }
        let [min, max, mean, sd, median, sigma] = given.map(|(_, value)| value.unwrap_or(0.0));
        if min > max {
            let message = "expected a time of at least min".to_owned();
            errors.push(ParamError::new(format!("{key}.max"), message));
        }
        (errors.len() == before).then_some(match drawn.distribution {
            Shape::Uniform => Self::Uniform { min, span: max - min },
            Shape::Normal => Self::Normal { mean, sd },
            Shape::Exponential => Self::Exponential { mean },
            Shape::Lognormal => Self::Lognormal { median, sigma },
        })
    }

    fn draw(self, random: &mut Random) -> Ns {
        let ns = match self {
            Self::Fixed(ns) => ns,
            Self::Uniform { min, span } => min + span * random.uniform(),
            Self::Normal { mean, sd } => mean + sd * random.gaussian(),
            Self::Exponential { mean } => -mean * random.uniform().ln(),
            Self::Lognormal { median, sigma } => median * (sigma * random.gaussian()).exp(),
        };
        // A float beyond the range saturates, below zero at zero.
        ns.round() as Ns
    }
}

/// splitmix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone, Copy)]
struct Random(u64);

impl Random {
    /// In (0, 1]: its logarithm is finite.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Box and Muller's, the cosine half.
    fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

struct Delay {
    read: Option<Law>,
    write: Option<Law>,
    spin: bool,
    seed: u64,
    random: Random,
}

impl Filter for Delay {
    fn open(&mut self, _slots: usize) {
        self.random = Random(self.seed);
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let law = match cx.io(io).op {
            Op::Read => self.read,
            Op::Write | Op::WriteZeroes | Op::Discard => self.write,
            Op::Flush => None,
        };
        let held_ns = law.map_or(0, |law| law.draw(&mut self.random));
        if held_ns == 0 {
            return Answer::Pass;
        }
        let until_ns = cx.now() + held_ns;
        if self.spin && cx.spin_until(until_ns) {
            return Answer::Pass;
        }
        cx.timer(until_ns, u64::from(io));
        Answer::Defer
    }

    fn wants_complete(&self) -> bool {
        false
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        cx.resume(token as IoId);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rig, setting};
    use super::super::{DataMode, find};
    use super::*;

    fn rig(params: Value) -> Rig {
        Rig::new(&[("delay", params)], DataMode::Tokens, 1 << 30)
    }

    #[test]
    fn a_fixed_time_is_added_to_what_it_names() {
        let mut direct = Rig::new(&[], DataMode::Tokens, 1 << 30);
        let mut held = rig(json!({"read": "100us", "write": "1ms"}));
        let ops = [Op::Write, Op::Read, Op::WriteZeroes, Op::Discard, Op::Flush, Op::Read];
        let added = [1_000_000, 100_000, 1_000_000, 1_000_000, 0, 100_000];
        for (op, added) in ops.into_iter().zip(added) {
            let length = if op == Op::Flush { 0 } else { 4096 };
            let (a, b) = (direct.one(op, 8192, length), held.one(op, 8192, length));
            assert_eq!(b.response_ns(), a.response_ns() + added, "{op:?}");
        }
    }

    #[test]
    fn in_virtual_time_a_spun_delay_is_a_delay() {
        let mut held = rig(json!({"read": "100us"}));
        let mut spun = rig(json!({"read": "100us", "spin": true}));
        let (a, b) = (held.one(Op::Read, 8192, 4096), spun.one(Op::Read, 8192, 4096));
        assert_eq!(a.response_ns(), b.response_ns());
    }

    #[test]
    fn it_is_no_queue() {
        let mut rig = rig(json!({"read": "5ms"}));
        for i in 0..200 {
            rig.io(0, Op::Read, i * 4096, 4096);
        }
        let rows = rig.run();
        assert!(rows.iter().all(|r| (5_000_000..5_020_000).contains(&r.response_ns())));
    }

    /// Mean, and the share below a known quantile, of many draws.
    #[test]
    fn distributions_are_what_they_say() {
        let cases = [
            (
                json!({"distribution": "uniform", "min": "100us", "max": "300us"}),
                200e3,
                150e3,
                0.25,
            ),
            (json!({"distribution": "normal", "mean": "1ms", "sd": "100us"}), 1e6, 1.1e6, 0.8413),
            (json!({"distribution": "exponential", "mean": "1ms"}), 1e6, 1e6, 0.6321),
            // The mean of a lognormal is median * exp(sigma^2 / 2).
            (
                json!({"distribution": "lognormal", "median": "1ms", "sigma": 0.5}),
                1.1331e6,
                1e6,
                0.5,
            ),
        ];
        for (table, mean, at, below) in cases {
            let held: Held = serde_json::from_value(table.clone()).unwrap();
            let law = Law::new("read", &held, &mut Vec::new()).unwrap();
            let mut random = Random(3);
            let n = 200_000;
            let draws: Vec<f64> = (0..n).map(|_| law.draw(&mut random) as f64).collect();
            let got = draws.iter().sum::<f64>() / f64::from(n);
            assert!((got / mean - 1.0).abs() < 0.01, "{table}: mean {got}");
            let share = draws.iter().filter(|d| **d < at).count() as f64 / f64::from(n);
            assert!((share - below).abs() < 0.005, "{table}: {share} below {at}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_times() {
        let run = || {
            let mut rig = rig(json!({"read": {"distribution": "exponential", "mean": "1ms"}}));
            for i in 0..50 {
                rig.io(i * 1000, Op::Read, i * 4096, 4096);
            }
            rig.run()
        };
        assert_eq!(run(), run());
        assert!(run()[0].response_ns() != run()[1].response_ns());
    }

    #[test]
    fn overlapping_ios_keep_their_order() {
        let mut rig = rig(json!({
            "read": {"distribution": "uniform", "min": "0s", "max": "1ms"},
            "write": {"distribution": "uniform", "min": "0s", "max": "1ms"}
        }));
        // Every read is checked against the write before it; the delays alone would mix them.
        for i in 0..400u64 {
            rig.io(i * 50, if i % 3 == 0 { Op::Write } else { Op::Read }, i % 4 * 512, 2048);
        }
        assert_eq!(rig.run().len(), 400);
    }

    #[test]
    fn wrong_parameters_are_all_named() {
        let errors = |params: Value| -> Vec<(String, String)> {
            let built = (find("delay").unwrap().build)(&params, &setting(DataMode::Nothing));
            built.err().unwrap().into_iter().map(|e| (e.path, e.message)).collect()
        };
        let got = errors(json!({"read": "fast", "write": {"distribution": "normal", "mean": 3}}));
        assert_eq!(got[0].0, "read");
        assert!(got[0].1.starts_with("expected a time such as \"100us\" or a table"), "{got:?}");
        assert_eq!(got[1].0, "write.mean");
        let got = errors(json!({"write": {"distribution": "normal", "mean": "1s", "max": "2s"}}));
        assert_eq!(
            got,
            [
                ("write.max".into(), "unknown key: normal takes mean and sd".into()),
                ("write.sd".into(), "missing: normal takes mean and sd".into()),
            ]
        );
        assert_eq!(errors(json!({}))[0].1, "expected read or write, such as read = \"100us\"");
        let got = errors(json!({"read": {"distribution": "uniform", "min": "2s", "max": "1s"}}));
        assert_eq!(got[0].0, "read.max");
        assert_eq!(errors(json!({"flush": "1s"}))[0].0, "flush");
        let got = errors(json!({"flush": "1s", "read": {"distribution": "normal", "mean": "1s"}}));
        assert_eq!(got.len(), 2, "{got:?}");
    }
}
