//! What a write-back cache holds that the disk does not: how much, and how old.
//!
//! A block is dirty from its first write until it leaves the cache, its disk is flushed or it is
//! discarded. Losing the cache at time t loses what was written since the oldest dirty block's
//! first write: that block's age at t is the RPO of the loss.

use std::collections::VecDeque;

use serde::Serialize;

use super::BUCKETS;
use super::requests::IoMark;
use crate::eviction::Request;

const CLEAN: i64 = i64::MAX;

/// Of one bucket of time, the most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DirtyPoint {
    pub dirty_bytes: u64,
    pub age_ns: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirtyReport {
    pub series: Vec<DirtyPoint>,
    pub max_bytes: u64,
    pub end_bytes: u64,
    pub max_age_ns: i64,
    /// Mean over time; no dirty block counts as age 0.
    pub mean_age_ns: i64,
    /// Writes of blocks, and blocks written to the disk: less, where one was written twice.
    pub written_blocks: u64,
    pub destaged_blocks: u64,
}

/// Blocks of one disk in the order in which they became dirty: (when, block). Those that are
/// clean, or became dirty anew, are out of date.
#[derive(Default)]
struct Line {
    order: VecDeque<(i64, u32)>,
    dirty: usize,
}

pub(super) struct Dirty {
    block_bytes: u64,
    bucket_ns: i64,
    /// By block: since when it is dirty, and its disk.
    since: Vec<(i64, u32)>,
    /// By disk.
    lines: Vec<Line>,
    count: u64,
    now_ns: i64,
    /// Integral of the age over time, ns².
    area: f64,
    report: DirtyReport,
}

impl Dirty {
    pub fn new(block_bytes: u64, bucket_ns: i64) -> Self {
        let report = DirtyReport {
            series: vec![DirtyPoint::default(); BUCKETS],
            max_bytes: 0,
            end_bytes: 0,
            max_age_ns: 0,
            mean_age_ns: 0,
            written_blocks: 0,
            destaged_blocks: 0,
        };
        Self {
            block_bytes,
            bucket_ns: bucket_ns.max(1),
            since: Vec::new(),
            lines: Vec::new(),
            count: 0,
            now_ns: 0,
            area: 0.0,
            report,
        }
    }

    pub fn request(&mut self, request: Request, io: IoMark, evicted: Option<u32>) {
        self.advance(io.time_ns);
        if let Some(block) = evicted {
            self.report.destaged_blocks += u64::from(self.clean(block));
        }
        if request.is_write() {
            self.report.written_blocks += 1;
            self.write(request.block() as u32, io);
        }
    }

    fn write(&mut self, block: u32, io: IoMark) {
        if block as usize >= self.since.len() {
            self.since.resize(block as usize + 1, (CLEAN, 0));
        }
        if self.since[block as usize].0 != CLEAN {
            return;
        }
        self.since[block as usize] = (io.time_ns, io.disk);
        if io.disk as usize >= self.lines.len() {
            self.lines.resize_with(io.disk as usize + 1, Line::default);
        }
        let line = &mut self.lines[io.disk as usize];
        line.dirty += 1;
        if line.order.len() > 2 * line.dirty + 64 {
            let since = &self.since;
            line.order.retain(|(time, block)| since[*block as usize].0 == *time);
        }
        line.order.push_back((io.time_ns, block));
        self.count += 1;
        self.see();
    }

    /// A block left or is written to the disk; whether it was dirty.
    pub fn clean(&mut self, block: u32) -> bool {
        let Some(since) = self.since.get_mut(block as usize).filter(|since| since.0 != CLEAN)
        else {
            return false;
        };
        since.0 = CLEAN;
        self.lines[since.1 as usize].dirty -= 1;
        self.count -= 1;
        true
    }

    /// All that was written to a disk goes there.
    pub fn flush(&mut self, disk: u32, time_ns: i64) {
        self.advance(time_ns);
        let Some(line) = self.lines.get_mut(disk as usize) else { return };
        for (time, block) in line.order.drain(..) {
            let since = &mut self.since[block as usize];
            if since.0 == time {
                since.0 = CLEAN;
                self.count -= 1;
                self.report.destaged_blocks += 1;
            }
        }
        line.dirty = 0;
    }

    /// First write of the block that is dirty the longest.
    fn oldest(&mut self) -> Option<i64> {
        let since = &self.since;
        let first = |line: &mut Line| {
            while let Some(&(time, block)) = line.order.front() {
                if since[block as usize].0 == time {
                    return Some(time);
                }
                line.order.pop_front();
            }
            None
        };
        self.lines.iter_mut().filter_map(first).min()
    }

    /// Time passes with what is dirty as it is.
    fn advance(&mut self, time_ns: i64) {
        if time_ns == self.now_ns {
            return;
        }
        if let Some(since) = self.oldest() {
            let (from, to) = (self.now_ns - since, time_ns - since);
            self.area += (to as f64 + from as f64) / 2.0 * (to - from) as f64;
            let last = self.bucket(time_ns);
            // A long pause spans buckets: each shows the age at its end.
            for bucket in self.bucket(self.now_ns)..=last {
                let end = (bucket as i64 + 1) * self.bucket_ns;
                let age_ns = if bucket == last { to } else { end - since };
                let point = &mut self.report.series[bucket];
                point.age_ns = point.age_ns.max(age_ns);
                point.dirty_bytes = point.dirty_bytes.max(self.count * self.block_bytes);
            }
            self.report.max_age_ns = self.report.max_age_ns.max(to);
        }
        self.now_ns = time_ns;
    }

    fn bucket(&self, time_ns: i64) -> usize {
        ((time_ns / self.bucket_ns) as usize).min(BUCKETS - 1)
    }

    fn see(&mut self) {
        let bytes = self.count * self.block_bytes;
        let bucket = self.bucket(self.now_ns);
        let point = &mut self.report.series[bucket];
        point.dirty_bytes = point.dirty_bytes.max(bytes);
        self.report.max_bytes = self.report.max_bytes.max(bytes);
    }

    pub fn finish(mut self, end_ns: i64) -> DirtyReport {
        self.advance(end_ns);
        self.report.end_bytes = self.count * self.block_bytes;
        self.report.mean_age_ns = if end_ns > 0 { (self.area / end_ns as f64) as i64 } else { 0 };
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(time_ns: i64, disk: u32) -> IoMark {
        IoMark { end: 0, disk, time_ns }
    }

    #[test]
    fn age_counts_from_the_first_write_of_the_oldest() {
        let mut dirty = Dirty::new(10, 100);
        dirty.request(Request::new(1, true), io(100, 0), None);
        dirty.request(Request::new(1, true), io(200, 0), None);
        dirty.request(Request::new(2, true), io(300, 1), None);
        dirty.request(Request::new(3, false), io(400, 0), None);
        // Block 1 leaves at 500: block 2 is the oldest, since 300.
        dirty.request(Request::new(4, false), io(500, 0), Some(1));
        dirty.flush(0, 600);
        dirty.flush(1, 700);
        dirty.request(Request::new(2, true), io(900, 1), None);
        let report = dirty.finish(1000);
        assert_eq!((report.max_bytes, report.end_bytes), (20, 10));
        assert_eq!((report.written_blocks, report.destaged_blocks), (4, 2));
        assert_eq!(report.max_age_ns, 400);
        // 0..400, then 200..400, then 0..100.
        assert_eq!(report.mean_age_ns, (400 * 400 / 2 + (200 + 400) / 2 * 200 + 100 * 50) / 1000);
        assert_eq!(report.series[4].age_ns, 400);
        assert_eq!(report.series[8], DirtyPoint::default());
    }
}
