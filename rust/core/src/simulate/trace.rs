//! A trace as requests, and the questions that can be asked of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};

use super::cache::{Cache, CacheReport, WritePolicy, next_requests};
use super::contents::{ContentCache, ContentReport, ContentWalk};
use super::requests::{Builder, Chunk, Rules, Totals};
use super::sample::Sampler;
use super::shards::Shards;
use super::stack::Curve;
use super::work::{Consumer, Progress, hand_out, threads};
use super::working_set::WorkingSet;
use crate::error::{Error, Result};
use crate::eviction::belady::Belady;
use crate::eviction::{self, CAPACITY_MAX, Eviction, Index, OFFLINE};
use crate::trace::TraceBatch;

/// Gives a trace's batches, from the first.
pub type Batches = Box<dyn FnMut() -> Result<Option<TraceBatch>>>;

/// Requests handed out at once when the trace is not kept.
const ROUND_CHUNKS: usize = 64;

/// How a trace is simulated.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// A power of two from 512 bytes to 1 GiB.
    pub block_bytes: u64,
    /// One cache for all disks; else one for each.
    pub is_shared: bool,
    pub write_policy: WritePolicy,
    pub warmup_ios: u64,
    pub warmup_ns: i64,
    /// Width of a bucket of the series.
    pub bucket_ns: i64,
    /// Requests are kept in memory up to this; beyond, the trace is read again.
    pub keep_bytes: usize,
    /// 0: as many as there are processors.
    pub threads: usize,
}

/// The requests of one disk, or of all together.
#[derive(Debug, Clone, Serialize)]
pub struct StreamSummary {
    pub unique_blocks: usize,
    #[serde(flatten)]
    pub totals: Totals,
}

/// What the first pass found.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub ios: u64,
    pub duration_ns: i64,
    pub is_kept: bool,
    pub streams: Vec<StreamSummary>,
}

/// A cache to simulate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub policy: String,
    pub stream: usize,
    /// Blocks.
    pub capacity: usize,
}

/// LRU at every size, and samples of it, at the sizes asked for.
#[derive(Debug, Clone, Serialize)]
pub struct LruCurve {
    /// Hits of all requests and of reads.
    pub exact: Vec<[u64; 2]>,
    /// A row a salt: hits per request.
    pub fixed_rate: Vec<Vec<f64>>,
    pub fixed_size: Vec<Vec<f64>>,
    /// Share of the blocks that each salt's samples of fixed size ended with, by requests.
    pub fixed_size_rates: Vec<f64>,
    /// By bucket: distinct blocks, and those new.
    pub working_set: Vec<(u64, u64)>,
}

/// How LRU's curve is sampled.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardsPlan {
    pub salts: Vec<u64>,
    pub rate: f64,
    pub blocks: usize,
}

/// A trace that was read once.
pub struct SimulatedTrace {
    setting: Setting,
    open: Box<dyn FnMut() -> Result<Batches> + Send + Sync>,
    /// All requests, if they were few enough.
    kept: Option<Vec<Arc<Chunk>>>,
    /// By stream: the marks of its blocks.
    marks: Vec<Arc<Vec<u32>>>,
    pub summary: Summary,
}

impl SimulatedTrace {
    /// Reads the trace. `progress` is told the I/Os read.
    ///
    /// # Errors
    /// `Input`: a block size that is no power of two, a damaged trace.
    pub fn read(
        setting: Setting,
        mut open: Box<dyn FnMut() -> Result<Batches> + Send + Sync>,
        progress: Progress<'_>,
    ) -> Result<Self> {
        let block_bytes = setting.block_bytes;
        if !block_bytes.is_power_of_two() || !(512..=1 << 30).contains(&block_bytes) {
            return Err(Error::input(format!(
                "block: expected a power of two from 512 bytes to 1 GiB, got {block_bytes} bytes"
            )));
        }
        let mut kept = Some(Vec::new());
        let mut bytes = 0;
        let mut batches = open()?;
        let builder = each_chunk(&mut batches, setting.rules(), progress, &mut |chunk| {
            bytes += chunk.memory_bytes();
            if bytes > setting.keep_bytes {
                kept = None;
            } else if let Some(kept) = &mut kept {
                kept.push(chunk);
            }
            Ok(())
        })?;
        let of = |(unique_blocks, totals)| StreamSummary { unique_blocks, totals };
        let summary = Summary {
            ios: builder.rows(),
            duration_ns: builder.duration_ns(),
            is_kept: kept.is_some(),
            streams: builder.streams().into_iter().map(of).collect(),
        };
        Ok(Self { setting, open, kept, marks: builder.into_marks(), summary })
    }

    /// What caches hit, in the order of `jobs`. `progress` is told the requests done, over all.
    ///
    /// # Errors
    /// `Input`: no such policy, a capacity out of range, or Belady's and the trace is not kept.
    pub fn simulate(
        &mut self,
        jobs: &[Job],
        seed: u64,
        progress: Progress<'_>,
    ) -> Result<Vec<CacheReport>> {
        let setting = self.setting;
        let mut futures = Futures::default();
        let mut caches = Vec::with_capacity(jobs.len());
        for job in jobs {
            let blocks = self.summary.streams.get(job.stream).map_or(0, |s| s.unique_blocks);
            let next = futures.of(job, self.kept.as_deref(), blocks)?;
            let marks = self.marks.get(job.stream).cloned().unwrap_or_default();
            caches.push(build(job, next, marks, seed, &setting)?);
        }
        self.run(&mut caches, progress)?;
        let end_ns = self.summary.duration_ns;
        Ok(caches.into_iter().map(|cache| cache.finish(end_ns)).collect())
    }

    /// LRU's hits for caches of these numbers of blocks (each stream has one), in order.
    ///
    /// # Errors
    /// What `progress` answers; a trace that cannot be read again.
    pub fn lru_curve(
        &mut self,
        capacities: &[u64],
        plan: &ShardsPlan,
        progress: Progress<'_>,
    ) -> Result<LruCurve> {
        let streams = self.summary.streams.len();
        // The longest first: what is begun last should be short.
        let mut lines: Vec<Line> = (0..streams).map(|at| Line::Exact(Curve::new(at))).collect();
        lines.push(Line::WorkingSet(WorkingSet::default()));
        // A sample of one disk says nothing of the next: each has one of its own.
        let all = 1.0 - f64::EPSILON;
        for (row, &salt) in plan.salts.iter().enumerate() {
            for at in 0..streams {
                lines.push(Line::FixedSize(row, Shards::new(at, salt, all, Some(plan.blocks))));
                lines.push(Line::FixedRate(row, Shards::new(at, salt, plan.rate, None)));
            }
        }
        self.run(&mut lines, progress)?;
        let rows = || vec![vec![0.0; capacities.len()]; plan.salts.len()];
        let mut curve = LruCurve {
            exact: vec![[0; 2]; capacities.len()],
            fixed_rate: rows(),
            fixed_size: rows(),
            fixed_size_rates: vec![0.0; plan.salts.len()],
            working_set: Vec::new(),
        };
        let requests: u64 = self.summary.streams.iter().map(|of| of.totals.requests).sum();
        let weight = |shards: &Shards| shards.requests() as f64 / requests.max(1) as f64;
        for line in lines {
            match line {
                Line::Exact(exact) => {
                    for (sum, hits) in curve.exact.iter_mut().zip(exact.hits(capacities)) {
                        *sum = [sum[0] + hits[0], sum[1] + hits[1]];
                    }
                }
                Line::FixedRate(row, shards) => {
                    add(
                        &mut curve.fixed_rate[row],
                        &shards.hit_ratios(capacities),
                        weight(&shards),
                    );
                }
                Line::FixedSize(row, shards) => {
                    let share = weight(&shards);
                    curve.fixed_size_rates[row] += share * shards.rate();
                    add(&mut curve.fixed_size[row], &shards.hit_ratios(capacities), share);
                }
                Line::WorkingSet(set) => curve.working_set = set.buckets,
            }
        }
        Ok(curve)
    }

    /// What caches of any policy would hit on a sample of the blocks, of a share `rate`; the
    /// jobs' capacities are those of the sample.
    ///
    /// # Errors
    /// As [`SimulatedTrace::simulate`].
    pub fn simulate_sample(
        &mut self,
        jobs: &[Job],
        seed: u64,
        rate: f64,
        salt: u64,
        progress: Progress<'_>,
    ) -> Result<Vec<CacheReport>> {
        let streams = 0..self.summary.streams.len();
        let mut samples = Samples(streams.map(|at| Sampler::new(at, salt, rate)).collect());
        self.run(std::slice::from_mut(&mut samples), &mut |_| progress(0))?;
        let mut sampled = Vec::new();
        let mut blocks = Vec::new();
        for mut sampler in samples.0 {
            sampler.finish();
            blocks.push(sampler.blocks());
            sampled.append(&mut sampler.chunks);
        }
        let mut setting = self.setting;
        if setting.write_policy == WritePolicy::Back {
            // Only hits are asked for: they are those of write-through.
            setting.write_policy = WritePolicy::Through;
        }
        let mut futures = Futures::default();
        let mut caches = Vec::with_capacity(jobs.len());
        for job in jobs {
            let blocks = blocks.get(job.stream).copied().unwrap_or(0);
            let next = futures.of(job, Some(&sampled), blocks)?;
            caches.push(build(job, next, Arc::default(), seed, &setting)?);
        }
        let done = AtomicU64::new(0);
        hand_out(&mut caches, &sampled, true, setting.threads(), &done, progress)?;
        Ok(caches.into_iter().map(|cache| cache.finish(0)).collect())
    }

    /// What content-based caches hit, in the order of `jobs`; the batches have `content`.
    /// `progress` is told the I/Os read.
    ///
    /// # Errors
    /// `Input`: no such policy, a capacity out of range, a damaged trace.
    pub fn simulate_contents(
        &mut self,
        jobs: &[Job],
        seed: u64,
        progress: Progress<'_>,
    ) -> Result<Vec<ContentReport>> {
        let setting = self.setting;
        let mut caches = Vec::with_capacity(jobs.len());
        for job in jobs {
            let policy = policy_of(job, Arc::default(), seed)?;
            caches.push(ContentCache::new(job.stream, policy));
        }
        let mut walk = ContentWalk::new(setting.block_bytes, setting.is_shared);
        let mut batches = (self.open)()?;
        while let Some(batch) = batches()? {
            let warmup = (setting.warmup_ios, setting.warmup_ns);
            progress(walk.take(&batch, &mut caches, warmup)?)?;
        }
        Ok(caches.into_iter().map(ContentCache::finish).collect())
    }

    /// All chunks to all consumers.
    fn run<C: Consumer>(&mut self, consumers: &mut [C], progress: Progress<'_>) -> Result<()> {
        let threads = self.setting.threads();
        let done = AtomicU64::new(0);
        if let Some(kept) = &self.kept {
            return hand_out(consumers, kept, true, threads, &done, progress);
        }
        let mut batches = (self.open)()?;
        let mut round = Vec::new();
        let rules = self.setting.rules();
        each_chunk(&mut batches, rules, &mut |_| Ok(()), &mut |chunk| {
            round.push(chunk);
            if round.len() < ROUND_CHUNKS {
                return Ok(());
            }
            let chunks = std::mem::take(&mut round);
            hand_out(consumers, &chunks, false, threads, &done, progress)
        })?;
        hand_out(consumers, &round, true, threads, &done, progress)
    }
}

impl Setting {
    fn rules(&self) -> Rules {
        Rules {
            block_bytes: self.block_bytes,
            is_shared: self.is_shared,
            is_timed: self.write_policy == WritePolicy::Back,
            warmup_ios: self.warmup_ios,
            warmup_ns: self.warmup_ns,
            bucket_ns: self.bucket_ns,
        }
    }

    fn threads(&self) -> usize {
        if self.threads == 0 { threads() } else { self.threads }
    }
}

fn each_chunk(
    batches: &mut Batches,
    rules: Rules,
    progress: Progress<'_>,
    take: &mut dyn FnMut(Arc<Chunk>) -> Result<()>,
) -> Result<Builder> {
    let mut builder = Builder::new(rules);
    let mut ready = Vec::new();
    while let Some(batch) = batches()? {
        builder.add(&batch, &mut ready)?;
        ready.drain(..).try_for_each(&mut *take)?;
        progress(builder.rows())?;
    }
    builder.finish(&mut ready);
    ready.drain(..).try_for_each(take)?;
    Ok(builder)
}

/// By stream: when each request's block is asked for next.
#[derive(Default)]
struct Futures(BTreeMap<usize, Arc<Vec<u32>>>);

impl Futures {
    /// What Belady's policy needs; `None` for a job of another.
    fn of(
        &mut self,
        job: &Job,
        chunks: Option<&[Arc<Chunk>]>,
        blocks: usize,
    ) -> Result<Option<Arc<Vec<u32>>>> {
        if job.policy != OFFLINE.0 {
            return Ok(None);
        }
        let chunks = chunks.ok_or_else(|| {
            Error::input("belady: the trace has more requests than are kept in memory")
        })?;
        let make = || Arc::new(next_requests(chunks, job.stream, blocks));
        Ok(Some(self.0.entry(job.stream).or_insert_with(make).clone()))
    }
}

fn build(
    job: &Job,
    next: Option<Arc<Vec<u32>>>,
    marks: Arc<Vec<u32>>,
    seed: u64,
    setting: &Setting,
) -> Result<Cache> {
    let Setting { block_bytes, bucket_ns, write_policy, .. } = *setting;
    let stream = job.stream;
    if let Some(next) = next {
        check_capacity(job)?;
        let belady = Belady::new(job.capacity);
        return Ok(Cache::offline(belady, next, stream, write_policy, block_bytes, bucket_ns));
    }
    let policy = policy_of(job, marks, seed)?;
    Ok(Cache::new(policy, stream, write_policy, block_bytes, bucket_ns))
}

fn policy_of(job: &Job, marks: Arc<Vec<u32>>, seed: u64) -> Result<Box<dyn Eviction>> {
    check_capacity(job)?;
    let kind = eviction::find(&job.policy).ok_or_else(|| {
        let known = eviction::names();
        Error::input(format!("expected one of {known}, {}, got {:?}", OFFLINE.0, job.policy))
    })?;
    // The index grows as blocks appear: caches that wait for their turn take up no memory.
    Ok((kind.build)(job.capacity, Index::marked(0, marks), seed))
}

fn check_capacity(job: &Job) -> Result<()> {
    if job.capacity == 0 || job.capacity > CAPACITY_MAX {
        return Err(Error::input(format!("expected 1 to {CAPACITY_MAX} blocks of cache")));
    }
    Ok(())
}

fn add(sum: &mut [f64], values: &[f64], weight: f64) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

/// What [`SimulatedTrace::lru_curve`] hands the chunks to.
enum Line {
    Exact(Curve),
    /// With the row of its salt.
    FixedRate(usize, Shards),
    FixedSize(usize, Shards),
    WorkingSet(WorkingSet),
}

impl Consumer for Line {
    fn take(&mut self, chunk: &Chunk) {
        match self {
            Self::Exact(curve) => curve.take(chunk),
            Self::FixedRate(_, shards) | Self::FixedSize(_, shards) => shards.take(chunk),
            Self::WorkingSet(set) => set.take(chunk),
        }
    }
}

/// Samplers of all streams.
struct Samples(Vec<Sampler>);

impl Consumer for Samples {
    fn take(&mut self, chunk: &Chunk) {
        if let Some(sampler) = self.0.get_mut(chunk.stream) {
            sampler.take(chunk);
        }
    }
}
