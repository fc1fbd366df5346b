//! Compares every kernel with the scalar kernel, and the scalar kernel with the RFC's own formula.

use super::*;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LENGTH_MAX: usize = 300;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 7) as u8).collect()
}

/// octet i of the transformed data is octet i of the original XOR octet i modulo 4 of the key.
#[test]
fn oracle_is_the_formula() {
    for length in 0..=LENGTH_MAX {
        let mut bytes = pattern(length);
        scalar::unmask(&mut bytes, KEY);
        let expected: Vec<u8> = pattern(length)
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ KEY[i % 4])
            .collect();
        assert_eq!(bytes, expected);
    }
}

/// Every kernel of this machine produces the scalar kernel's bytes for every length, alignment and phase, and does not
/// touch the bytes around them.
#[test]
fn kernels_agree_with_the_oracle() {
    let original = pattern(LENGTH_MAX + 128);
    for kernel in Kernel::detect_all() {
        for phase in 0..4 {
            let mut key = KEY;
            key.rotate_left(phase);
            for alignment in 0..64 {
                for length in 0..=LENGTH_MAX {
                    let range = alignment..alignment + length;
                    let mut bytes = original.clone();
                    kernel.unmask(&mut bytes[range.clone()], key);
                    scalar::unmask(&mut bytes[range], key);
                    assert_eq!(bytes, original, "length {length} at {alignment}");
                }
            }
        }
    }
}

/// The public functions agree with the scalar kernel at every length and phase, whatever path they take.
#[test]
fn phases_continue_a_payload() {
    for length in 0..=LENGTH_MAX {
        let mut whole = pattern(length);
        scalar::unmask(&mut whole, KEY);
        for cut in 0..=length {
            let mut pieces = pattern(length);
            let (head, tail) = pieces.split_at_mut(cut);
            unmask(head, KEY);
            unmask_from(tail, KEY, cut);
            assert_eq!(pieces, whole, "length {length}, cut at {cut}");
        }
    }
}

/// The kernel in use is the best one detected.
#[test]
fn a_kernel_is_chosen() {
    assert!(["avx512", "avx2", "sse2", "neon", "scalar"].contains(&kernel_name()));
}

/// Unmasking while moving is unmasking, then moving, wherever the two places overlap.
#[test]
fn moving_is_unmasking_then_moving() {
    let original = pattern(200);
    for length in 0..=70 {
        for from in [0, 1, 14, 60] {
            for to in [0, 2, 8, 10, 14, 60, 75] {
                let mut expected = original.clone();
                scalar::unmask(&mut expected[from..from + length], KEY);
                let moved = expected[from..from + length].to_vec();
                let mut bytes = original.clone();
                unmask_to(&mut bytes, from, to, length, KEY);
                assert_eq!(
                    bytes[to..to + length],
                    moved,
                    "{length} from {from} to {to}"
                );
                assert_eq!(bytes[to + length..].last(), original.last());
            }
        }
    }
}
