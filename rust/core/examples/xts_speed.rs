//! How fast AES-256-XTS runs here: `xts_speed UNIT_BYTES CALL_BYTES SECONDS`, one JSON line.
//!
//! `scripts/bench_crypt.py` runs it in turns with `openssl speed`, which encrypts one buffer in
//! the cache over and over; so does this.

use std::time::{Duration, Instant};

use vaio_bench_core::xts::{KEY_BYTES, Xts};

fn main() {
    let args: Vec<f64> = std::env::args().skip(1).map_while(|a| a.parse().ok()).collect();
    let &[unit_bytes, call_bytes, seconds] = args.as_slice() else {
        eprintln!("usage: xts_speed UNIT_BYTES CALL_BYTES SECONDS");
        std::process::exit(2);
    };
    let (unit_bytes, call_bytes) = (unit_bytes as usize, call_bytes as usize);
    let key: [u8; KEY_BYTES] = std::array::from_fn(|i| i as u8);
    let xts = Xts::new(&key).expect("the halves of the key above differ");
    let (src, mut dst) = (vec![1u8; call_bytes], vec![0u8; call_bytes]);
    let for_this_long = Duration::from_secs_f64(seconds);
    let (begin, mut calls) = (Instant::now(), 0u64);
    while begin.elapsed() < for_this_long {
        for _ in 0..256 {
            xts.encrypt(unit_bytes, calls, &src, std::hint::black_box(&mut dst));
            calls += 1;
        }
    }
    let bytes_per_s = (calls * call_bytes as u64) as f64 / begin.elapsed().as_secs_f64();
    println!(
        "{{\"backend\": \"{}\", \"unit_bytes\": {unit_bytes}, \"call_bytes\": {call_bytes}, \
         \"bytes_per_s\": {bytes_per_s:.0}}}",
        xts.backend_name()
    );
}
