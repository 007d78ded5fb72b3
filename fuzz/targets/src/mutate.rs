//! Inputs for machines without cargo-fuzz: seeds with a few bits, bytes or numbers changed. The same seed number gives the
//! same inputs everywhere.

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`, 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Longest input.
const MAX_BYTES: usize = 256 << 10;

/// Numbers at which readers go wrong, as JSON writes them.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e308",
    "-1e-308",
    "1e999",
    "255",
    "65536",
    "4294967296",
    "1099511627776",
    "9223372036854775807",
    "18446744073709551615",
    "null",
];

/// One of `seeds`, changed in one to four places.
pub fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds.get(random.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(4) {
        match random.below(7) {
            0 => flip_bit(&mut input, random),
            1 => set_byte(&mut input, random),
            2 => input.truncate(random.below(input.len())),
            3 => splice(&mut input, seeds, random),
            4 => swap_number(&mut input, random),
            5 => repeat_part(&mut input, random),
            _ => set_word(&mut input, random),
        }
    }
    input.truncate(MAX_BYTES);
    input
}

fn flip_bit(input: &mut [u8], random: &mut Random) {
    let at = random.below(input.len());
    let bit = random.below(8);
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

fn set_byte(input: &mut [u8], random: &mut Random) {
    let at = random.below(input.len());
    let value = [0, 0xff, 0x7f, 0x80, b'"', b'{', b'(', b'\\'][random.below(8)];
    if let Some(byte) = input.get_mut(at) {
        *byte = value;
    }
}

/// A length or an offset in either byte order.
fn set_word(input: &mut [u8], random: &mut Random) {
    let at = random.below(input.len());
    let word = [0, 1, 0x7fff_ffff, u32::MAX, 1 << 24][random.below(5)].to_be_bytes();
    if let Some(place) = input.get_mut(at..at + 4) {
        place.copy_from_slice(&word);
    }
}

/// The beginning of this one and the end of another.
fn splice(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let Some(other) = seeds.get(random.below(seeds.len())) else {
        return;
    };
    input.truncate(random.below(input.len() + 1));
    input.extend_from_slice(&other[random.below(other.len() + 1)..]);
}

/// A number written in digits becomes another.
fn swap_number(input: &mut Vec<u8>, random: &mut Random) {
    let start = random.below(input.len());
    let Some(at) = (start..input.len()).find(|&i| input[i].is_ascii_digit()) else {
        return;
    };
    let end = (at..input.len())
        .find(|&i| !input[i].is_ascii_digit())
        .unwrap_or(input.len());
    let number = NUMBERS[random.below(NUMBERS.len())];
    input.splice(at..end, number.bytes());
    fix_header_length(input);
}

/// A safetensors header that grew still begins with its length, or nothing behind that is ever looked at.
fn fix_header_length(input: &mut [u8]) {
    if input.get(8) == Some(&b'{')
        && let Some(end) = input.iter().rposition(|&byte| byte == b'}')
    {
        input[..8].copy_from_slice(&(end as u64 - 7).to_le_bytes());
    }
}

fn repeat_part(input: &mut Vec<u8>, random: &mut Random) {
    let from = random.below(input.len());
    let to = (from + 1 + random.below(64)).min(input.len());
    let part = input.get(from..to).unwrap_or_default().to_vec();
    for _ in 0..random.below(64) {
        input.splice(to..to, part.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_empty_seeds_are_no_trouble() {
        let seeds = [b"{\"a\": 12}".to_vec(), Vec::new()];
        let inputs = |seed| {
            let mut random = Random(seed);
            (0..1000).map(|_| mutated(&seeds, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert_eq!(mutated(&[], &mut Random(1)).len(), 0);
    }
}
