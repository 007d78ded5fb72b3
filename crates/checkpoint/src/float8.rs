//! The two 8-bit floats of weights: E4M3 without infinities and E5M2 (Micikevicius et al. 2022, "FP8 Formats for Deep Learning").

use half::f16;

/// All values of E4M3: 4 bits of exponent with a bias of 7; only the two with all bits set are no numbers.
const E4M3: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut bits = 0;
    while bits < 256 {
        let (exponent, mantissa) = (((bits >> 3) & 15) as i32, (bits & 7) as f32);
        let magnitude = if exponent == 15 && bits & 7 == 7 {
            f32::NAN
        } else if exponent == 0 {
            // Subnormal: of the exponent -6.
            mantissa / 8.0 / 64.0
        } else {
            (1.0 + mantissa / 8.0) * power_of_two(exponent - 7)
        };
        values[bits] = if bits & 128 == 0 { magnitude } else { -magnitude };
        bits += 1;
    }
    values
};

const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

pub(crate) fn from_e4m3(bits: u8) -> f32 {
    E4M3[bits as usize]
}

/// The upper half of an f16.
pub(crate) fn from_e5m2(bits: u8) -> f32 {
    f16::from_bits(u16::from(bits) << 8).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_are_the_numbers_that_the_formats_say() {
        // The smallest and largest of both, from the paper's table 1.
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0x7e, 448.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(from_e4m3(bits), value, "{bits:#x}");
        }
        assert!(from_e4m3(0x7f).is_nan() && from_e4m3(0xff).is_nan());
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 2f32.powi(-16)),
            (0x3c, 1.0),
            (0x7b, 57344.0),
            (0xfb, -57344.0),
        ] {
            assert_eq!(from_e5m2(bits), value, "{bits:#x}");
        }
        assert!(from_e5m2(0x7c).is_infinite() && from_e5m2(0x7f).is_nan());
    }
}
