//! Published text traces: each a row of the table, a description in the `--columns` language and
//! a look at its first lines.

use crate::error::{Error, Result};
use crate::formats::columns::Columns;
use crate::formats::csv::{CsvSource, first_line};
use crate::formats::input::Input;
use crate::formats::numbers::{parse_scaled, parse_u64};
use crate::formats::{Format, Options};
use crate::trace::TraceSource;

/// A published format.
pub struct Preset {
    name: &'static str,
    page: &'static str,
    columns: &'static str,
    separator: Option<u8>,
    /// Whether the fields of a line can be of this format.
    looks_right: fn(&[&[u8]]) -> bool,
}

impl Format for Preset {
    fn name(&self) -> &'static str {
        self.name
    }

    fn page(&self) -> &'static str {
        self.page
    }

    fn sniff(&self, head: &[u8]) -> bool {
        let mut lines = head.split(|&b| b == b'\n').map(<[u8]>::trim_ascii_end);
        let rows = if self.columns.contains("header=yes") { 1 } else { 3 };
        let Some(first) = lines.next().filter(|line| !line.is_empty()) else { return false };
        // The last line of a head may be cut: only lines with an end count, but for the first.
        let whole = memchr::memchr_iter(b'\n', head).take(rows).count().max(1);
        std::iter::once(first).chain(lines).take(whole).filter(|line| !line.is_empty()).all(
            |line| {
                let fields: Vec<&[u8]> = match self.separator {
                    Some(byte) => line.split(|&b| b == byte).map(<[u8]>::trim_ascii).collect(),
                    None => line
                        .split(|&b| b == b' ' || b == b'\t')
                        .filter(|field| !field.is_empty())
                        .collect(),
                };
                (self.looks_right)(&fields)
            },
        )
    }

    fn open(&self, mut inputs: Vec<Input>, options: &Options) -> Result<Box<dyn TraceSource>> {
        for input in &mut inputs {
            let name = input.name.clone();
            let head = input.fill(super::input::HEAD_BYTES)?;
            if head.contains(&0) {
                let got = super::lines::excerpt(first_line(head));
                return Err(Error::input(format!("expected text, got {got}")).with("file", name));
            }
        }
        let columns = Columns::parse(self.columns)?;
        Ok(Box::new(CsvSource::new(inputs, columns, options.skip_bad)))
    }
}

fn is_integer(field: &[u8]) -> bool {
    parse_u64(field).is_some()
}

fn is_one_of(field: &[u8], codes: &[&str]) -> bool {
    codes.iter().any(|code| field.eq_ignore_ascii_case(code.as_bytes()))
}

fn all_integers(fields: &[&[u8]]) -> bool {
    fields.iter().all(|field| is_integer(field))
}

pub static MSR: Preset = Preset {
    name: "msr",
    page: "\
# msr

Microsoft Research Cambridge traces (SNIA IOTTA; Narayanan, Donnelly, Rowstron: Write Off-Loading,
FAST 2008): `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime`, no header.

    vaio-bench import hm_0.csv.gz -o hm_0.parquet

Times and response times are in ticks of 100 ns (from 1601 on); the timestamp is the issue. Offset
and size are bytes. The disk is `host_number`, such as `hm_0`: a number alone would mix the disks
of different hosts.
",
    columns: "time=0:100ns,disk=1+2,op=3:Read/Write,offset=4:bytes,length=5:bytes,\
        latency=6:100ns,sep=comma,header=no",
    separator: Some(b','),
    looks_right: |f| {
        f.len() == 7
            && f[0].len() >= 15
            && is_integer(f[0])
            && is_one_of(f[3], &["read", "write"])
            && all_integers(&f[4..7])
    },
};

pub static SYSTOR17: Preset = Preset {
    name: "systor17",
    page: "\
# systor17

SYSTOR '17 virtual desktop traces (SNIA IOTTA; Lee et al., Understanding storage traffic
characteristics on enterprise virtual desktop infrastructure), with the header
`Timestamp,Response,IOType,LUN,Offset,Size`.

    vaio-bench import 2016022219-LUN0.csv.gz -o vdi.parquet

Times are seconds with nine decimals, read exactly (a float64 would lose the nanoseconds), and
are not in order: the import sorts. An empty response is no latency. Offset and size are bytes.
",
    columns: "time=Timestamp:s,latency=Response:s,op=IOType:R/W,disk=LUN,offset=Offset:bytes,\
        length=Size:bytes,sep=comma,header=yes",
    separator: Some(b','),
    looks_right: |f| {
        let names = ["timestamp", "response", "iotype", "lun", "offset", "size"];
        f.len() >= names.len() && names.iter().zip(f).all(|(name, field)| is_one_of(field, &[name]))
    },
};

pub static ALIBABA: Preset = Preset {
    name: "alibaba",
    page: "\
# alibaba

Alibaba cloud block storage 2020 (Li et al., An In-Depth Analysis of Cloud Block Storage Workloads
in Large-Scale Production, IISWC 2020): `device_id,opcode,offset,length,timestamp`, no header.

    vaio-bench import io_traces.csv -o ali.parquet

Offset and length are bytes; the time, in microseconds, is when the server received the I/O.
",
    columns: "disk=0,op=1:R/W,offset=2:bytes,length=3:bytes,time=4:us,sep=comma,header=no",
    separator: Some(b','),
    looks_right: |f| {
        f.len() == 5
            && is_one_of(f[1], &["r", "w"])
            && all_integers(&[f[0], f[2], f[3], f[4]])
            && f[4].len() >= 14
    },
};

pub static SPC: Preset = Preset {
    name: "spc",
    page: "\
# spc

UMass traces (Financial, WebSearch) in the SPC format: `ASU,LBA,Size,Opcode,Timestamp[,...]`.

    vaio-bench import Financial1.spc.bz2 -o fin1.parquet

The address is in blocks of 512 bytes and the size in bytes; times are seconds from the start.
Each application storage unit (ASU) is a disk of its own. Optional fields are passed over.
",
    columns: "disk=0,offset=1:sectors,length=2:bytes,op=3:R/W,time=4:s,sep=comma,header=no",
    separator: Some(b','),
    looks_right: |f| {
        f.len() >= 5
            && all_integers(&f[..3])
            && is_one_of(f[3], &["r", "w"])
            && f[4].contains(&b'.')
            && parse_scaled(f[4], 1).is_some()
    },
};

pub static TENCENT: Preset = Preset {
    name: "tencent",
    page: "\
# tencent

Tencent cloud block storage (Zhang et al., OSCA, USENIX ATC 2020; SNIA IOTTA):
`Timestamp,Offset,Size,IOType,VolumeID`, no header.

    vaio-bench import cbs_trace.csv.bz2 -o cbs.parquet

Offset and size are sectors of 512 bytes; type 0 is a read, 1 a write. Times are whole seconds,
so that thousands of I/Os share one, and are not in order: the import sorts, and rows of one
second stay in the order of the file. There is no arrival pattern within a second to replay.
",
    columns: "time=0:s,offset=1:sectors,length=2:sectors,op=3:0/1,disk=4,sep=comma,header=no",
    separator: Some(b','),
    looks_right: |f| {
        f.len() == 5 && all_integers(f) && is_one_of(f[3], &["0", "1"]) && f[0].len() == 10
    },
};

pub static FIU: Preset = Preset {
    name: "fiu",
    page: "\
# fiu

FIU traces (SNIA IOTTA; Koller, Rangaswami: I/O Deduplication, FAST 2010): columns
`ts pid process lba size op major minor md5` between blanks.

    vaio-bench import homes-110108-112108.1.blkparse -o homes.parquet

Times are nanoseconds, address and size sectors of 512 bytes. The process name may hold blanks,
so that the columns behind it are counted from the right. The disk is `major_minor`, the stream
the process id. The digests of the content are not kept.
",
    columns: "time=0:ns,stream=1,offset=-6:sectors,length=-5:sectors,op=-4:R/W,disk=-3+-2,\
        sep=blanks,header=no",
    separator: None,
    looks_right: |f| {
        let n = f.len();
        n >= 9
            && is_integer(f[0])
            && is_one_of(f[n - 4], &["r", "w"])
            && f[n - 1].len() == 32
            && f[n - 1].iter().all(u8::is_ascii_hexdigit)
    },
};

pub static DISKSIM: Preset = Preset {
    name: "disksim",
    page: "\
# disksim

DiskSim's ASCII traces: `arrival_ms device block blocks flags` between blanks.

    vaio-bench import x.trace -o t.parquet

The time is in milliseconds with decimals, blocks have 512 bytes; flags 1 is a read, 0 a write.
",
    columns: "time=0:ms,disk=1,offset=2:sectors,length=3:sectors,op=4:1/0,sep=blanks,header=no",
    separator: None,
    looks_right: |f| {
        f.len() == 5
            && f[0].contains(&b'.')
            && parse_scaled(f[0], 1).is_some()
            && all_integers(&f[1..])
            && is_one_of(f[4], &["0", "1"])
    },
};

pub static MQSIM: Preset = Preset {
    name: "mqsim",
    page: "\
# mqsim

MQSim's ASCII traces: `arrival_ns device address size type` between blanks.

    vaio-bench import tpcc-small.trace -o t.parquet

The time is in nanoseconds, address and size are sectors of 512 bytes; type 1 is a read, 0 a
write (Tencent's code is the other way round).
",
    columns: "time=0:ns,disk=1,offset=2:sectors,length=3:sectors,op=4:1/0,sep=blanks,header=no",
    separator: None,
    looks_right: |f| f.len() == 5 && all_integers(f) && is_one_of(f[4], &["0", "1"]),
};
