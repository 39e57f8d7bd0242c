//! Changes inputs blindly, for runs without libFuzzer.

/// Inputs get no longer than this.
const MAX: usize = 4096;

/// Numbers that a seed determines: SplitMix64.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `limit`, which counts as 1 if it is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.word() % limit.max(1) as u64) as usize
    }
}

/// Numbers at which code turns.
const EDGES: [u64; 12] =
    [0, 1, 2, 16, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

/// One to eight changes; `other` is another input, of which parts may be taken.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..1 << random.below(4) {
        let at = random.below(input.len() + 1);
        let until = at + random.below(33).min(input.len() - at);
        match random.below(9) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.word() as u8,
            2 => {
                let width = 1 << random.below(4);
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let len = width.min(input.len() - at);
                input[at..at + len].copy_from_slice(&edge[..len]);
            }
            3 => drop(input.drain(at..until)),
            4 => {
                let copy = input[at..until].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, copy);
            }
            5 => {
                let from = random.below(other.len() + 1);
                let len = random.below(65).min(other.len() - from);
                input.splice(at..at, other[from..from + len].iter().copied());
            }
            6 => {
                let bytes: Vec<u8> = (0..random.below(17)).map(|_| random.word() as u8).collect();
                input.splice(at..at, bytes);
            }
            7 if at < input.len() => {
                input[at] = input[at].wrapping_add(random.below(9) as u8).wrapping_sub(4)
            }
            _ => input.truncate(at.max(1)),
        }
        input.truncate(MAX);
    }
}
