//! Known answers of IEEE 1619-2018, annex B, and both codes against each other.

use proptest::prelude::*;

use super::*;

/// Vector 10: a unit of 512 bytes counting up, AES-256, unit number 0xff.
const VECTOR_10: &str = "\
    1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b5d31e276f8fe4a8d66b317f9\
    ac683f44680a86ac35adfc3345befecb4bb188fd5776926c49a3095eb108fd1098baec70aaa66999a72a82f2\
    7d848b21d4a741b0c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca2a3e7a7d\
    7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0b5781c34803fa75421c790dfe1de1834\
    f280d7667b327f6c8cd7557e12ac3a0f93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1\
    a8cc81ec583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a84e18e8f84252070\
    c13e9f1f289be54fbc481457778f616015e1327a02b140f1505eb309326d68378f8374595c849d84f4c333ec\
    4423885143cb47bd71c5edae9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29\
    a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac6e333b93eb4aff0479da9a41\
    0e4450e0dd7ae4c6e2910900575da401fc07059f645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed\
    5376441a77ed43851ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa773dad38\
    014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151";

/// Vectors 10 to 14, the same key and data: unit number, first 32 and last 16 bytes.
const VECTORS: [(u64, &str, &str); 5] = [
    (
        0xff,
        "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
        "c4f36ffda9fcea70b9c6e693e148c151",
    ),
    (
        0xffff,
        "77a31251618a15e6b92d1d66dffe7b50b50bad552305ba0217a610688eff7e11",
        "a4f9e27b42af8100cb9d59cef9645803",
    ),
    (
        0xffffff,
        "e387aaa58ba483afa7e8eb469778317ecf4cf573aa9d4eac23f2cdf914e4e200",
        "2263a1eef52dd6888c309f5a7d712826",
    ),
    (
        0xffffffff,
        "bf53d2dade78e822a4d949a9bc6766b01b06a8ef70d26748c6a7fc36d80ae4c5",
        "4c82f335abb152c4a93411373aaa8220",
    ),
    (
        0xffffffffff,
        "64497e5a831e4a932c09be3e5393376daa599548b816031d224bbf50a818ed23",
        "d609d273ad5b0d59631c531f6a0a57b9",
    ),
];

const KEY: &str = "\
    2718281828459045235360287471352662497757247093699959574966967627\
    3141592653589793238462643383279502884197169399375105820974944592";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|d| (d as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Every code that runs here, the fallback always among them.
fn codes(key: &[u8; KEY_BYTES]) -> Vec<Xts> {
    let portable = Xts { code: Code::Portable(Box::new(portable::Keys::new(key))) };
    vec![portable, Xts::new(key).unwrap()]
}

#[test]
fn known_answers() {
    let key: [u8; KEY_BYTES] = bytes(KEY).try_into().unwrap();
    let plain: Vec<u8> = (0..512).map(|i| i as u8).collect();
    for xts in codes(&key) {
        let mut unit = plain.clone();
        xts.encrypt_in_place(512, 0xff, &mut unit);
        assert_eq!(unit, bytes(VECTOR_10), "{}", xts.backend_name());
        for (number, head, tail) in VECTORS {
            xts.encrypt(512, number, &plain, &mut unit);
            assert_eq!(unit[..32], bytes(head), "{} unit {number:#x}", xts.backend_name());
            assert_eq!(unit[496..], bytes(tail), "{} unit {number:#x}", xts.backend_name());
            xts.decrypt_in_place(512, number, &mut unit);
            assert_eq!(unit, plain, "{} unit {number:#x}", xts.backend_name());
        }
    }
}

#[test]
fn equal_halves_are_refused() {
    assert!(matches!(Xts::new(&[7; KEY_BYTES]), Err(EqualHalves)));
}

#[test]
#[should_panic(expected = "no whole number of units")]
fn part_of_a_unit_is_refused() {
    let key: [u8; KEY_BYTES] = std::array::from_fn(|i| i as u8);
    Xts::new(&key).unwrap().encrypt_in_place(512, 0, &mut [0; 520]);
}

/// IEEE 1619, 5.3, one block at a time with the plain block cipher: the slow way to be sure.
fn by_the_book(key: &[u8; KEY_BYTES], unit_bytes: usize, first: u64, data: &[u8]) -> Vec<u8> {
    use aes::cipher::{BlockCipherEncrypt, KeyInit};
    let half = |at: usize| {
        let half: [u8; 32] = std::array::from_fn(|i| key[at + i]);
        aes::Aes256::new(&half.into())
    };
    let (k1, k2) = (half(0), half(32));
    let mut out = Vec::new();
    for (number, unit) in (0..).map(|i| first.wrapping_add(i)).zip(data.chunks(unit_bytes)) {
        let mut tweak = (number as u128).to_le_bytes().into();
        k2.encrypt_block(&mut tweak);
        for block in unit.chunks(BLOCK_BYTES) {
            let mut work: aes::Block = std::array::from_fn(|i| block[i] ^ tweak[i]).into();
            k1.encrypt_block(&mut work);
            out.extend(work.iter().zip(tweak.iter()).map(|(c, t)| c ^ t));
            let mut carry = 0;
            for byte in tweak.iter_mut() {
                let next = *byte >> 7;
                *byte = *byte << 1 | carry;
                carry = next;
            }
            tweak[0] ^= carry * 0x87;
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_run_of_units(
        key in proptest::array::uniform32(any::<u8>()),
        // Lengths that leave every kind of rest in both codes, and the two of real disks.
        unit_blocks in prop_oneof![1usize..70, Just(32), Just(256)],
        units in 1usize..40,
        first in prop_oneof![any::<u64>(), 0u64..1000, Just(u64::MAX - 3)],
        seed in any::<u64>(),
    ) {
        let key: [u8; KEY_BYTES] =
            std::array::from_fn(|i| if i < 32 { key[i] } else { key[i - 32] ^ i as u8 });
        let unit_bytes = unit_blocks * BLOCK_BYTES;
        let plain: Vec<u8> = (0..units * unit_bytes)
            .map(|i| (seed.wrapping_mul(i as u64 | 1) >> 32) as u8)
            .collect();
        let expected = by_the_book(&key, unit_bytes, first, &plain);
        for xts in codes(&key) {
            let mut out = vec![0; plain.len()];
            xts.encrypt(unit_bytes, first, &plain, &mut out);
            prop_assert!(out == expected, "{}: encrypt", xts.backend_name());
            let mut back = vec![0; plain.len()];
            xts.decrypt(unit_bytes, first, &out, &mut back);
            prop_assert!(back == plain, "{}: decrypt", xts.backend_name());
            xts.decrypt_in_place(unit_bytes, first, &mut out);
            prop_assert!(out == plain, "{}: decrypt in place", xts.backend_name());
            xts.encrypt_in_place(unit_bytes, first, &mut out);
            prop_assert!(out == expected, "{}: encrypt in place", xts.backend_name());
        }
    }
}
