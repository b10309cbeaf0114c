//! Packs codes of 2 to 8 bits, one per byte, into the little-endian bit stream of a file, and unpacks them.
//! Knows nothing of what a code stands for.

/// Packs `codes` in `bits` each. Their number is a multiple of eight.
#[inline(always)]
pub(super) fn pack(bits: usize, codes: &[u8], packed: &mut [u8]) {
    match bits {
        2 => pack_all::<2>(codes, packed),
        3 => pack_all::<3>(codes, packed),
        4 => pack_halves(codes, packed),
        5 => pack_all::<5>(codes, packed),
        6 => pack_all::<6>(codes, packed),
        _ => packed.copy_from_slice(codes),
    }
}

/// Reverses [`pack`].
#[inline(always)]
pub(super) fn unpack(bits: usize, packed: &[u8], codes: &mut [u8]) {
    match bits {
        2 => unpack_all::<2>(packed, codes),
        3 => unpack_all::<3>(packed, codes),
        4 => unpack_halves(packed, codes),
        5 => unpack_all::<5>(packed, codes),
        6 => unpack_all::<6>(packed, codes),
        _ => codes.copy_from_slice(packed),
    }
}

/// Masks for the three steps of packing: the lower half of each pair, of each four and of each eight bytes.
/// The lower half stays in place; the upper half is shifted.
const PAIRS: u64 = 0x00ff_00ff_00ff_00ff;
const FOURS: u64 = 0x0000_ffff_0000_ffff;
const EIGHTS: u64 = 0x0000_0000_ffff_ffff;

/// Packs two codes of 4 bits into each byte.
#[inline(always)]
fn pack_halves(codes: &[u8], packed: &mut [u8]) {
    for (two, byte) in codes.as_chunks::<2>().0.iter().zip(packed) {
        *byte = two[0] | (two[1] << 4);
    }
}

/// Packs eight codes into `BITS` bytes. It joins neighbouring codes, then pairs of codes, then fours.
#[inline(always)]
fn pack_all<const BITS: usize>(codes: &[u8], packed: &mut [u8]) {
    for (eight, bytes) in codes.as_chunks::<8>().0.iter().zip(packed.as_chunks_mut::<BITS>().0) {
        let word = u64::from_le_bytes(*eight);
        let word = (word & PAIRS) | ((word & !PAIRS) >> (8 - BITS));
        let word = (word & FOURS) | ((word & !FOURS) >> (16 - 2 * BITS));
        let word = (word & EIGHTS) | ((word & !EIGHTS) >> (32 - 4 * BITS));
        bytes.copy_from_slice(&word.to_le_bytes()[..BITS]);
    }
}

/// Splits each byte into two codes of 4 bits.
#[inline(always)]
fn unpack_halves(packed: &[u8], codes: &mut [u8]) {
    for (byte, two) in packed.iter().zip(codes.as_chunks_mut::<2>().0) {
        *two = [byte & 15, byte >> 4];
    }
}

/// Undoes the three steps of [`pack_all`], in reverse order.
#[inline(always)]
fn unpack_all<const BITS: usize>(packed: &[u8], codes: &mut [u8]) {
    let (four, two, one) = ((1 << (4 * BITS)) - 1, (1 << (2 * BITS)) - 1, (1 << BITS) - 1);
    let (two, one) = (two * 0x1_0000_0001, one * 0x1_0001_0001_0001);
    for (bytes, eight) in packed.as_chunks::<BITS>().0.iter().zip(codes.as_chunks_mut::<8>().0) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        let word = u64::from_le_bytes(word);
        let word = (word & four) | ((word & !four) << (32 - 4 * BITS));
        let word = (word & two) | ((word & !two) << (16 - 2 * BITS));
        let word = (word & one) | ((word & !one) << (8 - BITS));
        *eight = word.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packs_by_hand() {
        let mut packed = [0; 3];
        pack(3, &[1, 2, 3, 4, 5, 6, 7, 0], &mut packed);
        // 000 111 110 101 100 011 010 001, the first code in the lowest bits.
        assert_eq!(packed, [0b1101_0001, 0b0101_1000, 0b0001_1111]);
    }

    proptest! {
        #[test]
        fn packing_is_lossless(codes in prop::collection::vec(any::<u8>(), 32), bits in prop::sample::select(vec![2usize, 3, 4, 5, 6, 8])) {
            let codes: Vec<u8> = codes.iter().map(|code| code >> (8 - bits)).collect();
            let (mut packed, mut back) = (vec![0; 4 * bits], vec![0; 32]);
            pack(bits, &codes, &mut packed);
            unpack(bits, &packed, &mut back);
            prop_assert_eq!(&back, &codes);
            // The bytes are one long number; the first code has its lowest bits.
            for (index, code) in codes.iter().enumerate() {
                let stream = |bit: usize| packed[bit / 8] >> (bit % 8) & 1;
                let read = (0..bits).fold(0, |read, bit| read | stream(index * bits + bit) << bit);
                prop_assert_eq!(read, *code);
            }
        }
    }
}
