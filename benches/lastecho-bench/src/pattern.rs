//! The bytes that clients send, so that each received one can be checked.

use std::sync::LazyLock;

/// A prime, so that no buffer size of a server divides it: a byte that is
/// dropped, doubled or out of place shows.
const PERIOD: usize = 65_521;
/// Longest piece in one go.
pub(crate) const LONGEST: usize = 64 * 1024;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24).to_le_bytes()[0]
    };
    let period: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
    period
        .iter()
        .copied()
        .cycle()
        .take(PERIOD + LONGEST)
        .collect()
});

/// Where connection number `index` begins: no two start alike.
pub(crate) fn start(index: usize) -> u64 {
    index as u64 * 257
}

/// What a stream has from `position` on; at most [`LONGEST`] bytes.
pub(crate) fn at(position: u64, length: usize) -> &'static [u8] {
    let from = usize::try_from(position % PERIOD as u64).unwrap_or(0);
    &BYTES[from..from + length]
}

/// How many bytes of `received` are not what was sent at `position`.
pub(crate) fn wrong(position: u64, received: &[u8]) -> u64 {
    let sent = at(position, received.len());
    if received == sent {
        return 0;
    }
    received.iter().zip(sent).filter(|(a, b)| a != b).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_a_doubled_and_a_changed_byte_are_wrong() {
        let sent = at(1000, 64).to_vec();
        assert_eq!(wrong(1000, &sent), 0);
        assert_eq!(wrong(1000 + PERIOD as u64, &sent), 0);
        assert!(wrong(1001, &sent) > 32);
        assert!(wrong(999, &sent) > 32);
        let mut changed = sent;
        changed[63] ^= 1;
        assert_eq!(wrong(1000, &changed), 1);
    }

    #[test]
    fn buffer_sizes_of_servers_do_not_divide_the_period() {
        for buffer in [4096, 61_440, 65_536] {
            assert!(wrong(buffer, at(0, 64)) > 32);
        }
        assert_eq!(at(PERIOD as u64 - 1, LONGEST).len(), LONGEST);
    }
}
