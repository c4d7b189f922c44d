//! Bytes of any kind never make a decoder panic, nor give I/Os that the canonical trace forbids.

use super::blktrace::{PLAIN, Rec, file, rec};
use super::{drain, inputs};
use crate::formats::{EventKind, FORMATS, Format, Options};
use crate::io::Op;
use proptest::prelude::*;

fn check(format: &dyn Format, files: &[&[u8]], options: &Options) {
    for file in files {
        format.sniff(file);
    }
    let Ok(source) = format.open(inputs(files), options) else { return };
    let Ok(decoded) = drain(source, 100) else { return };
    for io in &decoded.ios {
        let end = io.offset_bytes.checked_add(io.length_bytes);
        assert!(io.offset_bytes >= 0 && io.length_bytes >= 0 && end.is_some(), "{io:?}");
        assert!(io.length_bytes > 0 || io.op == Op::Flush, "{io:?}");
        assert!(io.latency_ns >= -1 && (io.disk as usize) < decoded.disks.len(), "{io:?}");
    }
}

fn all_options() -> impl Iterator<Item = Options> {
    [EventKind::Queue, EventKind::Issue]
        .into_iter()
        .flat_map(|event| [true, false].map(|skip_bad| Options { event, skip_bad, columns: None }))
}

/// Records whose fields collide often.
fn any_record() -> impl Strategy<Value = Rec> {
    let action = prop_oneof![0u64..18, Just(0x101), any::<u64>().prop_map(|a| a & 0xffff)];
    let sector = prop_oneof![0u64..40, any::<u64>()];
    let bytes = prop_oneof![(0u32..5).prop_map(|n| n * 512), any::<u32>()];
    let time = prop_oneof![0u64..100, any::<u64>()];
    let pdu = prop::collection::vec(any::<u8>(), 0..30);
    let category = prop_oneof![Just(1u32), Just(2), Just(6), Just(5), 0u32..0x1_0000];
    (time, action, category, sector, bytes, 0u32..3, any::<u16>(), pdu).prop_map(
        |(time, action, category, sector, bytes, device, error, pdu)| Rec {
            device,
            error,
            pdu,
            ..rec(time, action, category, sector, bytes)
        },
    )
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for format in FORMATS {
            all_options().for_each(|options| check(*format, &[&bytes], &options));
        }
    }

    #[test]
    fn any_text(text in "([0-9]{1,20}[,. +\n\t]|[RWQDC]|fio version 3 iolog\n|-|8,0 ){0,60}") {
        for format in FORMATS {
            all_options().for_each(|options| check(*format, &[text.as_bytes()], &options));
        }
        let columns = "time=0:s,op=1:R/W,offset=-2:sectors,length=-1:1000000,disk=0+1".to_owned();
        let options = Options { columns: Some(columns), skip_bad: true, ..Options::default() };
        check(super::format("csv"), &[text.as_bytes()], &options);
    }

    #[test]
    fn any_records(
        records in prop::collection::vec(any_record(), 0..120),
        cut in 0usize..200,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = file(PLAIN, &records);
        for (at, value) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let other = file(PLAIN, &records[..records.len() / 2]);
        let blktrace = super::format("blktrace");
        all_options().for_each(|options| check(blktrace, &[&bytes, &other], &options));
    }
}
