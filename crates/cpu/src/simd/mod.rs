//! Sixteen float32 numbers at a time, on several instruction sets with the same bits on each.
//! Knows nothing of matrices or formats beyond one chunk of a row.
//!
//! Every operation is exact or rounded once, as IEEE 754 says, and no operation depends on the width of a
//! register. A product with a sum is always fused ([`Lanes::mul_add`]), and Rust never fuses on its own.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// The number of lanes.
pub(crate) const LANES: usize = 16;

/// Sixteen float32 numbers.
pub(crate) trait Lanes: Copy {
    /// Returns `value` in every lane.
    fn splat(value: f32) -> Self;

    /// Asks the processor to bring the line at this address into its second cache. The address need not exist.
    fn prefetch(address: *const u8);

    fn load(values: &[f32; LANES]) -> Self;

    /// Reads float32 numbers, little-endian.
    fn from_f32(bytes: &[u8; 4 * LANES]) -> Self;

    fn store(self, values: &mut [f32; LANES]);

    /// Returns `self * factor + addend`, rounded once.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// Returns the sum of all lanes: each lane is added to the one 8 lanes above, then 4, 2 and 1.
    fn sum(self) -> f32;

    /// Widens float16 numbers, little-endian.
    fn from_f16(bytes: &[u8; 2 * LANES]) -> Self;

    /// Widens bfloat16 numbers, little-endian.
    fn from_bf16(bytes: &[u8; 2 * LANES]) -> Self;

    /// Converts 16 codes of `BITS` bits, at most 8, from the beginning of a little-endian bit stream.
    fn from_codes<const BITS: usize>(bytes: &[u8; LANES]) -> Self;

    /// Returns the table's entry for each byte.
    fn lookup(bytes: &[u8; LANES], table: &[f32; 256]) -> Self;

    /// Returns `scale * code + bias` for 32 codes of 4 bits: first those in the low halves of the bytes, then
    /// those in the high halves.
    fn affine_nibbles(bytes: &[u8; LANES], scale: f32, bias: f32) -> [Self; 2];

    /// Returns `scale * table[code]` for 32 codes of 4 bits, in the order of `affine_nibbles`. The first 16
    /// codes have the first scale.
    fn lookup_nibbles(bytes: &[u8; LANES], table: &[f32; 16], scales: [f32; 2]) -> [Self; 2];
}

/// The instruction sets that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simd {
    /// What every processor of the architecture has. On aarch64 that includes NEON.
    Portable,
    /// 256-bit vectors and fused products on x86-64.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors on x86-64.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Simd {
    /// All sets of this architecture, the best first.
    pub const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        Self::Portable,
    ];

    /// Whether this processor has the set.
    pub fn is_there(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_there()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
            }
        }
    }

    /// Returns the best set that this processor has.
    pub fn best() -> Self {
        Self::ALL.iter().copied().find(|set| set.is_there()).unwrap_or(Self::Portable)
    }
}

/// Returns the shuffle of 16 bytes that gives each of the lanes from `first` on the two bytes in which its code of
/// `bits` bits lies, and zeros above them.
#[cfg(target_arch = "x86_64")]
const fn pairs<const BYTES: usize>(bits: usize, first: usize) -> [i8; BYTES] {
    let mut indices = [-1; BYTES];
    let mut index = 0;
    while index < BYTES {
        let byte = (first + index / 4) * bits / 8 + index % 4;
        if index % 4 < 2 && byte < 16 {
            #[expect(clippy::cast_possible_truncation, reason = "it is below 16")]
            let byte = byte as i8;
            indices[index] = byte;
        }
        index += 1;
    }
    indices
}

/// Returns where the code of each lane begins in its two bytes.
#[cfg(target_arch = "x86_64")]
const fn shifts<const COUNT: usize>(bits: usize) -> [u32; COUNT] {
    let mut shifts = [0; COUNT];
    let mut lane = 0;
    while lane < COUNT {
        #[expect(clippy::cast_possible_truncation, reason = "it is below 8")]
        let shift = (lane * bits % 8) as u32;
        shifts[lane] = shift;
        lane += 1;
    }
    shifts
}

/// Defines a function whose first argument is an instruction set. It calls `$body` with that set's [`Lanes`],
/// compiled for the set. A closure in the body must not use lanes: it would be compiled without the set.
macro_rules! for_each_set {
    ($(#[$doc:meta])* fn $name:ident $(<$kind:ident: $bound:path>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? => $body:ident) => {
        $(#[$doc])*
        pub(crate) fn $name $(<$kind: $bound>)? (simd: $crate::simd::Simd, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2 $(<$kind: $bound>)? ($($argument: $type),*) $(-> $result)? {
                    $body::<$crate::simd::Avx2 $(, $kind)?>($($argument),*)
                }
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512 $(<$kind: $bound>)? ($($argument: $type),*) $(-> $result)? {
                    $body::<$crate::simd::Avx512 $(, $kind)?>($($argument),*)
                }
                match simd {
                    $crate::simd::Simd::Portable => $body::<$crate::simd::Portable $(, $kind)?>($($argument),*),
                    #[expect(unsafe_code, reason = "`Simd::is_there` found these features on this processor")]
                    $crate::simd::Simd::Avx2 => unsafe { avx2 $(::<$kind>)? ($($argument),*) },
                    #[expect(unsafe_code, reason = "`Simd::is_there` found these features on this processor")]
                    $crate::simd::Simd::Avx512 => unsafe { avx512 $(::<$kind>)? ($($argument),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            match simd {
                $crate::simd::Simd::Portable => $body::<$crate::simd::Portable $(, $kind)?>($($argument),*),
            }
        }
    };
}

pub(crate) use for_each_set;
